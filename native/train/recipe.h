// Objectives: which rows and weights make a batch of samples, and the noise that is drawn.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
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

enum class Objective : uint8_t {
  autoregressive,  ///< autoregressive_rows()
  sdar,            ///< sdar_rows(), one noise level per sample
  views,           ///< view_rows(): x_0 once, several noisy views of the answer behind it
};
inline constexpr std::array kObjectives{"autoregressive", "sdar", "views"};

struct Recipe {
  Objective objective = Objective::autoregressive;
  std::vector<int32_t> blocks{8};  ///< lengths of a block; each sample draws one
  int32_t views = 4;               ///< noisy copies of an answer, in `views`
  bool complementary = false;      ///< in `views`: every second one masks what the one before it does not
  bool full_mask = false;          ///< in `views`: the first one masks all of the answer, as decoding begins
  double suffix = 0;     ///< in `views`: share of blocks of which the last of the answer are masked, from 0 to 1
  bool growth = false;   ///< blocks come one after the other over the run instead of being drawn
  int32_t mask_id = -1;  ///< what x_t has where it is noisy
  int32_t pad_id = -1;   ///< fills an answer's last block and is learnt; -1: the block stays short

  /// Throws Error(INVALID_OPTION) naming the field, its value and what is allowed.
  void check() const;
  /// All of it as a line.
  std::string text() const;
};

/// The rows of a batch, a function of the arguments alone; `first` is the number in the whole run of the batch's first
/// sample, `progress` in [0, 1] how much of the run is done. Throws Error(INVALID_OPTION).
TrainingRows rows_of(const Recipe& recipe, std::span<const Sample> samples, uint64_t seed, uint64_t first,
                     double progress = 0);
/// Rows that a sample takes in rows_of(), with the longest of the recipe's blocks.
int64_t row_count(const Recipe& recipe, const Sample& sample);

/// Token-causal rows; the loss is the mean cross-entropy of the answer's tokens, each predicted from the row before. The
/// first token of a sample is predicted from nothing and counts nowhere. Throws Error(INVALID_OPTION) without answers.
TrainingRows autoregressive_rows(std::span<const Sample> samples);

/// The published objective of SDAR: rows [x_t | x_0]; the loss is Σ cross-entropy / p over masked tokens of the answer,
/// over the number of the batch's answer tokens. `noise` is [samples]. Throws Error(INVALID_OPTION).
TrainingRows sdar_rows(std::span<const Sample> samples, std::span<const Noise> noise, int32_t block, int32_t mask_id);

/// x_0, token by token, with noisy views of the answer behind it that do not see each other: a row of a view sees the
/// view's own block and x_0 of earlier blocks; x_0 is block-causal and ends before the last block, which nothing sees.
/// In each block of a view 1 to all of its answer's positions are masked, by strata over the views: any of them, or in
/// a share of the blocks, the same in all views, the last ones, as where a block fills from the left. The loss is the mean
/// over blocks' positions of the cross-entropy's mean over the block's masked ones.
TrainingRows view_rows(const Recipe& recipe, std::span<const Sample> samples, uint64_t seed, uint64_t first,
                       double progress = 0);

/// p uniform in [0.001, 1), each position of the answer masked with probability p: a function of the arguments alone.
/// `index` is the sample's number in the whole run.
Noise draw_noise(const Sample& sample, uint64_t seed, uint64_t index);

}  // namespace sdar::train
