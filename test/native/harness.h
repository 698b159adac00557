// Runs requests on a real engine and collects how each ended.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/cpu.h"
#include "check.h"
#include "engine/engine.h"

namespace harness {

/// The instruction sets to run whole generations in: all of this machine, or with SDAR_TEST_QUICK, which sanitizers and
/// emulation set because they are slow, the best one. The kernels' own tests run in all of them either way.
inline bool quick() { return std::getenv("SDAR_TEST_QUICK") != nullptr; }
inline std::vector<std::string> instruction_sets() {
  auto sets = sdar::cpu::instruction_sets();
  if (quick()) sets.resize(1);
  return sets;
}

/// A checkpoint for tests of what happens around the forward pass, whatever its weights: with SDAR_TEST_QUICK a tiny
/// one.
struct SmallModel {
  const char* path;
  int32_t ids;  ///< random prompts are of ids below
  int32_t mask_id;
};
inline SmallModel small_model() {
  return quick() ? SmallModel{"test/golden/tiny-dense", 310, 319} : SmallModel{"models/sdar-nano", 550, 559};
}

/// As many, or under sanitizers and emulation, which are slow, a few.
inline int full_or(int many, int few) { return quick() ? few : many; }

struct Result {
  std::vector<sdar::TokenRecord> tokens;
  std::vector<sdar::RankedLogprob> top;  ///< [tokens, top_logprobs]
  int ends = 0;                          ///< how often it ended: 1
  int reason = -1;                       ///< FinishReason, -1 when failed
  std::string error;
  std::string message;
  int64_t text_bytes = 0;
  int64_t released_bytes = 0;
  int32_t forwards = 0;
  int32_t prompt_tokens = 0;
  sdar::Computed computed;
  sdar::Speculation speculation;
  int drafts = 0;
  int started = 0;  ///< how often it began: 1, or 0 when it ended before
  int32_t cached_tokens = 0;
  int preempted = 0;
  bool same(const Result& other) const { return forwards == other.forwards && same_tokens(other); }
  bool same_tokens(const Result& other) const {
    if (reason != other.reason || tokens.size() != other.tokens.size()) return false;
    for (size_t i = 0; i < tokens.size(); i++) {
      const auto &a = tokens[i], &b = other.tokens[i];
      if (a.id != b.id || a.position != b.position || a.step != b.step || a.block != b.block ||
          a.confidence != b.confidence || a.logprob != b.logprob)
        return false;
    }
    return std::equal(top.begin(), top.end(), other.top.begin(), other.top.end(),
                      [](const auto& a, const auto& b) { return a.id == b.id && a.logprob == b.logprob; });
  }
};

class Runner {
 public:
  explicit Runner(const sdar::EngineOptions& options) : Runner(options, sdar::load_draft(options, {})) {}
  Runner(const sdar::EngineOptions& options, std::unique_ptr<sdar::Model> draft)
      : Runner(sdar::load_model(options, {}, draft.get()), options, std::move(draft)) {}
  Runner(std::unique_ptr<sdar::Model> model, const sdar::EngineOptions& options,
         std::unique_ptr<sdar::Model> draft = nullptr)
      : engine_(
            std::move(model), options,
            [this] {
              const std::lock_guard held(gate_);
              std::lock_guard lock(mutex_);
              woken_ = true;
              changed_.notify_one();
            },
            std::move(draft)) {}

  sdar::Engine& engine() { return engine_; }

  /// While it is held, the engine stops where it has something to tell: what is submitted meanwhile is there at once for
  /// it, however slow this thread is.
  std::unique_lock<std::mutex> hold() { return std::unique_lock(gate_); }
  /// Requests in the order in which they ended.
  const std::vector<uint64_t>& ended() const { return ended_; }

  /// Submits; ids are given in order of submission, from 0.
  uint64_t submit(sdar::Request request) {
    request.id = next_id_++;
    const uint64_t id = request.id;
    engine_.submit(std::move(request));
    live_++;
    return id;
  }

  /// Waits for events once and takes them in. False when nothing runs.
  bool pump() {
    if (live_ == 0) return false;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return woken_; });
      woken_ = false;
    }
    take();
    return true;
  }

  /// Takes in what has been published so far.
  void take() {
    const sdar::EventBatch batch = engine_.take_events();
    const auto& r = batch.records;
    for (size_t i = 0; i < r.size(); i += 3 + size_t(r[i + 2])) {
      Result& result = results_[uint64_t(r[i + 1])];
      const double* payload = &r[i + 3];
      if (r[i] == sdar::EventBuffer::kTokens) {
        result.released_bytes = int64_t(payload[0]);
        const size_t top = size_t(payload[4]), count = (size_t(r[i + 2]) - 5) / (6 + 2 * top);
        const double *token = payload + 5, *ranked = token + 6 * count;
        for (size_t k = 0; k < count; k++, token += 6)
          result.tokens.push_back({int32_t(token[0]), int32_t(token[1]), int32_t(token[2]), int32_t(token[3]),
                                   float(token[4]), float(token[5])});
        for (size_t k = 0; k < count * top; k++, ranked += 2)
          result.top.push_back({int32_t(ranked[0]), float(ranked[1])});
      } else if (r[i] == sdar::EventBuffer::kFinished) {
        result.ends++;
        ended_.push_back(uint64_t(r[i + 1]));
        result.reason = int(payload[0]);
        result.text_bytes = int64_t(payload[1]);
        result.prompt_tokens = int32_t(payload[2]);
        result.forwards = int32_t(payload[5]);
        result.computed = {int64_t(payload[6]), int64_t(payload[7])};
        if (r[i + 2] > 8) result.speculation = {int32_t(payload[8]), int32_t(payload[9]), int32_t(payload[10])};
        live_--;
      } else if (r[i] == sdar::EventBuffer::kFailed) {
        result.ends++;
        ended_.push_back(uint64_t(r[i + 1]));
        result.error = batch.failures[size_t(payload[0])].code;
        result.message = batch.failures[size_t(payload[0])].message;
        result.computed = {int64_t(payload[1]), int64_t(payload[2])};
        live_--;
      } else if (r[i] == sdar::EventBuffer::kStarted) {
        result.started++;
        result.cached_tokens = int32_t(payload[0]);
      } else if (r[i] == sdar::EventBuffer::kPreempted) {
        result.preempted++;
      } else {
        result.drafts++;
      }
    }
  }

  std::vector<Result> run(const std::vector<sdar::Request>& requests) {
    std::vector<uint64_t> ids;
    for (const auto& request : requests) ids.push_back(submit(request));
    while (pump()) {
    }
    std::vector<Result> out;
    for (uint64_t id : ids) out.push_back(results_[id]);
    return out;
  }

  Result& result(uint64_t id) { return results_[id]; }

 private:
  std::mutex mutex_, gate_;
  std::condition_variable changed_;
  bool woken_ = false;
  std::vector<uint64_t> ended_;
  std::map<uint64_t, Result> results_;
  uint64_t next_id_ = 0;
  int live_ = 0;
  sdar::Engine engine_;
};

/// An engine for small_model().
inline sdar::EngineOptions small_engine(int64_t kv_tokens = 0) {
  sdar::EngineOptions options{.path = small_model().path, .weights = sdar::WeightFormat::int8, .threads = 2};
  options.kv_tokens = kv_tokens;
  return options;
}

/// A random prompt for it.
inline sdar::Request prompt_of(int length, uint32_t seed = 1, int max_tokens = 24) {
  std::mt19937 random(seed);
  sdar::Request r;
  for (int i = 0; i < length; i++) r.tokens.push_back(int32_t(random() % small_model().ids));
  r.block_length = 8;
  r.max_tokens = max_tokens;
  r.ignore_eos = true;
  return r;
}

/// What every request gives when nothing disturbs it.
inline std::vector<Result> undisturbed(const std::vector<sdar::Request>& requests) {
  sdar::EngineOptions options = small_engine();
  options.prefix_cache = false;
  std::vector<sdar::Request> plain = requests;
  for (sdar::Request& r : plain) {
    r.group = 0;
    r.deadline = std::chrono::steady_clock::time_point::max();
  }
  return Runner(options).run(plain);
}

/// Nothing is left behind.
inline void check_pages(const sdar::EngineStats& stats) {
  CHECK(stats.pages_free + stats.pages_cached == stats.pages_total);
  CHECK(stats.running == 0 && stats.waiting == 0 && stats.paused == 0);
}

}  // namespace harness
