// y = activations·Wᵀ for many tokens (prefill, large batches): limited by the tensor cores.
//
// A block of 8 warps takes 128 weight rows and 128 tokens, a warp 64 rows and 32 tokens. It sums the parts of k one
// after the other and adds each to `out` as gemm.cu does, so that an element has the same bits in both. Blocks that
// share weight rows run side by side and find them in L2.
//
// Bytes of a launch (as code: cost.h): weights once per 128 tokens, activations once per 128 rows, both mostly from L2;
// `out` 4 bytes per element and part written, and read from the second part on (from the first for Epilogue::add).
// mma: row tiles · token tiles · padded k / 16, both rounded up to whole blocks.
// Share of peak: of a piece (32 k) a warp loads 4 · 1 KB of bf16 weights and 4 · 512 bytes of activations for 32 mma; a
// block 48 KB in 384 clocks of shared memory for 256 mma, which the tensor cores of an A100 take 512 clocks for and
// those of an H100, by this instruction, 256: 85 % of 312 TFLOP/s on sm_80 (less int8's and int4's conversion,
// 2 and 1.5 instructions per pair of weights and 32 tokens), 60 % of mma.sync's peak on sm_90.
// Sums and, with scales, those of a group fill the registers: one block.
// Occupancy: gemm_large<bf16>: 256 threads, 98304 shared, 1 block on sm_80, 1 on sm_86, 1 on sm_90
// Occupancy: gemm_large<int8>: 256 threads, 99328 shared, 1 block on sm_80, 1 on sm_86, 1 on sm_90
// Occupancy: gemm_large<int4>: 256 threads, 83968 shared, 1 block on sm_80, 1 on sm_86, 1 on sm_90
#include "backend/cuda/device.cuh"
#include "backend/cuda/gemm.h"
#include "backend/cuda/gemm_epilogue.cuh"

namespace sdar::cuda {
namespace {

template <WeightFormat format>
using Tile = GemmTile<format, 2, 4, 4, 4, format == WeightFormat::bf16 ? 3 : 2>;

template <WeightFormat format>
SDAR_KERNEL(256, 1, gemm_large, GemmArgs a) {
  using T = Tile<format>;
  const int slabs = a.weight.slabs(), parts = a.weight.splits(), padded = slabs * T::kSlabK;
  const GemmSource source{a.weight.data,
                          a.activations,
                          a.weight.row_tiles(),
                          slabs,
                          a.tokens,
                          block_index_y() * T::kBlockRowTiles,
                          block_index_x() * T::kBlockTokenTiles};
  typename T::Sums sums;
  T::clear(sums);
  T::start(source, 0, slabs);
  int part = 0, part_end = split_begin(1, parts, padded) / T::kSlabK;
  for (int i = 0; i < slabs; i++) {
    T::advance(source, 0, slabs, i);
    T::multiply(i % T::kStages, sums);
    if (i + 1 < part_end) continue;
    if (a.epilogue == Epilogue::silu_mul) {  // has one part
      put_silu<T>(a, source, sums);
    } else {
      put_rows<T>(a, source, a.epilogue == Epilogue::add || part > 0, sums);
    }
    T::clear(sums);
    part++;
    part_end = split_begin(part + 1, parts, padded) / T::kSlabK;
  }
}

template <WeightFormat format>
void launch_format(Stream stream, const GemmArgs& args) {
  using T = Tile<format>;
  const LaunchShape shape{.grid_x = ceil_div(args.tokens, T::kBlockTokenTiles * kTileTokens),
                          .grid_y = ceil_div(args.weight.row_tiles(), T::kBlockRowTiles),
                          .threads = T::kThreads,
                          .shared_bytes = T::kSharedBytes,
                          .stream = stream};
  SDAR_LAUNCH(shape, gemm_large_kernel<format>, args);
}

}  // namespace

void gemm_large(Stream stream, const GemmArgs& args) {
  if (args.tokens == 0) return;
  switch (args.weight.format) {
    case WeightFormat::int8:
      return launch_format<WeightFormat::int8>(stream, args);
    case WeightFormat::int4:
      return launch_format<WeightFormat::int4>(stream, args);
    default:
      return launch_format<WeightFormat::bf16>(stream, args);
  }
}

}  // namespace sdar::cuda
