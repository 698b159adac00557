// A sequence whose text has a given form.
#include <algorithm>
#include <bit>

#include "denoise/choose.h"
#include "engine/sequence.h"

namespace sdar {

/// Nothing can be released yet: one position at least is left to the first step.
void Sequence::begin_form() {
  form_ = std::make_unique<FormFilling>(request_.form, context_.end_id, limit_ - prompt_);
  if (context_.autoregressive) return propose({});
  std::vector<int32_t> tokens = unreleased();
  tokens.pop_back();
  fill_forced(form_->forced(tokens));
  ask_form();
}

/// Tokens of the active block that are not released, up to where the generation ends; -1 where masked.
std::vector<int32_t> Sequence::unreleased() const {
  std::vector<int32_t> tokens;
  for (int32_t p = next_; p < std::min(active_ + request_.block_length, limit_); p++)
    tokens.push_back(masked_ >> (p - active_) & 1 ? -1 : tokens_[p]);
  return tokens;
}

/// Of a block; autoregressive, propose() asks.
void Sequence::ask_form() {
  const std::vector<int32_t> tokens = unreleased();
  limits_.fill({});
  form_->ask(tokens, std::span(limits_).subspan(static_cast<size_t>(next_ - active_), tokens.size()));
}

void Sequence::fill_forced(std::span<const int32_t> tokens) {
  for (int32_t offset = next_ - active_; const int32_t token : tokens) {
    fill(offset, {.token = token, .confidence = 1, .logprob = 0});
    masked_ &= ~(uint64_t{1} << offset++);
  }
}

/// Writes what the form alone decides; false when that is nothing.
bool Sequence::write_forced() {
  std::vector<int32_t> tokens;
  if (context_.autoregressive) {
    tokens = form_->forced(std::vector<int32_t>(static_cast<size_t>(std::min(limit_ - active_, kMaxBlockLength)), -1));
    tokens_.resize(active_ + static_cast<int32_t>(tokens.size()));
    clear_filled(tokens.size());
  } else {
    tokens = form_->forced(unreleased());
  }
  fill_forced(tokens);
  return !tokens.empty();
}

std::optional<FinishReason> Sequence::apply_form(const StepSequence& planned, const SequenceResult& result) {
  SequenceResult formed = result;
  if (context_.autoregressive) {
    form_->decide(proposed().first(static_cast<size_t>(planned.window) - 1), request_, formed);
    return apply_next(planned, formed);
  }
  if (planned.segment.masks > 0) {
    const int32_t first = std::countr_zero(masked_), lead = first - (next_ - active_);
    formed.filled = form_->verify(static_cast<size_t>(lead), planned.masked, request_, formed) << first;
    return apply_block(planned, formed);
  }
  const uint64_t open = form_->choose(unreleased(), next_ - active_, masked_, request_, formed);
  if (open == 0) {
    // The text ends in what the form alone decided: nothing is left to fill, nor a draft to verify.
    adopt(active_);
    decided_ = 0;
    step_++;
    return go_on();
  }
  float confidence[kMaxBlockLength], entropy[kMaxBlockLength];
  for (size_t i = 0; i < kMaxBlockLength; i++)
    confidence[i] = formed.at[i].confidence, entropy[i] = formed.at[i].entropy;
  formed.filled = choose_positions(request_.denoise, request_.block_length, step_, open, confidence, entropy);
  return apply_block(planned, formed);
}

}  // namespace sdar
