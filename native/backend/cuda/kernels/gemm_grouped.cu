// GEMM of the rows of each expert with that expert's weight: gemm.cu's loop without split-K. Blocks of experts without
// rows end at once, so that only the weights of experts that some token takes are read. Tokens may crowd on few experts:
// those of more than 8 rows are left to a second launch, whose blocks take 64 of them.
//
// At 64 tokens of 30B-A3B nearly all 128 experts have rows, 4 on average: 128 · 1536 · 2048 · 2 = 805 MB of gate_up per
// layer in bf16 for 64 · 8 rows, limited by HBM as gemm is; its blocks, 24 · 128, fill any device without split-K: 85 to
// 90 % of bandwidth.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm_epilogue.cuh"
#include "backend/cuda/kernels/moe.h"

namespace sdar::cuda {
namespace {

template <WeightFormat format, int token_tiles>
SDAR_KERNEL(128, token_tiles == 8 ? 2 : 4, gemm_grouped, GroupedGemmParams g) {
  using T = SmallTile<format, token_tiles>;
  const int expert = block_index_z(), count = load_global_cached<int32_t>(g.count + expert);
  if ((count > kTileTokens) != (token_tiles > 1)) return;  // the other launch's
  if (!in_range(block_index_x() * T::kBlockTokenTiles * kTileTokens, count)) return;
  const int begin = load_global_cached<int32_t>(g.begin + expert), k_tiles = g.shape.k_tiles(),
            padded = k_tiles * T::kTileK;
  GemmParams a;
  a.weight = g.shape;
  a.tokens = count;
  a.out = g.out + int64_t{begin} * g.shape.rows;
  a.epilogue = g.epilogue;
  a.tiles = g.tiles + int64_t{begin} * padded_k(g.shape.outputs());
  GemmSource source = T::source(g.shape, g.activations + int64_t{begin} * padded, count);
  source.weights = load_global_cached<const uint8_t*>(g.weights + expert);
  typename T::Accumulators acc;
  T::clear(acc);
  typename T::Pipeline pipe;
  T::start(source, 0, k_tiles, pipe);
  for (int i = 0; i < k_tiles; i++) {
    T::multiply(pipe, acc);
  }
  put<T>(a, source, false, acc);
}

/// `tokens`: rows of an expert at most.
template <int token_tiles>
void launch_tiles(Stream stream, const GroupedGemmParams& args, int32_t tokens) {
  with_format(args.shape.format, [&]<WeightFormat format>() {
    LaunchShape shape = SmallTile<format, token_tiles>::shape(stream, args.shape, tokens);
    shape.grid_z = args.expert_count;
    SDAR_LAUNCH(shape, (gemm_grouped_kernel<format, token_tiles>), args);
  });
}

}  // namespace

void gemm_grouped(Stream stream, const GroupedGemmParams& args) {
  if (args.tokens > 0) launch_tiles<1>(stream, args, 1);
}

void gemm_grouped_wide(Stream stream, const GroupedGemmParams& args) {
  if (args.tokens > kTileTokens) launch_tiles<8>(stream, args, args.tokens);
}

}  // namespace sdar::cuda
