#include "backend/host_step.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <utility>

#include "denoise/choose.h"
#include "denoise/philox.h"
#include "model/forward.h"
#include "util/error.h"

namespace sdar {
namespace {

/// Ops of another, with the time that each takes added up; the one after an interrupt throws.
class TimedOps final : public Ops {
 public:
  TimedOps(Ops& ops, StepSeconds& seconds, const std::atomic<bool>& interrupted)
      : ops_(ops), seconds_(seconds), interrupted_(interrupted) {}

  const StepBuffers& buffers() const override { return ops_.buffers(); }
  void embed(const EmbedArgs& args) override { ops_.embed(args), lap(seconds_.gemm); }
  void norm_linear(const NormLinearArgs& args) override { ops_.norm_linear(args), lap(seconds_.gemm); }
  void attention(const AttentionArgs& args) override { ops_.attention(args), lap(seconds_.attention); }
  void linear_add(const LinearAddArgs& args) override { ops_.linear_add(args), lap(seconds_.gemm); }
  void moe(const MoeArgs& args) override { ops_.moe(args), lap(seconds_.gemm); }
  void lm_head(const LmHeadArgs& args) override { ops_.lm_head(args), lap(seconds_.lm_head); }

  /// Adds the time since the last lap.
  void lap(double& sum) {
    if (interrupted_.load(std::memory_order_relaxed))
      throw Error(code::kDisposed, "the engine was disposed of while the request was running");
    const auto now = std::chrono::steady_clock::now();
    sum += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  Ops& ops_;
  StepSeconds& seconds_;
  const std::atomic<bool>& interrupted_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

void add_bias(const SampledRow& row, float* logits, int64_t first, int64_t n) {
  const auto low = std::lower_bound(row.bias_ids.begin(), row.bias_ids.end(), static_cast<int32_t>(first));
  for (auto id = low; id != row.bias_ids.end() && *id < first + n; ++id)
    logits[*id - first] += row.bias_values[id - row.bias_ids.begin()];
}

void penalise(const SampledRow& row, float* logits, int64_t first, int64_t n) {
  const auto& list = row.penalised;
  auto at = std::partition_point(list.begin(), list.end(), [&](const auto& token) { return token.id < first; });
  for (; at != list.end() && at->id < first + n; ++at) {
    const auto next = at + 1;
    const bool replaced = next != list.end() && next->id == at->id && next->from <= row.offset;
    if (at->from > row.offset || replaced) continue;
    float& logit = logits[at->id - first];
    logit = penalised_logit(logit, row.repetition, at->less);
  }
}

void HostBackend::configure(const ModelShape& shape, const CacheShape& cache, const ModelWeights& weights,
                            const RunOptions& options) {
  configure_ops(shape, cache, options.max_rows);
  weights_ = &weights;
  max_rows_ = options.max_rows;
  const size_t rows = static_cast<size_t>(options.max_rows);
  buffers_ = {.x = allocate(rows * shape.hidden),
              .qkv = allocate(rows * (shape.heads + 2 * shape.kv_heads) * shape.head_dim),
              .attended = allocate(rows * shape.heads * shape.head_dim),
              .mlp = allocate(rows * shape.intermediate)};
}

std::span<const SequenceResult> HostBackend::run(const Step& step) {
  lay_out(step);
  const int32_t rows = step.rows();
  begin_step({segments_, rows, ids_, sampled_, tokens_, step.logits});
  TimedOps ops(*this, seconds_, interrupted_);
  forward(ops, *weights_, rows, !sampled_.empty());
  end_step();
  const SampledToken* sampled = tokens_.data();
  for (size_t i = 0; i < results_.size(); i++) {
    const StepSequence& s = step.sequences()[i];
    results_[i].filled = 0;
    results_[i].finite = true;
    if (!s.denoise) continue;
    unmask(s, sampled, results_[i]);
    sampled += std::popcount(s.masked);
  }
  ops.lap(seconds_.denoise);
  if (weights_->cache && weights_->cache->damaged())
    throw Error(code::kCheckpointTruncated, weights_->cache->path() + " was cut short while its weights were in use");
  return results_;
}

void HostBackend::lay_out(const Step& step) {
  if (step.rows() > max_rows_)
    throw Error(code::kInternal, "a step of " + std::to_string(step.rows()) + " rows was planned; at most " +
                                     std::to_string(max_rows_) + " fit");
  segments_.clear();
  ids_.clear();
  sampled_.clear();
  for (const StepSequence& s : step.sequences()) {
    segments_.push_back(s.segment);
    ids_.insert(ids_.end(), s.ids, s.ids + s.segment.rows);
    if (s.denoise) add_sampled_rows(s);
  }
  tokens_.resize(sampled_.size());
  results_.resize(step.sequences().size());
  place_ranked(step);
}

/// Room for what is told of rows beside their tokens.
void HostBackend::place_ranked(const Step& step) {
  size_t count = 0;
  for (const StepSequence& s : step.sequences()) {
    if (!s.denoise) continue;
    const size_t each = size_t(s.candidates) + !s.limits.empty() + size_t(s.sampling->top_logprobs);
    count += each * size_t(std::popcount(s.masked));
  }
  ranked_.assign(count, {});
  RankedToken* next = ranked_.data();
  const auto take = [&](size_t n) { return std::span(std::exchange(next, next + n), n); };
  SampledRow* row = sampled_.data();
  for (size_t i = 0; i < results_.size(); i++) {
    const StepSequence& s = step.sequences()[i];
    SequenceResult& result = results_[i];
    result.candidates = result.wanted = result.top = {};
    if (!s.denoise) continue;
    const size_t masked = size_t(std::popcount(s.masked)), top = size_t(s.sampling->top_logprobs);
    const auto candidates = take(masked * size_t(s.candidates));
    const auto wanted = take(s.limits.empty() ? 0 : masked), best = take(masked * top);
    for (size_t m = 0; m < masked; m++, row++) {
      row->candidates = candidates.subspan(m * size_t(s.candidates), size_t(s.candidates));
      row->top = best.subspan(m * top, top);
      if (!wanted.empty()) row->wanted_logit = &wanted[m];
    }
    result.candidates = candidates, result.wanted = wanted, result.top = best;
  }
}

void HostBackend::add_sampled_rows(const StepSequence& s) {
  const SamplingParams& p = *s.sampling;
  for (uint64_t left = s.masked; left; left &= left - 1) {
    const int32_t offset = std::countr_zero(left);
    const int32_t position = s.active_position() + offset;
    sampled_.push_back({.row = s.active_row() + offset,
                        .temperature = p.temperature,
                        .top_k = p.top_k,
                        .top_p = p.top_p,
                        .min_p = p.min_p,
                        .uniform = p.temperature > 0 ? philox_uniform(p.seed, position, s.step, p.completion) : 0,
                        .confidence = p.confidence,
                        .suppressed = position < s.free_from ? s.suppressed_early : s.suppressed,
                        .bias_ids = p.bias_ids,
                        .bias_values = p.bias_values,
                        .penalised = s.penalised,
                        .repetition = p.repetition_penalty,
                        .offset = offset});
    if (s.limits.empty()) continue;
    sampled_.back().allowed = s.limits[offset].allowed;
    sampled_.back().wanted = s.limits[offset].wanted;
  }
}

void HostBackend::unmask(const StepSequence& s, const SampledToken* sampled, SequenceResult& result) const {
  float confidence[kMaxBlockLength], entropy[kMaxBlockLength];
  for (uint64_t left = s.masked; left; left &= left - 1) {
    const int32_t offset = std::countr_zero(left);
    const SampledToken& token = *sampled++;
    result.finite &= token.finite;
    result.at[offset] = token;
    confidence[offset] = token.confidence;
    entropy[offset] = token.entropy;
  }
  if (result.finite && s.segment.masks == 0)
    result.filled = choose_positions(s.sampling->denoise, s.window_rows(), s.step, s.masked, confidence, entropy);
}

}  // namespace sdar
