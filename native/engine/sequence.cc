#include "engine/sequence.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "cache/page_pool.h"

namespace sdar {

std::string_view TokenBytes::of(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) + 1 >= offsets.size()) return {};
  return {bytes.data() + offsets[id], offsets[id + 1] - offsets[id]};
}

namespace {
int32_t floor_to(int32_t value, int32_t step) { return value / step * step; }
bool contains(const std::vector<int32_t>& ascending, int32_t id) {
  return std::binary_search(ascending.begin(), ascending.end(), id);
}
void sort_unique(std::vector<int32_t>& ids, size_t from = 0) {
  const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(from);
  std::sort(begin, ids.end());
  ids.erase(std::unique(begin, ids.end()), ids.end());
}
}  // namespace

Sequence::Sequence(Request request, const SequenceContext& context)
    : request_(std::move(request)),
      context_(context),
      prompt_(static_cast<int32_t>(request_.tokens.size())),
      limit_(static_cast<int32_t>(
          std::min<int64_t>(int64_t(prompt_) + request_.max_tokens, floor_to(context.context, request_.block_length)))),
      suppressed_(context.mask_id < 0 ? 0 : 1, context.mask_id),
      tokens_(request_.tokens),
      next_(prompt_),
      stop_(request_.stop) {
  sort_unique(request_.stop_tokens);
  suppressed_.insert(suppressed_.end(), request_.suppress.begin(), request_.suppress.end());
  sort_unique(suppressed_);
  if (TokenPenalties::wanted(request_)) penalties_.emplace(request_, request_.tokens);
  suppressed_early_ = suppressed_;
  suppressed_early_.insert(suppressed_early_.end(), request_.stop_tokens.begin(), request_.stop_tokens.end());
  if (!request_.ignore_eos)
    suppressed_early_.insert(suppressed_early_.end(), context.end_ids.begin(), context.end_ids.end());
  sort_unique(suppressed_early_, suppressed_.size());
  const auto literal = std::find(tokens_.begin(), tokens_.end(), context.mask_id);
  shareable_ =
      literal == tokens_.end() ? std::numeric_limits<int32_t>::max() : static_cast<int32_t>(literal - tokens_.begin());
  open_block(floor_to(prompt_, request_.block_length));
  if (request_.form) begin_form();
  if (!request_.given.empty()) ask_given();
}

void Sequence::adopt(int32_t positions) {
  committed_ = positions;
  computed_ = std::max(computed_, positions);
}

int32_t Sequence::pages_needed() const {
  const int32_t beyond = std::max(rows_beyond(), request_.block_length);
  return pages_for(active_ + beyond, request_.block_length);
}

void Sequence::open_block(int32_t position) {
  const int32_t block = request_.block_length;
  active_ = position;
  step_ = 0;
  masked_ = 0;
  if (context_.autoregressive) return propose({});
  for (int32_t i = 0; i < block; i++)
    if (position + i >= prompt_) masked_ |= uint64_t{1} << i;
  tokens_.resize(position + block, context_.mask_id);
  clear_filled(block);
}

void Sequence::propose(std::span<const int32_t> tokens) {
  tokens_.resize(active_);
  if (form_) tokens = tokens.first(static_cast<size_t>(form_->ask_next(tokens, limits_)));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  if (penalties_) penalties_->propose(proposed());
  masked_ = (uint64_t{2} << tokens.size()) - 1;
}

StepSequence Sequence::plan(int32_t max_rows) const {
  const int32_t block = request_.block_length;
  const int32_t known = active_ - committed_;
  int32_t beyond = rows_beyond();
  // Proposed tokens for which there is no room are forgotten: whoever has all known positions can decide.
  if (context_.autoregressive && known <= max_rows) beyond = std::min(beyond, max_rows - known);
  StepSequence s;
  s.denoise = known + beyond <= max_rows;
  if (context_.autoregressive) s.window = beyond + 1, s.ahead = 1;
  s.segment = {.row = 0,
               .rows = s.denoise ? known + beyond : std::min(known, floor_to(max_rows, block)),
               .position = committed_,
               .block_length = block,
               .pages = pages_.data()};
  s.ids = tokens_.data() + committed_;
  s.step = step_;
  s.masked = s.window > 0 ? (uint64_t{2} << beyond) - 1 : masked_;
  if (!verification_.empty()) plan_verification(s);
  s.sampling = &request_;
  s.suppressed = suppressed_;
  s.suppressed_early = suppressed_early_;
  s.free_from = prompt_ + request_.min_tokens;
  if (!request_.given.empty()) s.limits = std::span(limits_).first(static_cast<size_t>(s.window_rows()));
  if (penalties_) s.penalised = penalties_->tokens();
  if (form_) {
    s.limits = std::span(limits_).first(static_cast<size_t>(s.window_rows()));
    s.candidates = context_.autoregressive ? kNextCandidates : kBlockCandidates;
  }
  return s;
}

std::optional<FinishReason> Sequence::apply(const StepSequence& planned, const SequenceResult& result) {
  if (!planned.denoise) {
    adopt(committed_ + planned.segment.rows);
    return std::nullopt;
  }
  forwards_++;
  if (form_) return apply_form(planned, result);
  if (!request_.given.empty()) return apply_given(planned, result);
  return context_.autoregressive ? apply_next(planned, result) : apply_block(planned, result);
}

std::optional<FinishReason> Sequence::apply_block(const StepSequence& planned, const SequenceResult& result) {
  adopt(active_);
  const bool verifies = planned.segment.masks > 0;
  const uint64_t filled = verifies && !form_ ? verified(planned, result) : result.filled;
  decided_ = std::popcount(filled);
  if (filled == 0 && request_.denoise.strategy == Strategy::self_verified) {
    begin_verification(result);
    return std::nullopt;
  }
  const int32_t first = planned.active_position() - active_;
  const size_t top = static_cast<size_t>(request_.top_logprobs);
  for (uint64_t left = filled; left; left &= left - 1) {
    const int32_t i = std::countr_zero(left);
    const auto rank = static_cast<size_t>(std::popcount(masked_ & ((uint64_t{1} << i) - 1)));
    fill(i, result.at[i - first], result.top.subspan(rank * top, top));
  }
  verification_.clear();
  masked_ &= ~filled;
  step_++;
  return go_on();
}

/// Releases what is known, and opens the next block when this one is full.
std::optional<FinishReason> Sequence::go_on() {
  for (;;) {
    if (const auto reason = release()) return reason;
    if (masked_ == 0) open_block(active_ + static_cast<int32_t>(filled_.size()));
    if (!form_ || !write_forced()) break;
  }
  if (form_ && !context_.autoregressive) ask_form();
  if (!request_.given.empty()) ask_given();
  return std::nullopt;
}

void Sequence::clear_filled(size_t positions) {
  filled_.assign(positions, {});
  top_filled_.assign(positions * static_cast<size_t>(request_.top_logprobs), {});
}

void Sequence::fill(int32_t offset, const SampledToken& token, std::span<const RankedToken> top) {
  for (size_t i = 0; i < top.size() && top[i].id >= 0; i++) {
    const auto logprob = static_cast<float>(static_cast<double>(top[i].logit) - token.logsumexp);
    top_filled_[static_cast<size_t>(offset) * top.size() + i] = {
        .id = top[i].id, .logprob = top[i].id == token.token ? token.logprob : logprob};
  }
  if (penalties_) penalties_->add(token.token);
  tokens_[active_ + offset] = token.token;
  filled_[offset] = {.id = token.token,
                     .position = active_ + offset,
                     .block = (active_ + offset) / request_.block_length,
                     .step = step_,
                     .confidence = token.confidence,
                     .logprob = token.logprob};
}

/// Rows after a proposed token that is not what the model decides mean nothing.
std::optional<FinishReason> Sequence::apply_next(const StepSequence& planned, const SequenceResult& result) {
  int32_t agreed = 0;
  while (agreed + 1 < planned.window && result.at[agreed].token == tokens_[active_ + agreed]) agreed++;
  tokens_.resize(active_ + agreed + 1);
  clear_filled(static_cast<size_t>(agreed) + 1);
  const size_t top = static_cast<size_t>(request_.top_logprobs);
  for (int32_t i = 0; i <= agreed; i++) fill(i, result.at[i], result.top.subspan(static_cast<size_t>(i) * top, top));
  masked_ = 0;
  adopt(active_ + agreed);
  proposed_ += planned.window - 1, accepted_ += agreed;
  decided_ = agreed + 1;
  return go_on();
}

std::optional<FinishReason> Sequence::release() {
  const int32_t end = active_ + static_cast<int32_t>(filled_.size());
  for (; next_ < end && !(masked_ >> (next_ - active_) & 1); next_++) {
    const TokenRecord& token = filled_[next_ - active_];
    records_.push_back(token);
    const auto top = top_filled_.begin() + (next_ - active_) * request_.top_logprobs;
    top_records_.insert(top_records_.end(), top, top + request_.top_logprobs);
    if (form_) form_->accept(token.id);
    std::optional<FinishReason> reason;
    const int64_t before = stop_.size();
    text_end_ = before;
    if (contains(request_.stop_tokens, token.id)) {
      reason = FinishReason::stop;
    } else if (!request_.ignore_eos && contains(context_.end_ids, token.id)) {
      reason = FinishReason::end;
    } else {
      const bool armed = token.position + 1 >= prompt_ + request_.min_tokens;
      const bool matched = stop_.append(context_.token_bytes.of(token.id), armed);
      text_end_ = matched ? stop_.matched_at() : stop_.size();
      if (matched) {
        reason = FinishReason::stop;
      } else if (token.position + 1 == limit_) {
        reason = FinishReason::length;
      }
    }
    if (reason) {
      finished_ = true;
      next_++;
      return reason;
    }
  }
  return std::nullopt;
}

std::span<const TokenRecord> Sequence::take_released() {
  const std::span<const TokenRecord> fresh = std::span(records_).subspan(taken_);
  top_taken_ = taken_ * static_cast<size_t>(request_.top_logprobs);
  taken_ = records_.size();
  return fresh;
}

Sequence::CacheRows Sequence::cache_rows(const StepSequence& planned) const {
  const int32_t begin = planned.segment.position;
  const int32_t end = planned.denoise ? active_ : begin + planned.segment.rows;
  const int32_t fresh = std::clamp(computed_, begin, end);
  return {.prompt = std::max(std::min(floor_to(prompt_, request_.block_length), end) - fresh, 0),
          .recomputed = fresh - begin};
}

Sequence::Draft Sequence::draft(const StepSequence& planned) const {
  // A block that became full has been left for the next one: show it as it was when it closed.
  const int32_t block = request_.block_length;
  const int32_t position = planned.block_position();
  Draft d{.block = position / block, .step = planned.step, .position = position, .ids = {}, .steps = {}};
  const bool closed = position != active_;
  for (int32_t i = 0; i < block; i++) {
    const bool fixed = position + i < prompt_;
    const bool masked = !closed && (masked_ >> i & 1);
    d.ids.push_back(masked ? -1 : tokens_[position + i]);
    // Steps of a closed block are in its released records.
    const TokenRecord* record = fixed || masked ? nullptr : closed ? &records_[position + i - prompt_] : &filled_[i];
    d.steps.push_back(record ? record->step : -1);
  }
  return d;
}

}  // namespace sdar
