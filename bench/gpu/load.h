// An engine under load: a client in the same process that submits requests of random tokens and times what comes back.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"

namespace gpu_bench {

/// What every request of a load asks for. Random weights pass no threshold, so the tokens that a forward fills are
/// forced: low_confidence_static with block / tokens_per_forward steps.
struct RequestShape {
  int32_t prompt = 128;  ///< random tokens
  int32_t answer = 256;  ///< tokens on average; of each request a random multiple of `block` up to twice that
  int32_t block = 4;
  int32_t tokens_per_forward = 1;  ///< divides block
};

/// Percentiles 50, 90 and 99 of some times in milliseconds; 0 of none.
struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0;
  size_t count = 0;
};
Percentiles percentiles(std::vector<double> seconds);

/// What an engine did in a window of time.
struct LoadResult {
  double seconds = 0;
  double tokens_per_second = 0;
  int64_t steps = 0, completed = 0;
  double step_ms = 0;             ///< computing, on average
  double rows = 0;                ///< positions of a step
  double sequences = 0;           ///< of a step
  double tokens_per_forward = 0;  ///< as it was
  double prompt_tokens = 0;       ///< computed per second
  Percentiles first_token;        ///< from submission, of requests whose first tokens came in the window
  Percentiles between;            ///< from one delivery of a request to its next
  Percentiles per_token;  ///< a completed request's time after its first delivery / tokens after it, if it had two
  std::string error;      ///< of the first request that failed; empty: none
};

class LoadClient {
 public:
  LoadClient(std::unique_ptr<sdar::Model> model, const sdar::EngineOptions& options);
  ~LoadClient();

  const sdar::Model& model() const { return engine_->model(); }

  /// Keeps `concurrency` requests going until the first ones have all begun to answer, `settle` seconds at most, and
  /// looks at the `window` seconds after that. The first ones are of random lengths, so that they do not end all at
  /// once.
  LoadResult closed_loop(int32_t concurrency, const RequestShape& shape, double settle, double window);
  /// Requests come at random times, `rate` per second on average; the first `settle` seconds are not looked at.
  LoadResult poisson(double rate, const RequestShape& shape, double settle, double window);

 private:
  using Clock = std::chrono::steady_clock;
  struct Trace {
    Clock::time_point submitted, first, last;
    int32_t tokens = 0, first_tokens = 0;
  };
  /// Times of the window that is open.
  struct Recording {
    bool open = false;
    std::vector<double> first_token, between, per_token;
    int64_t completed = 0;
  };

  void submit(const RequestShape& shape, bool any_length);
  /// Takes events in until `until`, calling ended() after each request's end.
  void pump(Clock::time_point until, const std::function<void()>& ended);
  void take(const sdar::EventBatch& batch, const std::function<void()>& ended);
  void drain();
  LoadResult observe(double window, const std::function<void(Clock::time_point)>& pump_until);

  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  std::unordered_map<uint64_t, Trace> live_;
  Recording recording_;
  std::string error_;
  uint64_t next_id_ = 1;
  std::mt19937_64 random_{1};
  std::unique_ptr<sdar::Engine> engine_;  // last: its thread calls back
};

}  // namespace gpu_bench
