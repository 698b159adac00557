// Paged block attention with the sum over keys split at absolute positions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/cuda/kernels/device_types.h"
#include "backend/cuda/kernels/step.h"

namespace sdar::cuda {

/// The sum over a row's keys is split into chunks of 4 pages (tokens_per_page positions each) by absolute position.
constexpr int32_t kChunkPages = 4;
constexpr int32_t kFragmentRows = 16;  ///< query rows of a warp

/// Query rows of one segment and KV head are counted r · group + h, for row r of the segment and head h of the group.
/// A block takes the rows first … first + 16 · warps − 1 and the chunks [chunk, chunk_end).
struct AttentionItem {
  int32_t segment = 0;
  int32_t first = 0;
  int32_t chunk = 0, chunk_end = 0;
  int32_t partial =
      -1;  ///< the place of this chunk's partial results; −1: the item has all chunks and writes the output
};
/// Rows whose chunks lie in places partial … partial + chunks − 1.
struct MergeItem {
  int32_t segment = 0;
  int32_t first = 0;
  int32_t partial = 0, chunks = 0;
};

/// How a step's rows are shared out. A row's result does not depend on it.
struct AttentionPlan {
  std::vector<AttentionItem> narrow;  ///< of 16 query rows: one warp
  std::vector<AttentionItem> wide;    ///< of 64 query rows: four warps that share keys and values
  std::vector<MergeItem> merges;
  int32_t partials = 0;
};
/// Places for partial results that a step may use.
constexpr int32_t kMaxPartials = 1024;
/// group: query heads per KV head. Segments of 64 query rows or more become wide items; the chunks of others are shared
/// out to blocks of their own, as long as there are places for their results.
AttentionPlan plan_attention(std::span<const DeviceSegment> segments, int32_t group,
                             int32_t max_partials = kMaxPartials);

/// q [rows, heads, head_dim] bf16; keys and values in the pages. Softmax in f32; per chunk an online softmax over its
/// pages, keys in ascending order; chunks merged in ascending order by log-sum-exp. Weights are rounded to bf16 before
/// they multiply the values and before they are summed. head_dim 64 or 128.
struct AttentionParams {
  StepTables tables;
  DevicePages pages;
  const uint16_t* q = nullptr;
  const AttentionItem* items = nullptr;
  int32_t item_count = 0;
  uint16_t* tiles = nullptr;  ///< of padded_k(heads · head_dim) columns; those past the last are left alone
  float* partials = nullptr;  ///< [places, kv_heads, attention_partial_floats(head_dim)]
  int32_t layer = 0, heads = 0;
};
void attention_narrow(Stream stream, const AttentionParams& args);
void attention_wide(Stream stream, const AttentionParams& args);
SDAR_HOST_DEVICE constexpr int32_t attention_partial_floats(int32_t head_dim) { return kFragmentRows * (head_dim + 2); }

struct AttentionMergeParams {
  const DeviceSegment* segments = nullptr;
  const MergeItem* items = nullptr;
  int32_t item_count = 0;
  const float* partials = nullptr;
  uint16_t* tiles = nullptr;
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
};
void attention_merge(Stream stream, const AttentionMergeParams& args);

}  // namespace sdar::cuda
