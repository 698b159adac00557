#include "simt/memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>

#include "simt/arena.h"
#include "simt/executor.h"
#include "util/error.h"

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

namespace sdar::cuda_host {
namespace {

std::mutex guard;  // of the list of allocations

void* reserve(uint64_t bytes, int protection) {
  void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return p;
}

struct sigaction before_us;

void on_fault(int signal, siginfo_t* info, void* context) {
  const Arena& a = arena();
  const char* what = nullptr;
  if (a.offset(info->si_addr) < kArenaBytes)
    what = "device memory was touched directly: use load_global and store_global\n";
  else if (running())
    what = "the kernel overran its stack, or touched memory that is not there\n";
  if (what) {
    const std::string where = running() ? describe_thread() + ": " : "host: ";
    for (const std::string& part : {where, std::string(what)})
      if (write(STDERR_FILENO, part.data(), part.size()) < 0) break;
    _exit(70);
  }
  if (before_us.sa_flags & SA_SIGINFO)
    before_us.sa_sigaction(signal, info, context);
  else
    sigaction(signal, &before_us, nullptr);  // comes again, as if we were not there
}

void watch_faults() {
  static char stack[64 * 1024];
  stack_t other{};
  other.ss_sp = stack;
  other.ss_size = sizeof stack;
  sigaltstack(&other, nullptr);
  struct sigaction ours {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &ours, &before_us);
#if defined(__APPLE__)
  sigaction(SIGBUS, &ours, nullptr);
#endif
}

/// For copies by the host.
uint64_t checked(const void* device, size_t bytes, const char* what) {
  const Arena& a = arena();
  const uint64_t at = a.offset(device);
  if (at < kArenaBytes && bytes <= kArenaBytes - at && bits_set(a.live, at, bytes)) return at;
  const Allocation* of = a.find(device);
  throw Error(of && of->freed ? "FREED_MEMORY" : "OUT_OF_BOUNDS",
              std::string(what) + " of " + std::to_string(bytes) + " bytes at " + a.describe(device));
}

}  // namespace

Arena::Arena() {
  device = static_cast<std::byte*>(reserve(kArenaBytes, PROT_NONE));
  host = static_cast<std::byte*>(reserve(kArenaBytes, PROT_READ | PROT_WRITE));
  shadow = static_cast<Shadow*>(reserve(kArenaBytes / 4 * sizeof(Shadow), PROT_READ | PROT_WRITE));
  live = static_cast<uint8_t*>(reserve(kArenaBytes / 8, PROT_READ | PROT_WRITE));
  written = static_cast<uint8_t*>(reserve(kArenaBytes / 8, PROT_READ | PROT_WRITE));
  owner = static_cast<uint32_t*>(reserve(kArenaBytes / kGranule * sizeof(uint32_t), PROT_READ | PROT_WRITE));
  watch_faults();
}

Arena& arena() {
  static Arena a;
  return a;
}

const Allocation* Arena::find(const void* p) const {
  if (offset(p) >= kArenaBytes) return nullptr;
  auto after = std::upper_bound(allocations.begin(), allocations.end(), offset(p),
                                [](uint64_t at, const Allocation& x) { return at < x.begin; });
  return after == allocations.begin() ? nullptr : &*std::prev(after);
}

std::string Arena::describe(const void* p) const {
  if (offset(p) >= kArenaBytes) return "an address that is not device memory";
  const Allocation* of = find(p);
  if (!of) return "the start of device memory";
  return "'" + of->name + "' + " + std::to_string(offset(p) - of->begin) + " of " + std::to_string(of->bytes) +
         " bytes" + (of->freed ? ", which was freed" : "");
}

void* allocate(size_t bytes, std::string name) {
  const std::lock_guard lock(guard);
  Arena& a = arena();
  const uint64_t room = (bytes + kGranule - 1) / kGranule * kGranule;
  if (bytes > device_memory_left() || room + kGranule > kArenaBytes - a.next)
    throw Error(code::kOutOfMemory, "device memory for " + name + ": " + std::to_string(bytes) + " bytes asked, " +
                                        std::to_string(device_memory_left()) + " free");
  const uint64_t at = a.next;
  Allocation& made = a.allocations.emplace_back();
  made.begin = at;
  made.bytes = bytes;
  made.name = std::move(name);
  for (uint64_t g = at / kGranule; g < (at + room) / kGranule; g++)
    a.owner[g] = static_cast<uint32_t>(a.allocations.size());
  std::memset(a.host + at, 0xff, bytes);
  set_bits(a.live, at, bytes, true);
  a.next += room + kGranule;
  a.held += bytes;
  return a.device + at;
}

void release(void* device) {
  if (!device) return;
  const std::lock_guard lock(guard);
  Arena& a = arena();
  auto* of = const_cast<Allocation*>(a.find(device));
  if (!of || of->freed || a.offset(device) != of->begin)
    throw Error("FREED_MEMORY", "release of " + a.describe(device) + ", which is not held");
  of->freed = true;
  set_bits(a.live, of->begin, of->bytes, false);
  a.held -= of->bytes;
  constexpr uint64_t kPage = 64 * 1024;  // of any system
  auto give_back = [](void* base, uint64_t from, uint64_t to) {
    from = (from + kPage - 1) / kPage * kPage;
    to = to / kPage * kPage;
    if (from < to) madvise(static_cast<std::byte*>(base) + from, to - from, MADV_DONTNEED);
  };
  give_back(a.host, of->begin, of->begin + of->bytes);
  give_back(a.shadow, of->begin / 4 * sizeof(Shadow), (of->begin + of->bytes) / 4 * sizeof(Shadow));
}

void upload(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  const uint64_t at = checked(device, bytes, "upload");
  std::memcpy(arena().host + at, host, bytes);
  set_bits(arena().written, at, bytes, true);
}

void download(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  const Arena& a = arena();
  const uint64_t at = checked(device, bytes, "download");
  if (!bits_set(a.written, at, bytes)) {
    uint64_t first = at;
    while (bits_set(a.written, first, 1)) first++;
    throw Error("UNWRITTEN", "download: nobody wrote " + a.describe(a.device + first));
  }
  std::memcpy(host, a.host + at, bytes);
}

void fill(void* device, int byte, size_t bytes) {
  if (bytes == 0) return;
  const uint64_t at = checked(device, bytes, "fill");
  std::memset(arena().host + at, byte, bytes);
  set_bits(arena().written, at, bytes, true);
}

size_t allocated_bytes() { return arena().held; }
size_t device_memory_left() { return arena().limit - std::min(arena().limit, arena().held); }
void set_device_memory_limit(size_t bytes) { arena().limit = bytes; }

}  // namespace sdar::cuda_host
