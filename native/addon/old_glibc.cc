// For prebuilt addons (SDAR_PREBUILT): what a new glibc gave new versions of is taken from the old ones, so that one file, made
// on a new system, loads on every glibc from 2.28 on. The linker's --wrap sends all uses here, those of the static libstdc++ too;
// scripts/check-prebuilds.mjs finds what is missing. cmake/prebuilt.cmake has the same names.
#include <dlfcn.h>
#include <pthread.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include <cstdint>

#if defined(__x86_64__)
#define BASE "GLIBC_2.2.5"
#define JUMP "jmp sdar_old_"
#define AFTER "@PLT"
constexpr int kStatVersion = 1;
#elif defined(__aarch64__)
#define BASE "GLIBC_2.17"
#define JUMP "b sdar_old_"
#define AFTER ""
constexpr int kStatVersion = 0;
#endif

// The same function in its first version, by a jump that leaves arguments and return address alone.
#define OLD(name)                                                                                            \
  asm(".symver sdar_old_" #name "," #name "@" BASE "\n.text\n.hidden __wrap_" #name "\n.globl __wrap_" #name \
      "\n.type __wrap_" #name ",%function\n__wrap_" #name ":\n" JUMP #name AFTER "\n");

// In libpthread and libdl before glibc 2.34.
OLD(pthread_create)
OLD(pthread_join)
OLD(pthread_detach)
OLD(pthread_once)
OLD(pthread_key_create)
OLD(__pthread_key_create)
OLD(pthread_key_delete)
OLD(pthread_getspecific)
OLD(pthread_setspecific)
OLD(pthread_mutex_trylock)
OLD(pthread_sigmask)
OLD(dlopen)
OLD(dlsym)
OLD(dlclose)
OLD(dlerror)
OLD(dladdr)
// Their versions of 2.29 only leave out errno.
OLD(exp)
OLD(log)
OLD(pow)

extern "C" {

int __xstat(int version, const char* path, struct stat* out);
int __lxstat(int version, const char* path, struct stat* out);
int __fxstat(int version, int file, struct stat* out);

int __wrap_stat(const char* path, struct stat* out) { return __xstat(kStatVersion, path, out); }
int __wrap_lstat(const char* path, struct stat* out) { return __lxstat(kStatVersion, path, out); }
int __wrap_fstat(int file, struct stat* out) { return __fxstat(kStatVersion, file, out); }
// The structures are one on machines of 64 bits.
int __wrap_stat64(const char* path, struct stat* out) { return __xstat(kStatVersion, path, out); }
int __wrap_lstat64(const char* path, struct stat* out) { return __lxstat(kStatVersion, path, out); }
int __wrap_fstat64(int file, struct stat* out) { return __fxstat(kStatVersion, file, out); }

// A hint of 2.32 that threads need no atomics: they always may be needed.
char __wrap___libc_single_threaded = 0;

std::uint32_t __wrap_arc4random() {
  std::uint32_t value = 0;
  while (getrandom(&value, sizeof value, 0) != sizeof value) {
  }
  return value;
}

// Of 2.30. Before it, a wait is until a time of the clock that may be set; whoever waits looks again in any case.
int __wrap_pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                                  const struct timespec* until) {
  using Wait = int (*)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const struct timespec*);
  static const auto real = reinterpret_cast<Wait>(dlsym(RTLD_DEFAULT, "pthread_cond_clockwait"));
  if (real) return real(condition, mutex, clock, until);
  constexpr std::int64_t kSecond = 1'000'000'000;
  const auto now = [](clockid_t id) {
    struct timespec time {};
    clock_gettime(id, &time);
    return time.tv_sec * kSecond + time.tv_nsec;
  };
  const std::int64_t left = until->tv_sec * kSecond + until->tv_nsec - now(clock);
  const std::int64_t end = now(CLOCK_REALTIME) + (left > 0 ? left : 0);
  const struct timespec then { end / kSecond, end % kSecond };
  return pthread_cond_timedwait(condition, mutex, &then);
}

}  // extern "C"
