// Steps of backends that compute op by op in the host's memory: forward() over their ops, then denoise/choose.h.
#pragma once
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/ops.h"

namespace sdar {

/// How a row is sampled.
struct SampledRow {
  int32_t row = 0;
  float temperature = 0;  ///< 0: greedy
  int32_t top_k = 0;      ///< 0: all
  float top_p = 1;        ///< 1: all
  float min_p = 0;        ///< 0: all
  double uniform = 0;     ///< in [0, 1), used when temperature > 0
  Confidence confidence = Confidence::model;
  std::span<const int32_t> suppressed{};  ///< ids never chosen; they keep their probability
  std::span<const int32_t> bias_ids{};    ///< ascending; the bias is added to the logits before anything else
  std::span<const float> bias_values{};
  std::span<const PenalisedToken> penalised{};  ///< StepSequence::penalised …
  float repetition = 1;                         ///< … SamplingParams::repetition_penalty …
  int32_t offset = 0;                           ///< … and the offset of the active block that this row decides
  const uint64_t* allowed = nullptr;            ///< RowLimits::allowed
  int32_t wanted = -1;                          ///< RowLimits::wanted
  // Where to tell what else is asked of a row whose logits are finite.
  RankedToken* wanted_logit = nullptr;
  std::span<RankedToken> candidates{};  ///< best ids that may be chosen, at most kMaxCandidates
  std::span<RankedToken> top{};         ///< best ids of all, at most kMaxTopLogprobs
};

/// Of a row's logits first … first + n − 1, in the order that step.h says.
void add_bias(const SampledRow& row, float* logits, int64_t first, int64_t n);
void penalise(const SampledRow& row, float* logits, int64_t first, int64_t n);

/// What the ops of a step work on; stays as it is until the last of them.
struct StepRows {
  std::span<const Segment> segments{};
  int32_t rows = 0;
  std::span<const int32_t> ids{};         ///< [rows], for embed
  std::span<const SampledRow> sampled{};  ///< rows of the lm_head …
  std::span<SampledToken> tokens{};       ///< … and what it makes of each
  float* logits = nullptr;                ///< [sampled, vocabulary] when wanted, with bias and penalties
};

class HostBackend : public Backend, public Ops {
 public:
  void configure(const ModelShape& shape, const CacheShape& cache, const ModelWeights& weights,
                 const RunOptions& options) final;
  std::span<const SequenceResult> run(const Step& step) final;
  void interrupt() override { interrupted_.store(true, std::memory_order_relaxed); }
  const StepSeconds& seconds() const final { return seconds_; }
  const StepBuffers& buffers() const final { return buffers_; }

  /// configure() without weights: enough to call ops.
  virtual void configure_ops(const ModelShape& shape, const CacheShape& cache, int32_t max_rows) = 0;
  /// Before the ops of a step: per-step tables (RoPE, work split) are made here.
  virtual void begin_step(const StepRows& rows) = 0;
  /// After them; not where one threw.
  virtual void end_step() {}
  /// Zeroed, 64-byte aligned, owned by the backend until it is destroyed.
  virtual float* allocate(size_t floats) = 0;

 private:
  void lay_out(const Step& step);
  void add_sampled_rows(const StepSequence& sequence);
  void place_ranked(const Step& step);
  void unmask(const StepSequence& sequence, const SampledToken* sampled, SequenceResult& result) const;

  std::atomic<bool> interrupted_{false};
  const ModelWeights* weights_ = nullptr;
  int32_t max_rows_ = 0;
  StepBuffers buffers_;
  StepSeconds seconds_;
  std::vector<Segment> segments_;
  std::vector<int32_t> ids_;
  std::vector<SampledRow> sampled_;
  std::vector<SampledToken> tokens_;
  std::vector<RankedToken> ranked_;  ///< of a sequence's rows: candidates, wanted, top
  std::vector<SequenceResult> results_;
};

}  // namespace sdar
