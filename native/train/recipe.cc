#include "train/recipe.h"

#include <algorithm>
#include <numeric>

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
constexpr uint32_t kNoise = 0x6e6f6973u, kBlock = 0x626c6f63u, kViews = 0x76696577u;

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

/// Masks positions of one block of a view, `places` of its answer; `stratum` in [0, 1) says how many.
void mask_block(std::vector<int32_t> places, double stratum, const Draws& draw, uint32_t number, int32_t mask_id,
                int32_t first, std::vector<int32_t>& view, std::vector<float>& weights, bool flat) {
  const size_t count = places.size(),
               masked = std::min(static_cast<size_t>(stratum * static_cast<double>(count)), count - 1) + 1;
  for (size_t i = 0; i < masked; i++) {
    const auto left = static_cast<double>(count - i);
    const size_t other =
        i + std::min(static_cast<size_t>(draw(number + static_cast<uint32_t>(i)) * left), count - i - 1);
    std::swap(places[i], places[other]);
    const auto at = static_cast<size_t>(places[i] - first);
    view[at] = mask_id;
    weights[at] = flat ? 1 : static_cast<float>(count) / static_cast<float>(masked);
  }
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
    const int32_t begin = first_block(sample, block), length = static_cast<int32_t>(sample.ids.size());
    if (begin >= length) continue;
    const Draws draw(seed, first + i, kViews);
    std::vector<std::vector<int32_t>> views;
    std::vector<float> weights;
    uint32_t number = 0;
    for (int32_t v = 0; v < recipe.views; v++) {
      std::vector<int32_t> view(sample.ids.begin() + begin, sample.ids.end());
      std::vector<float> own(view.size());
      for (int32_t b = begin; b < length; b += block) {
        std::vector<int32_t> places;
        for (int32_t j = b; j < std::min(b + block, length); j++)
          if (sample.answer[static_cast<size_t>(j)]) places.push_back(j);
        if (places.empty()) continue;
        // Each block's strata are dealt to the views in its own order.
        const int32_t turn = static_cast<int32_t>(draw(static_cast<uint32_t>(b / block)) * recipe.views);
        if (recipe.complementary && v % 2 == 1) {
          std::vector<int32_t> rest;
          for (const int32_t j : places)
            if (views.back()[static_cast<size_t>(j - begin)] != recipe.mask_id) rest.push_back(j);
          if (!rest.empty()) {
            for (const int32_t j : rest) {
              view[static_cast<size_t>(j - begin)] = recipe.mask_id;
              own[static_cast<size_t>(j - begin)] =
                  recipe.flat ? 1 : static_cast<float>(places.size()) / static_cast<float>(rest.size());
            }
            count += static_cast<double>(places.size());
            number++;
            continue;
          }
        }
        const double stratum = ((v + turn) % recipe.views + draw(0x10000u + number)) / recipe.views;
        mask_block(places, stratum, draw, 0x20000u + number * static_cast<uint32_t>(block), recipe.mask_id, begin, view,
                   own, recipe.flat);
        count += static_cast<double>(places.size());
        number++;
      }
      views.push_back(std::move(view));
      weights.insert(weights.end(), own.begin(), own.end());
    }
    const size_t base = rows.ids.size();
    add_clean_and_views(rows, sample.ids, views, begin, block, recipe.clean == Clean::token_causal);
    if (recipe.autoregressive > 0) {
      for (size_t j = 1; j <= static_cast<size_t>((length - 1) / block * block); j++) {
        if (!sample.answer[j]) continue;
        rows.targets[base + j - 1] = sample.ids[j];
        rows.weights[base + j - 1] = static_cast<float>(recipe.autoregressive * recipe.views);
      }
    }
    const size_t at = rows.ids.size() - weights.size();
    for (size_t j = 0; j < weights.size(); j++) {
      if (weights[j] == 0) continue;
      rows.weights[at + j] = weights[j];
      rows.targets[at + j] = sample.ids[static_cast<size_t>(begin) + j % static_cast<size_t>(length - begin)];
    }
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
  if (mask_id < 0) refuse("mask_id", mask_id, "an id of the vocabulary");
}

std::string Recipe::text() const {
  std::string line = std::string("objective ") + kObjectives[static_cast<size_t>(objective)];
  if (objective == Objective::autoregressive) return line;
  line += " blocks";
  for (const int32_t block : blocks) line += " " + std::to_string(block);
  if (objective == Objective::views) line += " views " + std::to_string(views);
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
