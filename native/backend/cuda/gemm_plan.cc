#include <cstdint>

#include "backend/cuda/kernels/gemm.h"

namespace sdar::cuda {

// A block of 16 token tiles is taken to need 1.15 times the half of one of 32, which loads a quarter less, and a round
// of blocks to last as long as one. From half of the card's multiprocessors busy on, that is faster than gemm's
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
