// A sequence that judges the draft of its active block itself.
#include <algorithm>
#include <bit>

#include "engine/sequence.h"

namespace sdar {

/// The draft's tokens up to the last masked position, then a mask for each position from the first masked one to it.
void Sequence::begin_verification(const SequenceResult& draft) {
  const int32_t first = std::countr_zero(masked_), last = 63 - std::countl_zero(masked_);
  verification_.assign(tokens_.begin() + active_, tokens_.begin() + active_ + last);
  for (int32_t i = first; i < last; i++)
    if (masked_ >> i & 1) verification_[i] = draft.at[i].token;
  if (penalties_) penalties_->propose(std::span(verification_).subspan(static_cast<size_t>(first)), masked_ >> first);
  verification_.resize(2 * last + 1 - first, context_.mask_id);
  if (!form_) return;
  std::array<RowLimits, kMaxBlockLength> limits;  // from the next position on; rows are from the first masked one on
  form_->ask(unreleased(), limits, true);
  std::copy(limits.begin() + first - (next_ - active_), limits.end(), limits_.begin());
}

/// What is known must be in the cache: a preemption may have come between a draft and this.
void Sequence::plan_verification(StepSequence& s) const {
  s.denoise = committed_ == active_;
  if (!s.denoise) {
    s.segment.rows = std::min(s.segment.rows, active_ - committed_);
    return;
  }
  s.segment.rows = static_cast<int32_t>(verification_.size());
  s.window = s.segment.masks = 64 - std::countl_zero(masked_) - std::countr_zero(masked_);
  s.ids = verification_.data();
  s.masked = masked_ >> std::countr_zero(masked_);
}

/// From the left: the drafted tokens that a verification decides as well, and the first that it does not. Both forwards
/// sample with the random number of (seed, completion, position, step), so that each token has the distribution of
/// blocks of one position, whatever was drafted.
uint64_t Sequence::verified(const StepSequence& planned, const SequenceResult& result) const {
  const int32_t first = planned.active_position() - active_, tokens = planned.segment.tokens();
  uint64_t accepted = 0;
  for (uint64_t left = masked_; left; left &= left - 1) {
    const int32_t i = std::countr_zero(left);
    accepted |= left & (~left + 1);
    if (i < tokens && result.at[i - first].token != verification_[i]) break;
  }
  return accepted;
}

}  // namespace sdar
