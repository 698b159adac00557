// Persistent worker threads. The caller is worker 0; the others spin for a short while after a job, then sleep, so that
// an idle pool uses no CPU. A job allocates nothing. One caller at a time; job functions must not throw.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace sdar::cpu {

class Pool {
 public:
  /// Throws Error(OUT_OF_MEMORY) when the system does not give that many threads.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// All threads.
  int size() const { return size_; }
  /// Those that work, of which there are at most size().
  int threads() const { return threads_; }
  /// From the next job on; not during one.
  void use(int threads) { threads_ = std::clamp(threads, 1, size_); }

  /// body(worker) once on each of threads(); returns when all have finished.
  template <class Body>
  void run(Body&& body) {
    std::atomic<int32_t> left{threads_};
    const auto counted = [&](int worker) {
      body(worker);
      left.fetch_sub(1, std::memory_order_release);
    };
    open(counted);
    counted(0);
    while (left.load(std::memory_order_acquire) != 0) std::this_thread::yield();
    close();
  }

  /// body(worker) on the caller and on every worker that comes before the caller has finished: whatever is to be done
  /// must be taken from a queue. On a busy machine nobody waits for a thread that the system does not let run.
  template <class Body>
  void offer(Body&& body) {
    if (threads_ == 1) return body(0);
    open(body);
    body(0);
    close();
  }

  /// body(index, worker) for every index in [0, count). Worker w owns the w-th part of the range and takes it in
  /// ascending order; work stealing evens out the rest. A count of 1 runs on the caller. Throws Error(DISPOSED) after
  /// interrupt(), with indices left out.
  template <class Body>
  void for_each(int64_t count, Body&& body) {
    if (threads_ == 1 || count <= 1) {
      for (int64_t i = 0; i < count && !interrupted(); i++) body(i, 0);
      return check_interrupted();
    }
    split(count);
    offer([&](int worker) {
      for (int w = 0; w < threads_; w++) {
        Share& share = shares_[(worker + w) % threads_];
        // Looking first keeps the line shared while many workers pass by a finished share.
        while (share.next.load(std::memory_order_relaxed) < share.end) {
          const int64_t i = share.next.fetch_add(1, std::memory_order_relaxed);
          if (i >= share.end || interrupted()) break;
          body(i, worker);
        }
      }
    });
    check_interrupted();
  }

  /// From any thread, once nothing more is wanted: for_each() leaves out what it has not begun.
  void interrupt() { interrupted_.store(true, std::memory_order_relaxed); }

 private:
  using Function = void (*)(void*, int);
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  template <class Body>
  void open(Body& body) {
    open_erased([](void* b, int worker) { (*static_cast<Body*>(b))(worker); },
                const_cast<void*>(static_cast<const void*>(&body)));
  }
  bool interrupted() const { return interrupted_.load(std::memory_order_relaxed); }
  void check_interrupted() const;
  void open_erased(Function function, void* argument);
  void close();
  bool enter(int32_t generation);
  void leave();
  void split(int64_t count);
  void work(int worker);
  void stop();

  const int size_;
  int threads_ = size_;
  std::atomic<bool> interrupted_{false};
  std::unique_ptr<Share[]> shares_;
  Function function_ = nullptr;
  void* argument_ = nullptr;
  alignas(64) std::atomic<int32_t> generation_{0};  ///< counts jobs; negative: stop
  /// The job's generation, whether it may be entered, how many workers are in it.
  alignas(64) std::atomic<uint64_t> gate_{0};
  std::vector<std::thread> workers_;
};

}  // namespace sdar::cpu
