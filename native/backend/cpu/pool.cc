#include "backend/cpu/pool.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>

#include "util/error.h"

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

}  // namespace

Pool::Pool(int threads) : size_(std::max(threads, 1)), shares_(new Share[static_cast<size_t>(size_)]) {
  try {
    for (int worker = 1; worker < size_; worker++) workers_.emplace_back([this, worker] { work(worker); });
  } catch (const std::system_error&) {
    const size_t started = workers_.size();
    stop();
    throw Error(code::kOutOfMemory, "threads: the system gave only " + std::to_string(started + 1) + " of the " +
                                        std::to_string(size_) + " asked for");
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  generation_.store(kStop, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& thread : workers_) thread.join();
  workers_.clear();
}

void Pool::check_interrupted() const {
  if (interrupted()) throw Error(code::kDisposed, "the engine was disposed of while the request was running");
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
    if (worker < threads_) function_(argument_, worker);  // threads_ stays while anyone is inside
    leave();
  }
}

}  // namespace sdar::cpu
