// Products of the rows of each expert with that expert's weight: gemm.cu's loop with one part of k. Blocks of experts
// without rows end at once, so that only the weights of experts that some token takes are read.
//
// Bytes and mma per expert with rows (as code: cost.h): those of gemm.cu. At 64 tokens of 30B-A3B nearly all 128
// experts have rows, 4 on average: 128 · 1536 · 2048 · 2 = 805 MB of gate_up per layer in bf16 for 64 · 8 rows, limited
// by HBM as gemm is; its blocks, 24 · 128, fill any card without parts of k: 85 to 90 % of bandwidth.
// Occupancy: gemm_grouped<bf16, 1>: 128 threads, 36864 shared, 4 blocks on sm_80, 2 on sm_86, 6 on sm_90
// Occupancy: gemm_grouped<bf16, 8>: 128 threads, 73728 shared, 2 blocks on sm_80, 1 on sm_86, 3 on sm_90
// Occupancy: gemm_grouped<int8, 1>: 128 threads, 41984 shared, 3 blocks on sm_80, 2 on sm_86, 5 on sm_90
// Occupancy: gemm_grouped<int8, 8>: 128 threads, 99840 shared, 1 block on sm_80, 1 on sm_86, 2 on sm_90
// Occupancy: gemm_grouped<int4, 1>: 128 threads, 26624 shared, 6 blocks on sm_80, 3 on sm_86, 7 on sm_90
// Occupancy: gemm_grouped<int4, 8>: 128 threads, 76800 shared, 2 blocks on sm_80, 1 on sm_86, 2 on sm_90
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm_epilogue.cuh"
#include "backend/cuda/kernels/moe.h"

namespace sdar::cuda {
namespace {

template <WeightFormat format, int token_tiles>
using Tile = SmallTile<format, token_tiles>;

template <WeightFormat format, int token_tiles>
SDAR_KERNEL(128, token_tiles == 8 ? 2 : 4, gemm_grouped, GroupedGemmParams g) {
  using T = Tile<format, token_tiles>;
  const int expert = block_index_z(), count = load_global_cached<int32_t>(g.count + expert);
  if (!in_range(block_index_x() * T::kBlockTokenTiles * kTileTokens, count)) return;
  const int begin = load_global_cached<int32_t>(g.begin + expert), slabs = g.shape.slabs(), padded = slabs * T::kSlabK;
  GemmParams a;
  a.weight = g.shape;
  a.tokens = count;
  a.out = g.out + int64_t{begin} * g.shape.rows;
  a.epilogue = g.epilogue;
  a.tiles = g.tiles + int64_t{begin} * padded_k(g.shape.outputs());
  GemmSource source = T::source(g.shape, g.activations + int64_t{begin} * padded, count);
  source.weights = load_global_cached<const uint8_t*>(g.weights + expert);
  typename T::Sums sums;
  T::clear(sums);
  typename T::Ring ring;
  T::start(source, 0, slabs, ring);
  for (int i = 0; i < slabs; i++) {
    T::multiply(ring, sums);
  }
  put<T>(a, source, false, sums);
}

template <WeightFormat format, int token_tiles>
void launch_tile(Stream stream, const GroupedGemmParams& args) {
  using T = Tile<format, token_tiles>;
  LaunchShape shape = T::shape(stream, args.shape, args.tokens);
  shape.grid_z = args.expert_count;
  SDAR_LAUNCH(shape, (gemm_grouped_kernel<format, token_tiles>), args);
}

/// Small blocks while an expert has few rows on average.
template <WeightFormat format>
void launch_format(Stream stream, const GroupedGemmParams& args) {
  const int64_t rows = int64_t{args.tokens} * args.top_k;
  if (rows <= int64_t{8} * args.expert_count) return launch_tile<format, 1>(stream, args);
  launch_tile<format, 8>(stream, args);
}

}  // namespace

void gemm_grouped(Stream stream, const GroupedGemmParams& args) {
  if (args.tokens == 0) return;
  with_format(args.shape.format, [&]<WeightFormat format>() { launch_format<format>(stream, args); });
}

}  // namespace sdar::cuda
