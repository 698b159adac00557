#include "backend/cuda/step_input.h"

#include <algorithm>
#include <bit>
#include <string>

#include "util/error.h"

namespace sdar::cuda {
namespace {

int32_t ceil_to(int32_t value, int32_t step) { return (value + step - 1) / step * step; }
int32_t power_of_two(int32_t value, int32_t least) {
  return value <= 0 ? 0 : std::max(least, static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(value))));
}
/// Suppressed ids that the kernels compare with each id; more become bits of a mask.
constexpr size_t kFewSuppressed = 16;

/// Ids that are told of each masked position.
int32_t told_of_each(const StepSequence& s) { return s.candidates + !s.limits.empty() + s.sampling->top_logprobs; }

template <class T>
void copy(const std::vector<T>& from, const StepArray<T>& to) {
  std::copy(from.begin(), from.end(), to.host());
}

}  // namespace

int32_t rounded_rows(int32_t rows) {
  if (rows <= 64) return power_of_two(rows, 8);
  return ceil_to(rows, rows <= 1024 ? 64 : 256);
}

int32_t buffer_rows(int32_t max_rows) { return power_of_two(rounded_rows(max_rows), 1); }

StepInput::StepInput(Device& device, const ModelShape& shape, int32_t max_rows)
    : ids(device, "ids"),
      narrow(device, "narrow items"),
      wide(device, "wide items"),
      merges(device, "merge items"),
      sampled(device, "sampled rows"),
      sampled_at(device, "places of sampled rows"),
      sampled_counts(device, "counts of sampled rows"),
      outcomes(device, "outcomes"),
      results(device, "results"),
      ranked(device, "ranked ids"),
      group_(shape.heads / shape.kv_heads),
      max_rows_(max_rows),
      vocabulary_(shape.vocabulary),
      segments_(device, "segments"),
      row_segment_(device, "row segments"),
      page_ids_(device, "page ids"),
      tokens_(device, "tokens"),
      suppressed_(device, "suppressed ids"),
      bias_ids_(device, "bias ids"),
      bias_values_(device, "bias values"),
      masks_(device, "masks of ids"),
      limits_(device, "row limits"),
      penalised_(device, "penalised ids"),
      slots_(device, "slots") {
  const auto rows = static_cast<size_t>(buffer_rows(max_rows));
  for (StepArray<int32_t>* array : {&ids, &sampled_at, &sampled_counts, &row_segment_}) array->reserve(rows);
  sampled.reserve(rows);
  results.reserve(rows);
  segments_.reserve(kMaxSlots);
  slots_.reserve(kMaxSlots);
  outcomes.reserve(kMaxSlots);
  tokens_.reserve(size_t{kMaxSlots} * kMaxBlockLength);
  // These may grow.
  page_ids_.reserve(4096);
  narrow.reserve(1024), wide.reserve(1024), merges.reserve(256);
  masks_.reserve(1), limits_.reserve(1), penalised_.reserve(1024), ranked.reserve(1);
  suppressed_.reserve(4096), bias_ids_.reserve(1024), bias_values_.reserve(1024);
}

void StepInput::lay_out_rows(std::span<const StepSequence> sequences, int32_t rows) {
  if (rows > max_rows_)
    throw Error(code::kInternal, "a step of " + std::to_string(rows) + " rows was planned; at most " +
                                     std::to_string(max_rows_) + " fit");
  shape_ = {.rows = rounded_rows(rows)};
  device_segments_.clear();
  int32_t pages = 0;
  for (const StepSequence& sequence : sequences) {
    const Segment& s = sequence.segment;
    device_segments_.push_back({s.row, s.rows, s.position, s.block_length, pages});
    pages += ceil_div(s.position + s.rows, tokens_per_page(s.block_length));
  }
  segment_count_ = sequences.size(), page_count_ = static_cast<size_t>(pages);
  reserve(segments_, segment_count_);
  reserve(page_ids_, page_count_);
  copy(device_segments_, segments_);
  std::fill_n(row_segment_.host(), shape_.rows, -1);
  for (size_t i = 0; i < sequences.size(); i++) {
    const Segment& s = sequences[i].segment;
    std::fill_n(row_segment_.host() + s.row, s.rows, static_cast<int32_t>(i));
    std::copy_n(s.pages, ceil_div(s.position + s.rows, tokens_per_page(s.block_length)),
                page_ids_.host() + device_segments_[i].pages);
  }

  const AttentionPlan plan = plan_attention(device_segments_, group_);
  const auto put = [&](const auto& items, auto& array, auto nobodys) {
    const int32_t count = static_cast<int32_t>(items.size()), room = power_of_two(count, 4);
    reserve(array, static_cast<size_t>(room));
    copy(items, array);
    nobodys.segment = -1;
    std::fill(array.host() + count, array.host() + room, nobodys);
    return room;
  };
  shape_.narrow = put(plan.narrow, narrow, AttentionItem{});
  shape_.wide = put(plan.wide, wide, AttentionItem{});
  shape_.merges = put(plan.merges, merges, MergeItem{});
  slot_count_ = 0;
}

void StepInput::lay_out(const Step& step) {
  const auto sequences = step.sequences();
  if (sequences.size() > size_t{kMaxSlots})
    throw Error(code::kInternal, "a step of " + std::to_string(sequences.size()) + " sequences was planned");
  int32_t masked = 0;
  size_t suppressed = 0, bias = 0, penalised = 0, ranked_ids = 0;
  for (const StepSequence& s : sequences) {
    if (!s.denoise) continue;
    masked += std::popcount(s.masked);
    suppressed += s.suppressed_early.size();
    bias += s.sampling->bias_ids.size();
    penalised += s.penalised.size();
    ranked_ids += static_cast<size_t>(std::popcount(s.masked) * told_of_each(s));
  }
  lay_out_rows(sequences, step.rows());
  std::fill_n(ids.host(), shape_.rows, 0);
  begin_lists(suppressed, bias);
  reserve(penalised_, penalised);
  reserve(ranked, ranked_ids);
  penalised_count_ = ranked_count_ = 0;
  lay_out_limits(sequences);
  for (const StepSequence& s : sequences) {
    // The active block's ids are written again by gather_rows.
    std::copy_n(s.ids, s.segment.rows, ids.host() + s.segment.row);
    if (s.denoise) add_slot(s);
  }
  masked_count_ = static_cast<size_t>(masked);
  shape_.sampled = power_of_two(masked, 8);
  shape_.slots = power_of_two(static_cast<int32_t>(slot_count_), 4);
  std::fill(slots_.host() + slot_count_, slots_.host() + shape_.slots, DenoiseSlot{});
}

bool StepInput::has_limits(const StepSequence& s) const {
  return !s.limits.empty() || s.suppressed_early.size() > kFewSuppressed;
}

/// The number of the mask of ids that are allowed (null: all) and not suppressed; −1: all ids are that.
int32_t StepInput::mask_of(const uint64_t* allowed, std::span<const int32_t> suppressed) {
  if (!allowed && suppressed.empty()) return -1;
  const MaskSource source{allowed, suppressed.empty() ? nullptr : suppressed.data(), suppressed.size()};
  const auto [at, added] = mask_numbers_.try_emplace(source, static_cast<int32_t>(mask_sources_.size()));
  if (added) mask_sources_.push_back(source);
  return at->second;
}

/// A mask once, however many rows have it. Suppressed ids that are more than a few become part of the masks.
void StepInput::lay_out_limits(std::span<const StepSequence> sequences) {
  mask_numbers_.clear(), mask_sources_.clear(), row_limits_.clear(), slot_limits_.clear();
  for (const StepSequence& s : sequences) {
    if (!s.denoise) continue;
    const bool folds = s.suppressed_early.size() > kFewSuppressed;
    slot_limits_.push_back(has_limits(s) ? static_cast<int32_t>(row_limits_.size()) : -1);
    for (int32_t offset = 0; has_limits(s) && offset < s.window_rows(); offset++) {
      RowLimits limits;
      if (s.masked >> offset & 1 && !s.limits.empty()) limits = s.limits[static_cast<size_t>(offset)];
      const bool early = s.active_position() + offset < s.free_from;
      const auto suppressed = folds ? early ? s.suppressed_early : s.suppressed : std::span<const int32_t>{};
      row_limits_.push_back({mask_of(limits.allowed, suppressed), limits.wanted});
    }
  }
  const auto words = static_cast<size_t>(mask_words(vocabulary_));
  reserve(masks_, mask_sources_.size() * words);
  reserve(limits_, row_limits_.size());
  copy(row_limits_, limits_);
  for (size_t i = 0; i < mask_sources_.size(); i++) {
    const auto [allowed, suppressed, count] = mask_sources_[i];
    uint64_t* mask = masks_.host() + i * words;
    if (allowed) {
      std::copy_n(allowed, words, mask);
    } else {
      std::fill_n(mask, words, ~uint64_t{0});
    }
    for (const int32_t id : std::span(suppressed, count))
      if (id >= 0 && id < vocabulary_) mask[id / 64] &= ~(uint64_t{1} << id % 64);
  }
}

void StepInput::add_slot(const StepSequence& s) {
  const SamplingParams& d = *s.sampling;
  const int32_t block = s.window_rows();
  const bool folds = s.suppressed_early.size() > kFewSuppressed;
  const auto suppressed = folds ? std::span<const int32_t>{} : s.suppressed;
  const auto early = folds ? std::span<const int32_t>{} : s.suppressed_early;
  const int32_t told = told_of_each(s);
  std::copy_n(s.ids + s.segment.rows - block, block, tokens_.host() + slot_count_ * kMaxBlockLength);
  slots_[slot_count_++] = {
      .masked = s.masked,
      .seed = d.seed,
      .params = d.denoise,
      .row = s.active_row(),
      .position = s.active_position(),
      .block_length = block,
      .step = s.step,
      .keeps_ids = s.ahead > 0,
      .answer = d.completion,
      .temperature = d.temperature,
      .top_p = d.top_p,
      .min_p_range = min_p_range(d.min_p, d.temperature),
      .top_k = d.top_k,
      .sampled_confidence = d.confidence == Confidence::sampled,
      .suppressed = add_suppressed(early),
      .suppressed_count = static_cast<int32_t>(suppressed.size()),
      .early_count = static_cast<int32_t>(early.size() - suppressed.size()),
      .free_from = s.free_from,
      .bias = add_bias(d.bias_ids, d.bias_values),
      .bias_count = static_cast<int32_t>(d.bias_ids.size()),
      .limits = slot_limits_[slot_count_ - 1],
      .ranked = static_cast<int32_t>(ranked_count_),
      .candidates = s.candidates,
      .tells_wanted = !s.limits.empty(),
      .top = d.top_logprobs,
      .penalised = add_penalised(s.penalised),
      .penalised_count = static_cast<int32_t>(s.penalised.size()),
      .repetition = d.repetition_penalty,
  };
  ranked_count_ += static_cast<size_t>(std::popcount(s.masked) * told);
  shape_.sampling |= d.temperature > 0;
  shape_.ranking |= told > 0;
}

void StepInput::begin_lists(size_t suppressed, size_t bias) {
  reserve(suppressed_, suppressed);
  reserve(bias_ids_, bias);
  reserve(bias_values_, bias);
  suppressed_count_ = bias_count_ = 0;
}

int32_t StepInput::add_suppressed(std::span<const int32_t> list) {
  std::copy(list.begin(), list.end(), suppressed_.host() + suppressed_count_);
  return static_cast<int32_t>(std::exchange(suppressed_count_, suppressed_count_ + list.size()));
}

int32_t StepInput::add_bias(std::span<const int32_t> list, std::span<const float> values) {
  std::copy(list.begin(), list.end(), bias_ids_.host() + bias_count_);
  std::copy(values.begin(), values.end(), bias_values_.host() + bias_count_);
  return static_cast<int32_t>(std::exchange(bias_count_, bias_count_ + list.size()));
}

int32_t StepInput::add_penalised(std::span<const PenalisedToken> list) {
  std::copy(list.begin(), list.end(), penalised_.host() + penalised_count_);
  return static_cast<int32_t>(std::exchange(penalised_count_, penalised_count_ + list.size()));
}

void StepInput::upload() {
  segments_.upload(segment_count_);
  row_segment_.upload(static_cast<size_t>(shape_.rows));
  page_ids_.upload(page_count_);
  ids.upload(static_cast<size_t>(shape_.rows));
  narrow.upload(static_cast<size_t>(shape_.narrow));
  wide.upload(static_cast<size_t>(shape_.wide));
  merges.upload(static_cast<size_t>(shape_.merges));
  if (slot_count_ == 0) return;
  slots_.upload(static_cast<size_t>(shape_.slots));
  tokens_.upload(slot_count_ * kMaxBlockLength);
  suppressed_.upload(suppressed_count_);
  bias_ids_.upload(bias_count_);
  bias_values_.upload(bias_count_);
  masks_.upload(mask_sources_.size() * static_cast<size_t>(mask_words(vocabulary_)));
  limits_.upload(row_limits_.size());
  penalised_.upload(penalised_count_);
}

void StepInput::download() const {
  outcomes.download(slot_count_);
  results.download(slot_count_ == 0 ? 0 : masked_count_);
  ranked.download(ranked_count_);
}

SampledRows StepInput::sampled_rows() const {
  return {sampled.get(),   sampled_counts.get(), shape_.sampled, suppressed_.get(),
          bias_ids_.get(), bias_values_.get(),   masks_.get(),   penalised_.get()};
}

DenoiseTables StepInput::denoise_tables(int32_t mask_id) const {
  return {slots_.get(), tokens_.get(), outcomes.get(), shape_.slots, mask_id};
}

GatherRowsParams StepInput::gather_rows(int32_t mask_id, bool all_logits) const {
  return {denoise_tables(mask_id), sampled.get(), sampled_at.get(), sampled_counts.get(),
          shape_.sampled,          ids.get(),     all_logits,       limits_.get()};
}

}  // namespace sdar::cuda
