// y = activations·Wᵀ for 1 … 64 tokens, limited by reading the weights once, and for more where gemm_large.cu has too
// few blocks.
//
// Split-K: a block of 4 warps takes 64 weight rows (128 above 32 tokens), all tokens and one split of k; the block that
// finishes last adds the partial sums in ascending order. Activations are read again by every block, from L2.
//
// Share of peak: weights in flight per SM = blocks · (stages − 1) · 64 or 128 rows: 70 KB and more, where 3.35 TB/s ·
// 600 ns / 132 SMs = 15 KB are needed; shared memory moves (weights + 4 · activations) per stage, below its 128 bytes
// a clock while HBM gives 15; so what is lost is the first load and the epilogue of a block: 85 to 90 % of bandwidth
// for matrices of 20 MB and more.
// Above 32 tokens a block accumulates 128 rows · 64 tokens, and twice that with scales: one to three blocks per SM.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/gemm_epilogue.cuh"

namespace sdar::cuda {
namespace {

/// Stores this block's partial sums; true in the block that finishes last, which finds all of them.
template <class Tile>
SDAR_DEVICE bool store_partial(float* partials, uint32_t* counter, int count, const typename Tile::Accumulators& acc) {
  constexpr int kCarriers = Tile::kRowTiles * Tile::kTokenTiles;
  float* own = partials + int64_t{block_index_z()} * kCarriers * Tile::kThreads * 4 + thread_index() * 4;
  SDAR_UNROLL
  for (int c = 0; c < kCarriers; c++) {
    const auto& v = acc[c / Tile::kTokenTiles][c % Tile::kTokenTiles];
    store_global<Floats4>(own + c * Tile::kThreads * 4, {{v[0], v[1], v[2], v[3]}});
  }
  const Shared<int> last = shared_memory<int>(0);
  sync_block();
  if (thread_index() == 0) {
    const bool is_last = count_arrival(counter) == static_cast<uint32_t>(count - 1);
    if (is_last) store_global<uint32_t>(counter, 0);  // for the next launch
    store_shared<int>(last, is_last);
  }
  sync_block();
  return load_shared<int>(last);
}

/// acc = start + p0 + p1 + …, in that order.
template <class Tile>
SDAR_DEVICE void add_partials(const float* partials, int count, typename Tile::Accumulators& acc) {
  constexpr int kCarriers = Tile::kRowTiles * Tile::kTokenTiles;
  for (int split = 0; split < count; split++) {
    const float* from = partials + int64_t{split} * kCarriers * Tile::kThreads * 4 + thread_index() * 4;
    SDAR_UNROLL
    for (int c = 0; c < kCarriers; c++) {
      const Floats4 p = load_global<Floats4>(from + c * Tile::kThreads * 4);
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) acc[c / Tile::kTokenTiles][c % Tile::kTokenTiles][i] += p.f[i];
    }
  }
}

template <WeightFormat format, int token_tiles>
SDAR_KERNEL(128, token_tiles == 8 ? 2 : 4, gemm, GemmParams a, int splits) {
  pdl_trigger();
  using T = SmallTile<format, token_tiles>;
  const int k_tiles = a.weight.k_tiles(), padded = k_tiles * T::kTileK, split = block_index_z();
  const GemmSource source = T::source(a.weight, a.activations, a.tokens);
  const int begin = split_begin(split, splits, padded) / T::kTileK;
  const int end = split_begin(split + 1, splits, padded) / T::kTileK;
  typename T::Accumulators acc;
  T::clear(acc);
  typename T::Pipeline pipe;
  T::template start<true>(source, begin, end, pipe);
  for (int i = 0; i < end - begin; i++) {
    T::multiply(pipe, acc);
  }
  if (splits > 1) {
    const int place = block_index_y() * grid_size_x() + block_index_x();
    float* stored = a.partials + int64_t{place} * splits * T::kOutputs;
    if (!store_partial<T>(stored, a.counters + place, splits, acc)) return;
    if (a.epilogue == Epilogue::add) {
      load_out<T>(a, source, acc);
    } else {
      T::clear(acc);
    }
    add_partials<T>(stored, splits, acc);
  }
  put<T>(a, source, a.epilogue == Epilogue::add && splits == 1, acc);
}

template <WeightFormat format, int token_tiles>
void launch_tile(Stream stream, const GemmParams& args) {
  LaunchShape shape = SmallTile<format, token_tiles>::shape(stream, args.weight, args.tokens);
  shape.grid_z = args.weight.splits();
  shape.pdl = args.pdl;
  SDAR_LAUNCH(shape, (gemm_kernel<format, token_tiles>), args, args.weight.splits());
}

template <WeightFormat format>
void launch_format(Stream stream, const GemmParams& args) {
  switch (gemm_token_tiles(args.tokens)) {
    case 1:
      return launch_tile<format, 1>(stream, args);
    case 2:
      return launch_tile<format, 2>(stream, args);
    case 4:
      return launch_tile<format, 4>(stream, args);
    default:
      return launch_tile<format, 8>(stream, args);
  }
}

}  // namespace

void gemm(Stream stream, const GemmParams& args) {
  if (args.tokens == 0) return;
  with_format(args.weight.format, [&]<WeightFormat format>() { launch_format<format>(stream, args); });
}

}  // namespace sdar::cuda
