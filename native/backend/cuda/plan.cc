// How a step is cut for the kernels: attention into items and chunks of keys, a GEMM into tiles.
#include <cstdint>

#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/layout.h"

namespace sdar::cuda {

AttentionPlan plan_attention(std::span<const DeviceSegment> segments, int32_t group, int32_t max_partials) {
  constexpr int32_t kWideRows = 4 * kFragmentRows;
  AttentionPlan plan;
  for (size_t i = 0; i < segments.size(); i++) {
    const DeviceSegment& s = segments[i];
    const int32_t queries = s.rows * group, chunk_positions = kChunkPages * tokens_per_page(s.block_length);
    const bool wide = queries >= kWideRows;
    const int32_t step = wide ? kWideRows : kFragmentRows;
    for (int32_t first = 0; first < queries; first += step) {
      const int32_t last_row = (first + step < queries ? first + step - 1 : queries - 1) / group;
      const int32_t chunks = ceil_div(visible_end(s.position + last_row, s.block_length), chunk_positions);
      AttentionItem item{static_cast<int32_t>(i), first, 0, chunks, -1};
      if (wide) {
        plan.wide.push_back(item);
      } else if (chunks == 1 || plan.partials + chunks > max_partials) {
        plan.narrow.push_back(item);
      } else {
        plan.merges.push_back({item.segment, first, plan.partials, chunks});
        for (item.chunk = 0; item.chunk < chunks; item.chunk++) {
          item.chunk_end = item.chunk + 1;
          item.partial = plan.partials++;
          plan.narrow.push_back(item);
        }
      }
    }
  }
  return plan;
}

// A block of 16 token tiles is taken to need 1.15 times the half of one of 32, which loads a quarter less, and a round
// of blocks to last as long as one. From half of the GPU's multiprocessors busy on, that is faster than gemm's
// smaller blocks: expected, from 500 TFLOP/s of full rounds against the 190 to 300 of gemm, measured on an H200.
int32_t warpgroup_tiles(const DeviceMatrix& weight, int32_t tokens, int32_t multiprocessors) {
  if (tokens <= 64) return 0;
  constexpr double kWorthIt = 0.5;
  const int64_t row_blocks = ceil_div(weight.row_tiles(), 8);
  double best = kWorthIt;
  int32_t tiles = 0;
  for (const int32_t candidate : {16, 32}) {
    if (!warpgroup_takes(weight, candidate)) continue;
    const int64_t blocks = row_blocks * ceil_div(tokens, candidate * kTileTokens);
    const int64_t rounds = (blocks + multiprocessors - 1) / multiprocessors;
    const double seconds = static_cast<double>(rounds) * (candidate == 16 ? 1.15 : 2.0);
    const double busy = static_cast<double>(row_blocks) * tokens / 128.0 / (seconds * multiprocessors);
    if (busy >= best) best = busy, tiles = candidate;
  }
  // gemm is not asked for so many.
  return tiles == 0 && tokens > kMaxSplitTokens ? 16 : tiles;
}

}  // namespace sdar::cuda
