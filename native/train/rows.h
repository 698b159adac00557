// The rows of a training step: what goes in at each, what it sees, and what is to come out.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sdar::train {

/// [begin, end), of rows.
struct Span {
  int32_t begin = 0, end = 0;
};

/// The rows that a row's query sees: at most two ranges, which may be empty and do not overlap.
struct Sight {
  Span parts[2];
};

struct TrainingRows {
  std::vector<int32_t> ids;        ///< [rows]
  std::vector<int32_t> positions;  ///< [rows], of RoPE
  std::vector<Sight> sight;        ///< [rows], within the row's sample and not empty
  std::vector<int32_t> targets;    ///< [rows], ignored where the weight is 0
  std::vector<float> weights;      ///< [rows], of the row's cross-entropy in the loss
  std::vector<Span> samples;       ///< in order, all rows; attention never leaves one

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

/// Adds a sample whose rows see those up to their own: token_causal. Weights are 0.
void add_token_causal(TrainingRows& rows, std::span<const int32_t> ids);
/// … those up to the end of their own block of `block` positions.
void add_block_causal(TrainingRows& rows, std::span<const int32_t> ids, int32_t block);
/// [x_t | x_0], positions 0 … T-1 twice: a row of x_t sees x_t of its own block and x_0 of earlier blocks, a row of x_0
/// sees x_0 up to its own block. Source: SDAR (arXiv 2510.06303), after Block Diffusion (arXiv 2503.09573).
void add_noisy_and_clean(TrainingRows& rows, std::span<const int32_t> noisy, std::span<const int32_t> clean,
                         int32_t block);
/// x_0 up to its last block, block-causal, and behind it views of the blocks from `first` on: a row of a view sees the
/// view's own block and x_0 of earlier blocks. `views` are [clean.size() - first] each, `first` the begin of a block.
void add_clean_and_views(TrainingRows& rows, std::span<const int32_t> clean,
                         std::span<const std::vector<int32_t>> views, int32_t first, int32_t block);

}  // namespace sdar::train
