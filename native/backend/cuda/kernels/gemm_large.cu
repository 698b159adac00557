// y = activations·Wᵀ for many tokens (prefill, large batches): limited by the tensor cores.
//
// A block takes 128 weight rows and 128 tokens: 4 warps of 64 rows and 64 tokens, 8 of 64 and 32 where scales need
// registers too. It sums the parts of k one after the other and adds each to `out` as gemm.cu does, so that an element
// has the same bits in both. Blocks that share weight rows run side by side and find them in L2.
//
// Bytes of a launch (as code: cost.h): weights once per 128 tokens, activations once per 128 rows, both mostly from L2;
// `out` 4 bytes per element and part written, and read from the second part on (from the first for Epilogue::add).
// mma: row tiles · token tiles · padded k / 16, both rounded up to whole blocks.
// Share of peak: of a piece (32 k) a bf16 warp loads 8 KB for 64 mma; a block's 32 KB of shared memory traffic per 64 k
// take 512 clocks and its copies 256, beside 758 of mma.sync on sm_90. From L2 a block takes 32 KB per 64 k, 6 TB/s at
// 400 TFLOP/s: L2 is the limit on sm_90. Measured on an H200 with gate_up of SDAR-4B: 322 to 352 TFLOP/s at 2048
// tokens, 50 to 55 % of what mma.sync reaches there. Sums and, with scales, those of a group fill the registers.
// Occupancy: gemm_large<bf16>: 128 threads, 98304 shared, 1 block on sm_80, 1 on sm_86, 2 on sm_90
// Occupancy: gemm_large<int8>: 256 threads, 99328 shared, 1 block on sm_80, 1 on sm_86, 1 on sm_90
// Occupancy: gemm_large<int4>: 256 threads, 83968 shared, 1 block on sm_80, 1 on sm_86, 1 on sm_90
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/gemm_epilogue.cuh"

namespace sdar::cuda {
namespace {

template <WeightFormat format>
using Tile = std::conditional_t<is_quantised(format), GemmTile<format, 2, 4, 4, 4, 2>, GemmTile<format, 2, 2, 4, 8, 3>>;
constexpr int threads_of(WeightFormat format) { return is_quantised(format) ? 256 : 128; }

template <WeightFormat format>
SDAR_KERNEL(threads_of(format), is_quantised(format) ? 1 : 2, gemm_large, GemmParams a) {
  let_next_begin();
  using T = Tile<format>;
  const int slabs = a.weight.slabs(), parts = a.weight.splits(), padded = slabs * T::kSlabK;
  const GemmSource source = T::source(a.weight, a.activations, a.tokens);
  typename T::Sums sums;
  T::clear(sums);
  typename T::Ring ring;
  T::template start<true>(source, 0, slabs, ring);
  int part = 0, part_end = split_begin(1, parts, padded) / T::kSlabK;
  for (int i = 0; i < slabs; i++) {
    T::multiply(ring, sums);
    if (i + 1 < part_end) continue;
    put<T>(a, source, a.epilogue == Epilogue::add || part > 0, sums);  // silu·mul has one part
    T::clear(sums);
    part++;
    part_end = split_begin(part + 1, parts, padded) / T::kSlabK;
  }
}

template <WeightFormat format>
void launch_format(Stream stream, const GemmParams& args) {
  using T = Tile<format>;
  LaunchShape shape = T::shape(stream, args.weight, args.tokens);
  shape.early = args.early;
  SDAR_LAUNCH(shape, gemm_large_kernel<format>, args);
}

}  // namespace

void gemm_large(Stream stream, const GemmParams& args) {
  if (args.tokens == 0) return;
  with_format(args.weight.format, [&]<WeightFormat format>() { launch_format<format>(stream, args); });
}

}  // namespace sdar::cuda
