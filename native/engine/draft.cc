#include "engine/draft.h"

#include <algorithm>
#include <bit>

#include "cache/page_pool.h"

namespace sdar {
namespace {

/// In all but the last of several forwards, positions of more confidence are decided, at least one.
constexpr float kSure = 0.9f;

int32_t floor_to(int32_t value, int32_t step) { return value / step * step; }

}  // namespace

Draft::Draft(const DraftContext& context, const SequenceContext& target, const Request& request)
    : context_(context),
      sampling_(request),
      suppressed_(request.suppress),
      free_from_(static_cast<int32_t>(request.tokens.size()) + request.min_tokens),
      policy_(context.cost) {
  // Every position that is sampled is looked at here; with the target's random numbers, so that where both are of one
  // mind they also draw the same token.
  sampling_.denoise = {.strategy = Strategy::sequential, .steps = 1};
  sampling_.confidence = Confidence::model;
  sampling_.top_logprobs = 0;
  suppressed_.push_back(context.mask_id);
  std::vector<int32_t> early = request.stop_tokens;
  if (!request.ignore_eos) early.insert(early.end(), target.end_ids.begin(), target.end_ids.end());
  std::sort(early.begin(), early.end());
  early.erase(std::unique(early.begin(), early.end()), early.end());
  std::erase_if(early, [&](int32_t id) { return std::ranges::find(suppressed_, id) != suppressed_.end(); });
  suppressed_early_ = suppressed_;
  suppressed_early_.insert(suppressed_early_.end(), early.begin(), early.end());
}

bool Draft::follow(const Sequence& target) {
  const auto known = target.known();
  const auto count = static_cast<int32_t>(known.size());
  if (count == known_ || stopped_) return steps_left_ > 0;
  if (steps_taken_ > 0) policy_.observe(steps_taken_, room_, count - known_ - 1);
  const auto fresh = known.subspan(known_);
  if (std::any_of(fresh.begin(), fresh.end(), [&](int32_t id) { return id >= context_.vocabulary; })) {
    stop();
    return false;
  }
  tokens_.resize(known_);
  tokens_.insert(tokens_.end(), fresh.begin(), fresh.end());
  known_ = count;
  open(target.room_for_proposal());
  return steps_left_ > 0;
}

void Draft::open(int32_t room) {
  const int32_t block = context_.block_length;
  start_ = floor_to(known_, block);
  step_ = steps_left_ = steps_taken_ = 0;
  masked_ = 0;
  end_ = start_ + block;
  // A block that is nearly full would hardly be worth a forward; the next one sees its masks where it should see tokens,
  // and is the less often right.
  const bool short_of = (end_ - known_) * 4 < block * 3;
  if (short_of && end_ + block <= context_.context && 2 * block <= kMaxBlockLength) end_ += block;
  room_ = std::min({end_ - known_, room, kMaxBlockLength - 1});
  if (room_ < 1 || end_ > context_.context) return;
  steps_left_ = policy_.steps(room_);
  if (steps_left_ == 0) return;
  tokens_.resize(end_, context_.mask_id);
  masked_ = ((uint64_t{1} << room_) - 1) << offset();
  confidences_.assign(room_, 0);
}

bool Draft::ends(int32_t id) const {
  return std::binary_search(suppressed_early_.begin() + static_cast<std::ptrdiff_t>(suppressed_.size()),
                            suppressed_early_.end(), id);
}

int32_t Draft::pages_needed() const { return pages_for(end_, context_.block_length); }

StepSequence Draft::plan(int32_t max_rows) const {
  const int32_t block = context_.block_length, all = rows_left();
  StepSequence s;
  s.denoise = all <= max_rows;
  s.segment = {.row = 0,
               .rows = s.denoise ? all : std::min(start_ - committed_, floor_to(max_rows, block)),
               .position = committed_,
               .block_length = block,
               .pages = pages_.data()};
  s.window = end_ - start_;
  s.ids = tokens_.data() + committed_;
  s.masked = masked_;
  s.sampling = &sampling_;
  s.suppressed = suppressed_;
  s.suppressed_early = suppressed_early_;
  s.free_from = free_from_;
  return s;
}

std::span<const int32_t> Draft::apply(const StepSequence& planned, const SequenceResult& result) {
  if (!planned.denoise) {
    committed_ += planned.segment.rows;
    return {};
  }
  committed_ = start_;
  forwards++;
  step_++;
  if (!result.finite) {
    stop();
    return {};
  }
  int32_t best = std::countr_zero(masked_);
  for (uint64_t left = masked_; left; left &= left - 1) {
    const int32_t i = std::countr_zero(left);
    if (result.at[i].confidence > result.at[best].confidence) best = i;
  }
  const bool last = --steps_left_ == 0;
  for (uint64_t left = masked_; left; left &= left - 1) {
    const int32_t i = std::countr_zero(left);
    if (!last && i != best && result.at[i].confidence <= kSure) continue;
    tokens_[start_ + i] = result.at[i].token;
    confidences_[i - offset()] = result.at[i].confidence;
    masked_ &= ~(uint64_t{1} << i);
  }
  if (masked_ != 0) return {};
  steps_left_ = 0;
  steps_taken_ = step_;
  const std::span<const int32_t> drafted = std::span(tokens_).subspan(known_, room_);
  int32_t worth = policy_.worthwhile(confidences_);
  // Nothing follows what ends the generation, and the target itself decides whether it comes.
  for (int32_t i = 0; i < worth; i++)
    if (drafted[i] >= context_.vocabulary || ends(drafted[i])) worth = i;
  return drafted.first(worth);
}

}  // namespace sdar
