#include <dlfcn.h>
#ifdef __linux__
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <pthread/qos.h>
#endif

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "util/machine.h"

namespace sdar {

void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& job,
                  const std::function<void()>& between) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&](const std::function<void()>* hook) {
    try {
      if (hook) (*hook)();
      for (int64_t i; (i = next.fetch_add(1)) < count;) {
        job(i);
        if (hook) (*hook)();
      }
    } catch (...) {
      next.store(count);
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  const int64_t wanted = std::min<int64_t>(threads, count) - 1;
  for (int64_t t = 0; t < wanted; t++) {
    try {
      workers.emplace_back(work, nullptr);
    } catch (const std::system_error&) {
      break;  // no more threads to be had: fewer do the same work
    }
  }
  work(between ? &between : nullptr);
  for (std::thread& worker : workers) worker.join();
  if (failure) std::rethrow_exception(failure);
}

void keep_loaded() {
  // Node unloads an addon when the last worker that uses it ends.
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&keep_loaded), &self) && self.dli_fname)
    dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

void run_in_background() {
#ifdef __linux__
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 19);
#elif defined(__APPLE__)
  pthread_set_qos_class_self_np(QOS_CLASS_BACKGROUND, 0);
#endif
}

}  // namespace sdar
