// Objectives: which rows and weights make a batch of samples, and the noise that is drawn.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "train/rows.h"

namespace sdar::train {

struct Sample {
  std::vector<int32_t> ids;
  std::vector<uint8_t> answer;  ///< [ids]: 1 where the position is part of the answer
};

/// What is masked of a sample, and the noise level that it was drawn at.
struct Noise {
  std::vector<uint8_t> masked;  ///< [ids]: 1 where x_t has the mask
  float p = 1;                  ///< in (0, 1]
};

/// Token-causal rows; the loss is the mean cross-entropy of the answer's tokens, each predicted from the row before. The
/// first token of a sample is predicted from nothing and counts nowhere. Throws Error(INVALID_OPTION) without answers.
TrainingRows autoregressive_rows(std::span<const Sample> samples);

/// The published objective of SDAR: rows [x_t | x_0]; the loss is Σ cross-entropy / p over masked tokens of the answer,
/// over the number of the batch's answer tokens. `noise` is [samples]. Throws Error(INVALID_OPTION).
TrainingRows sdar_rows(std::span<const Sample> samples, std::span<const Noise> noise, int32_t block, int32_t mask_id);

/// p uniform in [0.001, 1), each position of the answer masked with probability p: a function of the arguments alone.
/// `index` is the sample's number in the whole run.
Noise draw_noise(const Sample& sample, uint64_t seed, uint64_t index);

}  // namespace sdar::train
