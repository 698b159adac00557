#include "backend/cpu/pool.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <system_error>

#include "util/error.h"

#ifdef __linux__
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace sdar::cpu {
namespace {

constexpr auto kSpin = std::chrono::microseconds(80);
constexpr int32_t kStop = -1;
constexpr uint64_t kOpen = 1u << 31, kInside = kOpen - 1;

constexpr uint64_t gate_of(int32_t generation) { return static_cast<uint64_t>(generation) << 32; }

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `value` differs from `old`: spinning first, then asleep.
template <class T>
T wait_for_change(const std::atomic<T>& value, T old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; i++) {
      const T now = value.load(std::memory_order_acquire);
      if (now != old) return now;
      pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  for (;;) {
    const T now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    value.wait(old, std::memory_order_acquire);
  }
}

#ifdef __linux__
/// CPUs of a cgroup limit, infinite when there is none. Limits of all ancestors apply.
double cgroup_quota() {
  double quota = std::numeric_limits<double>::infinity();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controllers;
    // Inside a container the path may name the host's folder; the limit is then at the root.
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      if (path == "/") path.clear();
      double limit = -1, period = 100000;
      if (v2) {
        std::ifstream file(root + path + "/cpu.max");  // "max 100000" does not parse as a number: no limit
        if (!(file >> limit >> period)) limit = -1;
      } else {
        std::ifstream(root + path + "/cpu.cfs_quota_us") >> limit;
        std::ifstream(root + path + "/cpu.cfs_period_us") >> period;
      }
      if (limit > 0 && period > 0) quota = std::min(quota, limit / period);
      if (path.empty() || path.rfind('/') == std::string::npos) break;
    }
  }
  return quota;
}

/// Cores behind the CPUs of the affinity mask: siblings share one list.
int affine_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return static_cast<int>(std::thread::hardware_concurrency());
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &set)) continue;
    std::string siblings;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    if (!std::getline(file, siblings)) siblings = "cpu" + std::to_string(cpu);
    cores.insert(siblings);
  }
  return static_cast<int>(cores.size());
}
#endif

}  // namespace

int usable_cores() {
#ifdef __linux__
  const double quota = cgroup_quota();
  int cores = affine_cores();
  if (quota < cores) cores = static_cast<int>(std::floor(quota));
#elif defined(__APPLE__)
  int cores = 0;
  size_t size = sizeof cores;
  if (sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0) != 0) cores = 0;
#else
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#endif
  return std::max(cores, 1);
}

Pool::Pool(int threads) : threads_(std::max(threads, 1)), shares_(new Share[static_cast<size_t>(threads_)]) {
  try {
    for (int worker = 1; worker < threads_; worker++) workers_.emplace_back([this, worker] { work(worker); });
  } catch (const std::system_error&) {
    const size_t started = workers_.size();
    stop();
    throw Error(code::kOutOfMemory, "threads: the system gave only " + std::to_string(started + 1) + " of the " +
                                        std::to_string(threads_) + " asked for");
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  generation_.store(kStop, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& thread : workers_) thread.join();
  workers_.clear();
}

void Pool::open_erased(Function function, void* argument) {
  function_ = function;
  argument_ = argument;
  const int32_t before = generation_.load(std::memory_order_relaxed);
  const int32_t generation = before == std::numeric_limits<int32_t>::max() ? 0 : before + 1;
  gate_.store(gate_of(generation) | kOpen, std::memory_order_release);
  generation_.store(generation, std::memory_order_release);
  generation_.notify_all();
}

/// No worker may enter any more; waits for those inside.
void Pool::close() {
  uint64_t gate = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  while ((gate & kInside) != 0) gate = wait_for_change(gate_, gate);
}

bool Pool::enter(int32_t generation) {
  uint64_t gate = gate_.load(std::memory_order_relaxed);
  while (gate >> 32 == gate_of(generation) >> 32 && (gate & kOpen) != 0)
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
  return false;
}

void Pool::leave() {
  const uint64_t gate = gate_.fetch_sub(1, std::memory_order_release) - 1;
  if ((gate & (kInside | kOpen)) == 0) gate_.notify_one();
}

void Pool::split(int64_t count) {
  for (int w = 0; w < threads_; w++) {
    shares_[w].next.store(count * w / threads_, std::memory_order_relaxed);
    shares_[w].end = count * (w + 1) / threads_;
  }
}

void Pool::work(int worker) {
  for (int32_t seen = 0;;) {
    seen = wait_for_change(generation_, seen);
    if (seen == kStop) return;
    if (!enter(seen)) continue;
    function_(argument_, worker);
    leave();
  }
}

}  // namespace sdar::cpu
