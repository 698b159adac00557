// Persistent worker threads. The caller is worker 0; the others spin for a short while after a job, then sleep, so that
// an idle pool uses no CPU. A job allocates nothing. One caller at a time; job functions must not throw.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace sdar::cpu {

/// Physical cores this process may use: affinity, hyper-thread siblings and cgroup CPU quota (v1, v2); at least 1.
int usable_cores();

class Pool {
 public:
  /// Throws Error(OUT_OF_MEMORY) when the system does not give that many threads.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }

  /// body(worker) once on every worker; returns when all have finished.
  template <class Body>
  void run(Body&& body) {
    run_erased([](void* b, int worker) { (*static_cast<std::remove_reference_t<Body>*>(b))(worker); }, &body);
  }

  /// body(index, worker) for every index in [0, count). Worker w owns the w-th part of the range and takes it in
  /// ascending order; who finishes early takes from the others. A count of 1 runs on the caller.
  template <class Body>
  void for_each(int64_t count, Body&& body) {
    if (threads_ == 1 || count <= 1) {
      for (int64_t i = 0; i < count; i++) body(i, 0);
      return;
    }
    split(count);
    run([&](int worker) {
      for (int w = 0; w < threads_; w++) {
        Share& share = shares_[(worker + w) % threads_];
        // Looking first keeps the line shared while many workers pass by a finished share.
        while (share.next.load(std::memory_order_relaxed) < share.end) {
          const int64_t i = share.next.fetch_add(1, std::memory_order_relaxed);
          if (i >= share.end) break;
          body(i, worker);
        }
      }
    });
  }

 private:
  using Function = void (*)(void*, int);
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void run_erased(Function function, void* argument);
  void split(int64_t count);
  void work(int worker);
  void stop();

  const int threads_;
  std::unique_ptr<Share[]> shares_;
  Function function_ = nullptr;
  void* argument_ = nullptr;
  alignas(64) std::atomic<int32_t> generation_{0};  ///< counts jobs; negative: stop
  alignas(64) std::atomic<int32_t> pending_{0};     ///< workers that have not finished the job
  std::vector<std::thread> workers_;
};

}  // namespace sdar::cpu
