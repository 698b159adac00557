#include "engine/runner.h"

#include <bit>
#include <chrono>

#include "denoise/choose.h"
#include "denoise/philox.h"
#include "util/error.h"

namespace sdar {

StepRunner::Ticket Runner::submit(StepPlan& plan) {
  plan_ = &plan;
  segments_.clear();
  ids_.clear();
  requests_.clear();
  for (StepSequence& s : plan.sequences) {
    s.segment.row = static_cast<int32_t>(ids_.size());
    segments_.push_back(s.segment);
    ids_.insert(ids_.end(), s.ids, s.ids + s.segment.rows);
    if (s.denoise) add_head_requests(s);
  }
  if (static_cast<int32_t>(ids_.size()) > forward_.max_rows())
    throw Error(code::kInternal, "a step of " + std::to_string(ids_.size()) + " rows was planned; at most " +
                                     std::to_string(forward_.max_rows()) + " fit");
  return ++ticket_;
}

void Runner::add_head_requests(const StepSequence& s) {
  const Decoding& r = *s.decoding;
  for (uint64_t left = s.masked; left; left &= left - 1) {
    const int32_t offset = std::countr_zero(left);
    const int32_t position = s.active_position() + offset;
    requests_.push_back({.row = s.active_row() + offset,
                         .temperature = r.temperature,
                         .top_k = r.top_k,
                         .top_p = r.top_p,
                         .uniform = r.temperature > 0 ? philox_uniform(r.seed, position, s.step, r.answer) : 0,
                         .confidence = r.confidence,
                         .suppressed = position < s.free_from ? s.suppressed_early : s.suppressed,
                         .bias_ids = r.bias_ids,
                         .bias_values = r.bias_values});
  }
}

std::span<const StepOutcome> Runner::poll(Ticket ticket) {
  if (ticket != ticket_ || !plan_) throw Error(code::kInternal, "a step was polled that is not in flight");
  results_.resize(requests_.size());
  outcomes_.resize(plan_->sequences.size());
  forward_.run(segments_, ids_, requests_, results_);
  const auto start = std::chrono::steady_clock::now();
  const SampledToken* next = results_.data();
  for (size_t i = 0; i < outcomes_.size(); i++) {
    const StepSequence& s = plan_->sequences[i];
    outcomes_[i].filled = 0;
    outcomes_[i].finite = true;
    if (!s.denoise) continue;
    choose(s, next, outcomes_[i]);
    next += std::popcount(s.masked);
  }
  forward_.seconds().choose += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  plan_ = nullptr;
  return outcomes_;
}

void Runner::choose(const StepSequence& s, const SampledToken* results, StepOutcome& outcome) const {
  float confidence[kMaxBlockLength], entropy[kMaxBlockLength];
  for (uint64_t left = s.masked; left; left &= left - 1) {
    const int32_t offset = std::countr_zero(left);
    const SampledToken& r = *results++;
    outcome.finite &= r.finite;
    outcome.at[offset] = r;
    confidence[offset] = r.confidence;
    entropy[offset] = r.entropy;
  }
  if (outcome.finite)
    outcome.filled =
        choose_positions(s.decoding->denoise, s.segment.block_length, s.step, s.masked, confidence, entropy);
}

}  // namespace sdar
