#include "load.h"

#include <algorithm>
#include <cmath>

#include "util/error.h"

namespace gpu_bench {

using namespace sdar;
using Seconds = std::chrono::duration<double>;

namespace {

constexpr double kDrainSeconds = 30;
constexpr double kLook = 0.02;

std::chrono::steady_clock::time_point after(std::chrono::steady_clock::time_point t, double seconds) {
  return t + std::chrono::duration_cast<std::chrono::steady_clock::duration>(Seconds(seconds));
}

}  // namespace

Percentiles percentiles(std::vector<double> seconds) {
  Percentiles p;
  p.count = seconds.size();
  if (seconds.empty()) return p;
  std::sort(seconds.begin(), seconds.end());
  // Nearest rank.
  const auto at = [&](double share) {
    const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(seconds.size())));
    return 1e3 * seconds[std::min(seconds.size(), std::max<size_t>(rank, 1)) - 1];
  };
  p.p50 = at(0.5), p.p90 = at(0.9), p.p99 = at(0.99);
  return p;
}

LoadClient::LoadClient(std::unique_ptr<Model> model, const EngineOptions& options)
    : engine_(std::make_unique<Engine>(std::move(model), options, [this] {
        std::lock_guard lock(mutex_);
        woken_ = true;
        changed_.notify_one();
      })) {}

LoadClient::~LoadClient() { engine_->close(); }

void LoadClient::submit(const RequestShape& shape, bool any_length) {
  Request r;
  r.id = next_id_++;
  const auto vocabulary = static_cast<uint64_t>(model().config.shape.vocabulary);
  for (int32_t i = 0; i < shape.prompt; i++) r.tokens.push_back(static_cast<int32_t>(random_() % vocabulary));
  // Uniform in 1 … 2 · mean blocks; what is left of a running one is shorter.
  const auto blocks = static_cast<uint64_t>(std::max(1, 2 * shape.answer / shape.block));
  uint64_t length = 1 + random_() % blocks;
  if (any_length) length = 1 + random_() % length;
  r.max_tokens = static_cast<int32_t>(length) * shape.block;
  r.block_length = shape.block;
  r.denoise.strategy = Strategy::low_confidence_static;
  r.denoise.steps = shape.block / shape.tokens_per_forward;
  r.ignore_eos = true;
  live_[r.id].submitted = Clock::now();
  engine_->submit(std::move(r));
}

void LoadClient::take(const EventBatch& batch, const std::function<void()>& ended) {
  const auto now = Clock::now();
  const std::vector<double>& r = batch.records;
  for (size_t i = 0; i < r.size(); i += 3 + static_cast<size_t>(r[i + 2])) {
    const double kind = r[i];
    const auto id = static_cast<uint64_t>(r[i + 1]);
    const auto found = live_.find(id);
    if (found == live_.end()) continue;
    Trace& trace = found->second;
    if (kind == EventBuffer::kTokens) {
      const auto tokens = static_cast<int32_t>((r[i + 2] - 4) / 6);
      if (tokens == 0) continue;
      if (trace.tokens == 0) {
        trace.first = now, trace.first_tokens = tokens;
        if (recording_.open) recording_.first_token.push_back(Seconds(now - trace.submitted).count());
      } else if (recording_.open && trace.last != now) {  // steps that were told together are one delivery
        recording_.between.push_back(Seconds(now - trace.last).count());
      }
      trace.tokens += tokens;
      trace.last = now;
    } else if (kind == EventBuffer::kFinished || kind == EventBuffer::kFailed) {
      if (kind == EventBuffer::kFailed && error_.empty()) {
        const Failure& failure = batch.failures[static_cast<size_t>(r[i + 3])];
        error_ = failure.code + ": " + failure.message;
      }
      if (recording_.open && kind == EventBuffer::kFinished) {
        recording_.completed++;
        const int32_t more = trace.tokens - trace.first_tokens;
        if (more > 0 && trace.last > trace.first)
          recording_.per_token.push_back(Seconds(trace.last - trace.first).count() / more);
      }
      live_.erase(found);
      if (error_.empty()) ended();
    }
  }
}

void LoadClient::pump(Clock::time_point until, const std::function<void()>& ended) {
  while (Clock::now() < until) {
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait_until(lock, until, [this] { return woken_; })) return;
      woken_ = false;
    }
    take(engine_->take_events(), ended);
    if (!error_.empty()) return;
  }
}

void LoadClient::drain() {
  recording_.open = false;
  for (const auto& [id, trace] : live_) engine_->abort(id);
  const auto until = after(Clock::now(), kDrainSeconds);
  while (!live_.empty() && Clock::now() < until) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, until, [this] { return woken_; });
      woken_ = false;
    }
    take(engine_->take_events(), [] {});
  }
  if (!live_.empty()) throw Error(code::kInternal, "the engine did not end aborted requests");
}

LoadResult LoadClient::observe(double window, const std::function<void(Clock::time_point)>& pump_until) {
  recording_ = {.open = true, .first_token = {}, .between = {}, .per_token = {}, .completed = 0};
  const EngineStats before = engine_->stats();
  const auto began = Clock::now();
  pump_until(after(began, window));
  const EngineStats now = engine_->stats();
  LoadResult result;
  result.seconds = Seconds(Clock::now() - began).count();
  const double steps = static_cast<double>(std::max<int64_t>(1, now.steps - before.steps));
  const auto filled = static_cast<double>(now.filled_tokens - before.filled_tokens);
  result.tokens_per_second = filled / result.seconds;
  result.steps = now.steps - before.steps;
  result.completed = recording_.completed;
  result.step_ms = 1e3 * (now.step_seconds - before.step_seconds) / steps;
  result.rows = static_cast<double>(now.rows - before.rows) / steps;
  result.sequences = static_cast<double>(now.sequences - before.sequences) / steps;
  result.tokens_per_forward = filled / static_cast<double>(std::max<int64_t>(1, now.forwards - before.forwards));
  result.prompt_tokens = static_cast<double>(now.prefill_tokens - before.prefill_tokens) / result.seconds;
  result.first_token = percentiles(recording_.first_token);
  result.between = percentiles(recording_.between);
  result.per_token = percentiles(recording_.per_token);
  drain();
  result.error = error_;
  return result;
}

LoadResult LoadClient::closed_loop(int32_t concurrency, const RequestShape& shape, double settle, double window) {
  error_.clear();
  for (int32_t i = 0; i < concurrency; i++) submit(shape, true);
  const uint64_t first_later = next_id_;
  const auto pump_until = [&](Clock::time_point until) { pump(until, [&] { submit(shape, false); }); };
  const auto begun = [&] {
    return std::all_of(live_.begin(), live_.end(),
                       [&](const auto& one) { return one.first >= first_later || one.second.tokens > 0; });
  };
  const auto limit = after(Clock::now(), settle);
  while (!begun() && Clock::now() < limit && error_.empty()) pump_until(after(Clock::now(), kLook));
  return observe(window, pump_until);
}

LoadResult LoadClient::poisson(double rate, const RequestShape& shape, double settle, double window) {
  error_.clear();
  std::exponential_distribution<double> gap(rate);
  auto next = after(Clock::now(), gap(random_));
  const auto pump_until = [&](Clock::time_point until) {
    while (next < until && error_.empty()) {
      pump(next, [] {});
      if (!error_.empty()) return;
      submit(shape, false);
      next = after(next, gap(random_));
    }
    pump(until, [] {});
  };
  pump_until(after(Clock::now(), settle));
  return observe(window, pump_until);
}

}  // namespace gpu_bench
