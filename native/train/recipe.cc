#include "train/recipe.h"

#include <string>

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

Noise draw_noise(const Sample& sample, uint64_t seed, uint64_t index) {
  const auto uniform = [&](uint32_t number) {
    const PhiloxWords words =
        philox4x32_10({{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), number, 0x6e6f6973u}}, seed);
    return static_cast<double>(uint64_t{words.w[0]} << 32 | words.w[1]) * 0x1p-64;
  };
  constexpr double kLeast = 1e-3;  // p is divided by
  Noise noise;
  noise.p = static_cast<float>(kLeast + (1 - kLeast) * uniform(0));
  noise.masked.resize(sample.ids.size());
  for (size_t j = 0; j < noise.masked.size(); j++)
    noise.masked[j] = sample.answer[j] && uniform(static_cast<uint32_t>(j) + 1) < noise.p;
  return noise;
}

}  // namespace sdar::train
