// A sequence whose text is given: what the model makes of each of its tokens.
#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/sequence.h"

namespace sdar {

/// Autoregressive, a step scores up to a window of tokens; in a block the leftmost masked position, those before it known.
void Sequence::ask_given() {
  const std::span<const int32_t> left = std::span(request_.given).subspan(static_cast<size_t>(next_ - prompt_));
  limits_.fill({});
  if (context_.autoregressive) {
    const auto rows = left.first(std::min(left.size(), static_cast<size_t>(kMaxBlockLength)));
    for (size_t i = 0; i < rows.size(); i++) limits_[i].wanted = rows[i];
    propose(rows.first(rows.size() - 1));
  } else {
    limits_[static_cast<size_t>(next_ - active_)].wanted = left.front();
  }
}

std::optional<FinishReason> Sequence::apply_given(const StepSequence& planned, const SequenceResult& result) {
  // The first of the window's rows, or of the block's masked ones, is next_.
  const int32_t rows = context_.autoregressive ? planned.window : 1;
  SequenceResult scored = result;
  scored.filled = uint64_t{1} << (next_ - active_);
  for (int32_t i = 0; i < rows; i++) {
    SampledToken& token = scored.at[static_cast<size_t>(next_ - active_ + i)];
    const RankedToken& wanted = result.wanted[static_cast<size_t>(i)];
    token.token = wanted.id;
    token.logprob = wanted.logit - token.logsumexp;
    token.confidence = std::exp(token.logprob);
  }
  if (context_.autoregressive) proposed_ -= rows - 1, accepted_ -= rows - 1;  // nobody proposed them
  return context_.autoregressive ? apply_next(planned, scored) : apply_block(planned, scored);
}

}  // namespace sdar
