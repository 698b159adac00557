// y = activations·Wᵀ for many tokens (prefill, large batches): limited by the tensor cores.
//
// A block takes 128 weight rows and 128 tokens: 4 warps of 64 rows and 64 tokens, 8 of 64 and 32 where scales need
// registers too. It computes the splits of k one after the other and adds each to `out` as gemm.cu does, so that an
// element has the same bits in both. Blocks that share weight rows run side by side and find them in L2.
//
// Share of peak: of a slice (32 k) a bf16 warp loads 8 KB for 64 mma; a block's 32 KB of shared memory traffic per 64 k
// take 512 clocks and its copies 256, beside 758 of mma.sync on sm_90. From L2 a block takes 32 KB per 64 k, 6 TB/s at
// 400 TFLOP/s: L2 is the limit on sm_90. Measured on an H200 with gate_up of SDAR-4B: 322 to 352 TFLOP/s at 2048
// tokens, 50 to 55 % of what mma.sync reaches there. Accumulators and, with scales, those of a group fill the registers.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/gemm_epilogue.cuh"

namespace sdar::cuda {
namespace {

constexpr TileConfig tile_config(WeightFormat format) {
  if (is_quantised(format))
    return {.row_warps = 2, .token_warps = 4, .row_tiles = 4, .token_tiles = 4, .stages = 2, .in_flight = 1};
  return {.row_warps = 2, .token_warps = 2, .row_tiles = 4, .token_tiles = 8, .stages = 3, .in_flight = 2};
}
template <WeightFormat format>
using Tile = GemmTile<format, tile_config(format)>;
constexpr int threads_of(WeightFormat format) { return is_quantised(format) ? 256 : 128; }

template <WeightFormat format>
SDAR_KERNEL(threads_of(format), is_quantised(format) ? 1 : 2, gemm_large, GemmParams a) {
  pdl_trigger();
  using T = Tile<format>;
  const int k_tiles = a.weight.k_tiles(), splits = a.weight.splits(), padded = k_tiles * T::kTileK;
  const GemmSource source = T::source(a.weight, a.activations, a.tokens);
  typename T::Accumulators acc;
  T::clear(acc);
  typename T::Pipeline pipe;
  T::template start<true>(source, 0, k_tiles, pipe);
  int split = 0, part_end = split_begin(1, splits, padded) / T::kTileK;
  for (int i = 0; i < k_tiles; i++) {
    T::multiply(pipe, acc);
    if (i + 1 < part_end) continue;
    put<T>(a, source, a.epilogue == Epilogue::add || split > 0, acc);  // silu·mul has one split
    T::clear(acc);
    split++;
    part_end = split_begin(split + 1, splits, padded) / T::kTileK;
  }
}

template <WeightFormat format>
void launch_format(Stream stream, const GemmParams& args) {
  using T = Tile<format>;
  LaunchShape shape = T::shape(stream, args.weight, args.tokens);
  shape.pdl = args.pdl;
  SDAR_LAUNCH(shape, gemm_large_kernel<format>, args);
}

}  // namespace

void gemm_large(Stream stream, const GemmParams& args) {
  if (args.tokens == 0) return;
  with_format(args.weight.format, [&]<WeightFormat format>() { launch_format<format>(stream, args); });
}

}  // namespace sdar::cuda
