#include "train/recipe.h"

#include <algorithm>
#include <iterator>

#include "denoise/philox.h"
#include "util/error.h"

namespace sdar::train {
namespace {

void check_sample(const Sample& sample, size_t number) {
  if (sample.answer.size() != sample.ids.size())
    throw Error(code::kInvalidOption, "sample " + std::to_string(number) + ": answer has " +
                                          std::to_string(sample.answer.size()) + " flags; allowed: one for each of " +
                                          std::to_string(sample.ids.size()) + " ids");
}

/// The answers' tokens, from position `first` of each sample on.
double answer_tokens(std::span<const Sample> samples, size_t first) {
  int64_t count = 0;
  for (size_t i = 0; i < samples.size(); i++) {
    check_sample(samples[i], i);
    for (size_t j = first; j < samples[i].answer.size(); j++) count += samples[i].answer[j] != 0;
  }
  if (count == 0)
    throw Error(code::kInvalidOption, "samples: no token of an answer in " + std::to_string(samples.size()) +
                                          "; allowed: at least one in a batch");
  return static_cast<double>(count);
}

}  // namespace

TrainingRows autoregressive_rows(std::span<const Sample> samples) {
  const auto weight = static_cast<float>(1 / answer_tokens(samples, 1));
  TrainingRows rows;
  for (const Sample& sample : samples) {
    const size_t base = rows.ids.size();
    add_token_causal(rows, sample.ids);
    for (size_t j = 1; j < sample.ids.size(); j++) {
      if (!sample.answer[j]) continue;
      rows.targets[base + j - 1] = sample.ids[j];
      rows.weights[base + j - 1] = weight;
    }
  }
  return rows;
}

TrainingRows sdar_rows(std::span<const Sample> samples, std::span<const Noise> noise, int32_t block, int32_t mask_id) {
  const double count = answer_tokens(samples, 0);
  if (noise.size() != samples.size())
    throw Error(code::kInvalidOption, "noise: of " + std::to_string(noise.size()) + " samples; allowed: of each of " +
                                          std::to_string(samples.size()));
  TrainingRows rows;
  for (size_t i = 0; i < samples.size(); i++) {
    const Sample& sample = samples[i];
    const Noise& drawn = noise[i];
    if (!(drawn.p > 0 && drawn.p <= 1) || drawn.masked.size() != sample.ids.size())
      throw Error(code::kInvalidOption, "noise of sample " + std::to_string(i) + ": p is " + std::to_string(drawn.p) +
                                            " with " + std::to_string(drawn.masked.size()) +
                                            " flags; allowed: 0 < p <= 1 and a flag for each id");
    const size_t base = rows.ids.size();
    std::vector<int32_t> noisy = sample.ids;
    for (size_t j = 0; j < noisy.size(); j++)
      if (drawn.masked[j]) noisy[j] = mask_id;
    add_noisy_and_clean(rows, noisy, sample.ids, block);
    for (size_t j = 0; j < noisy.size(); j++) {
      if (!drawn.masked[j] || !sample.answer[j]) continue;
      rows.targets[base + j] = sample.ids[j];
      rows.weights[base + j] = static_cast<float>(1 / (count * drawn.p));
    }
  }
  return rows;
}

namespace {

/// Uniform numbers in [0, 1) of a sample, by name.
class Draws {
 public:
  Draws(uint64_t seed, uint64_t index, uint32_t purpose) : seed_(seed), index_(index), purpose_(purpose) {}

  double operator()(uint32_t number) const {
    const PhiloxWords words =
        philox4x32_10({{static_cast<uint32_t>(index_), static_cast<uint32_t>(index_ >> 32), number, purpose_}}, seed_);
    return static_cast<double>(uint64_t{words.w[0]} << 32 | words.w[1]) * 0x1p-64;
  }

 private:
  uint64_t seed_, index_;
  uint32_t purpose_;
};
constexpr uint32_t kNoise = 0x6e6f6973u, kBlock = 0x626c6f63u, kViews = 0x76696577u, kSuffix = 0x73756666u;

int32_t block_of(const Recipe& recipe, uint64_t seed, uint64_t index, double progress) {
  const double drawn =
      (recipe.growth ? progress : Draws(seed, index, kBlock)(0)) * static_cast<double>(recipe.blocks.size());
  return recipe.blocks[std::min(static_cast<size_t>(drawn), recipe.blocks.size() - 1)];
}

/// The begin of the block that holds the first token of the answer; a sample without one begins nowhere.
int32_t first_block(const Sample& sample, int32_t block) {
  const auto found = std::find_if(sample.answer.begin(), sample.answer.end(), [](uint8_t a) { return a != 0; });
  return static_cast<int32_t>(found - sample.answer.begin()) / block * block;
}

/// A sample with its last block filled.
Sample padded(Sample sample, int32_t block, int32_t pad_id) {
  if (pad_id < 0) return sample;
  while (sample.ids.size() % static_cast<size_t>(block) != 0) {
    sample.ids.push_back(pad_id);
    sample.answer.push_back(1);
  }
  return sample;
}

/// A noisy copy of a sample from position `first` on, and the weights of its rows.
struct View {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  int32_t first;

  /// Masks these positions of a block that has `count` of the answer.
  void mask(std::span<const int32_t> places, size_t count, int32_t mask_id) {
    for (const int32_t place : places) {
      ids[static_cast<size_t>(place - first)] = mask_id;
      weights[static_cast<size_t>(place - first)] = static_cast<float>(count) / static_cast<float>(places.size());
    }
  }
  bool masked(int32_t place) const { return weights[static_cast<size_t>(place - first)] > 0; }
};

/// `count` of the places, drawn with numbers from `number` on.
std::vector<int32_t> draw_places(std::vector<int32_t> places, size_t count, const Draws& draw, uint32_t number) {
  for (size_t i = 0; i < count; i++) {
    const size_t left = places.size() - i;
    const auto drawn = static_cast<size_t>(draw(number + static_cast<uint32_t>(i)) * static_cast<double>(left));
    std::swap(places[i], places[i + std::min(drawn, left - 1)]);
  }
  places.resize(count);
  return places;
}

/// The positions of the answer in block [begin, begin + block).
std::vector<int32_t> answer_places(const Sample& sample, int32_t begin, int32_t block) {
  std::vector<int32_t> places;
  const int32_t end = std::min(begin + block, static_cast<int32_t>(sample.ids.size()));
  for (int32_t i = begin; i < end; i++)
    if (sample.answer[static_cast<size_t>(i)]) places.push_back(i);
  return places;
}

/// What view `number` masks of a block, given the view before it; with `suffix` the last places. Of a complementary pair
/// whose first view masks everything, the second one draws.
std::vector<int32_t> masked_places(const Recipe& recipe, const std::vector<int32_t>& places, int32_t begin, bool suffix,
                                   int32_t number, const View* before, const Draws& draw) {
  if (recipe.full_mask && number == 0) return places;
  if (recipe.complementary && !suffix && number % 2 == 1) {
    std::vector<int32_t> rest;
    std::copy_if(places.begin(), places.end(), std::back_inserter(rest), [&](int32_t i) { return !before->masked(i); });
    if (!rest.empty()) return rest;
  }
  // Each block's strata are dealt to the views in its own order. A block has numbers of its own: one for the order, then
  // for each view its place in the stratum and the positions, which are at most 64.
  constexpr uint32_t kEach = 65;
  const uint32_t own = static_cast<uint32_t>(begin) * (kEach + 1);
  const auto turn = static_cast<int32_t>(draw(own) * recipe.views);
  const uint32_t first = (static_cast<uint32_t>(number) + 1) << 24 | (own + 1);
  const double stratum = ((number + turn) % recipe.views + draw(first)) / recipe.views;
  const size_t count = places.size();
  const size_t masked = std::min(static_cast<size_t>(stratum * static_cast<double>(count)), count - 1) + 1;
  if (suffix) return {places.end() - static_cast<std::ptrdiff_t>(masked), places.end()};
  return draw_places(places, masked, draw, first + 1);
}

std::vector<View> views_of(const Recipe& recipe, const Sample& sample, int32_t first, int32_t block, uint64_t seed,
                           uint64_t index) {
  const Draws draw(seed, index, kViews), draw_suffix(seed, index, kSuffix);
  const std::vector<int32_t> ids(sample.ids.begin() + first, sample.ids.end());
  std::vector<View> views(static_cast<size_t>(recipe.views), {ids, std::vector<float>(ids.size()), first});
  for (int32_t begin = first; begin < static_cast<int32_t>(sample.ids.size()); begin += block) {
    const std::vector<int32_t> places = answer_places(sample, begin, block);
    if (places.empty()) continue;
    const bool suffix = draw_suffix(static_cast<uint32_t>(begin)) < recipe.suffix;
    for (int32_t i = 0; i < recipe.views; i++) {
      View& view = views[static_cast<size_t>(i)];
      view.mask(masked_places(recipe, places, begin, suffix, i, i > 0 ? &view - 1 : nullptr, draw), places.size(),
                recipe.mask_id);
    }
  }
  return views;
}

}  // namespace

TrainingRows view_rows(const Recipe& recipe, std::span<const Sample> samples, uint64_t seed, uint64_t first,
                       double progress) {
  answer_tokens(samples, 0);
  TrainingRows rows;
  double count = 0;
  for (size_t i = 0; i < samples.size(); i++) {
    const int32_t block = block_of(recipe, seed, first + i, progress);
    const Sample sample = padded(samples[i], block, recipe.pad_id);
    const int32_t begin = first_block(sample, block);
    if (begin >= static_cast<int32_t>(sample.ids.size())) continue;
    const std::vector<View> views = views_of(recipe, sample, begin, block, seed, first + i);
    std::vector<std::vector<int32_t>> noisy;
    for (const View& view : views) noisy.push_back(view.ids);
    add_clean_and_views(rows, sample.ids, noisy, begin, block);
    size_t row = rows.ids.size() - views.size() * views[0].ids.size();
    for (const View& view : views) {
      for (size_t j = 0; j < view.ids.size(); j++, row++) {
        rows.weights[row] = view.weights[j];
        if (view.weights[j] > 0) rows.targets[row] = sample.ids[static_cast<size_t>(begin) + j];
      }
    }
    count += static_cast<double>(
                 std::count_if(sample.answer.begin(), sample.answer.end(), [](uint8_t flag) { return flag != 0; })) *
             recipe.views;
  }
  for (float& weight : rows.weights) weight = static_cast<float>(weight / count);
  return rows;
}

TrainingRows rows_of(const Recipe& recipe, std::span<const Sample> samples, uint64_t seed, uint64_t first,
                     double progress) {
  recipe.check();
  if (recipe.objective == Objective::autoregressive) return autoregressive_rows(samples);
  if (recipe.objective == Objective::views) return view_rows(recipe, samples, seed, first, progress);
  const int32_t block = block_of(recipe, seed, first, progress);
  std::vector<Sample> whole;
  std::vector<Noise> noise;
  for (size_t i = 0; i < samples.size(); i++) {
    whole.push_back(padded(samples[i], block, recipe.pad_id));
    noise.push_back(draw_noise(whole[i], seed, first + i));
  }
  return sdar_rows(whole, noise, block, recipe.mask_id);
}

int64_t row_count(const Recipe& recipe, const Sample& sample) {
  const auto length = static_cast<int64_t>(sample.ids.size());
  if (recipe.objective == Objective::autoregressive) return length;
  int64_t most = 0;
  for (const int32_t block : recipe.blocks) {
    const int64_t begin = first_block(sample, block),
                  end = recipe.pad_id < 0 ? length : (length + block - 1) / block * block;
    most = std::max(
        most, recipe.objective == Objective::sdar ? 2 * end : (end - 1) / block * block + recipe.views * (end - begin));
  }
  return most;
}

void Recipe::check() const {
  const auto refuse = [](const std::string& field, int64_t value, const std::string& allowed) {
    throw Error(code::kInvalidOption, "recipe." + field + " is " + std::to_string(value) + "; allowed: " + allowed);
  };
  if (objective == Objective::autoregressive) return;
  if (blocks.empty()) refuse("blocks", 0, "at least one length");
  for (const int32_t block : blocks)
    if (block < 1) refuse("blocks", block, "lengths of 1 or more");
  if (views < 1 || views > 64) refuse("views", views, "1 to 64");
  if (full_mask && views == 1) refuse("views", views, "2 to 64 where the first one masks everything");
  if (!(suffix >= 0 && suffix <= 1))
    throw Error(code::kInvalidOption, "recipe.suffix is " + std::to_string(suffix) + "; allowed: 0 to 1");
  if (mask_id < 0) refuse("mask_id", mask_id, "an id of the vocabulary");
}

std::string Recipe::text() const {
  std::string line = std::string("objective ") + kObjectives[static_cast<size_t>(objective)];
  if (objective == Objective::autoregressive) return line;
  line += " blocks";
  for (const int32_t block : blocks) line += " " + std::to_string(block);
  if (growth) line += " growing";
  if (objective == Objective::views)
    line += " views " + std::to_string(views) + (complementary ? " complementary" : "") + (full_mask ? " full" : "") +
            " suffix " + std::to_string(suffix);
  return line + " pad " + std::to_string(pad_id) + " mask " + std::to_string(mask_id);
}

Noise draw_noise(const Sample& sample, uint64_t seed, uint64_t index) {
  const Draws uniform(seed, index, kNoise);
  constexpr double kLeast = 1e-3;  // p is divided by
  Noise noise;
  noise.p = static_cast<float>(kLeast + (1 - kLeast) * uniform(0));
  noise.masked.resize(sample.ids.size());
  for (size_t j = 0; j < noise.masked.size(); j++)
    noise.masked[j] = sample.answer[j] && uniform(static_cast<uint32_t>(j) + 1) < noise.p;
  return noise;
}

}  // namespace sdar::train
