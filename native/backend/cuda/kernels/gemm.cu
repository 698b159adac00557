// y = activations·Wᵀ for 1 … 64 tokens, limited by reading the weights once, and for more where gemm_large.cu has too
// few blocks.
//
// A block of 4 warps takes 64 weight rows (128 above 32 tokens), all tokens and one part of the sum over k; parts are
// added by the block that finishes last, in ascending order. Activations are read again by every block, from L2.
//
// Bytes of a launch (as code: cost.h): weights row tiles · slabs · slab bytes, once; activations tokens · padded k · 2
// per row of blocks; with parts, 4 · 2 · parts · padded outputs · padded tokens.
// mma: row tiles · token tiles · padded k / 16, both rounded up to whole blocks.
// Share of peak: weights in flight per SM = blocks · (stages − 1) · 64 or 128 rows: 70 KB and more, where 3.35 TB/s ·
// 600 ns / 132 SMs = 15 KB are needed; shared memory moves (weights + 4 · activations) per stage, below its 128 bytes
// a clock while HBM gives 15; so what is lost is the first load and the last sums of a block: 85 to 90 % of bandwidth
// for matrices of 20 MB and more.
// Above 32 tokens a block holds sums of 128 rows · 64 tokens, and twice that with scales: one to three blocks.
// Occupancy: gemm<bf16, 1>: 128 threads, 36864 shared, 4 blocks on sm_80, 2 on sm_86, 5 on sm_90
// Occupancy: gemm<bf16, 2>: 128 threads, 40960 shared, 4 blocks on sm_80, 2 on sm_86, 5 on sm_90
// Occupancy: gemm<bf16, 4>: 128 threads, 49152 shared, 3 blocks on sm_80, 2 on sm_86, 4 on sm_90
// Occupancy: gemm<bf16, 8>: 128 threads, 73728 shared, 2 blocks on sm_80, 1 on sm_86, 3 on sm_90
// Occupancy: gemm<int8, 1>: 128 threads, 41984 shared, 3 blocks on sm_80, 2 on sm_86, 5 on sm_90
// Occupancy: gemm<int8, 2>: 128 threads, 50176 shared, 3 blocks on sm_80, 2 on sm_86, 4 on sm_90
// Occupancy: gemm<int8, 4>: 128 threads, 66560 shared, 2 blocks on sm_80, 1 on sm_86, 3 on sm_90
// Occupancy: gemm<int8, 8>: 128 threads, 99840 shared, 1 block on sm_80, 1 on sm_86, 2 on sm_90
// Occupancy: gemm<int4, 1>: 128 threads, 26624 shared, 5 blocks on sm_80, 3 on sm_86, 5 on sm_90
// Occupancy: gemm<int4, 2>: 128 threads, 34816 shared, 4 blocks on sm_80, 2 on sm_86, 5 on sm_90
// Occupancy: gemm<int4, 4>: 128 threads, 51200 shared, 3 blocks on sm_80, 1 on sm_86, 4 on sm_90
// Occupancy: gemm<int4, 8>: 128 threads, 76800 shared, 2 blocks on sm_80, 1 on sm_86, 2 on sm_90
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/gemm_epilogue.cuh"

namespace sdar::cuda {
namespace {

template <WeightFormat format, int token_tiles>
using Tile = SmallTile<format, token_tiles>;

/// Stores this block's part; true in the block that finishes last, which finds all of them.
template <class Tile>
SDAR_DEVICE bool leave_part(float* parts, uint32_t* ticket, int count, const typename Tile::Sums& sums) {
  constexpr int kCarriers = Tile::kRowTiles * Tile::kTokenTiles;
  float* own = parts + int64_t{block_index_z()} * kCarriers * Tile::kThreads * 4 + thread_index() * 4;
  SDAR_UNROLL
  for (int c = 0; c < kCarriers; c++) {
    const auto& v = sums[c / Tile::kTokenTiles][c % Tile::kTokenTiles];
    store_global<Floats4>(own + c * Tile::kThreads * 4, {{v[0], v[1], v[2], v[3]}});
  }
  const Shared<int> last = shared_memory<int>(0);
  sync_block();
  if (thread_index() == 0) {
    const bool is_last = take_ticket(ticket) == static_cast<uint32_t>(count - 1);
    if (is_last) store_global<uint32_t>(ticket, 0);  // for the next launch
    store_shared<int>(last, is_last);
  }
  sync_block();
  return load_shared<int>(last);
}

/// sums = start + p0 + p1 + …, in that order.
template <class Tile>
SDAR_DEVICE void add_parts(const float* parts, int count, typename Tile::Sums& sums) {
  constexpr int kCarriers = Tile::kRowTiles * Tile::kTokenTiles;
  for (int part = 0; part < count; part++) {
    const float* from = parts + int64_t{part} * kCarriers * Tile::kThreads * 4 + thread_index() * 4;
    SDAR_UNROLL
    for (int c = 0; c < kCarriers; c++) {
      const Floats4 p = load_global<Floats4>(from + c * Tile::kThreads * 4);
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) sums[c / Tile::kTokenTiles][c % Tile::kTokenTiles][i] += p.f[i];
    }
  }
}

template <WeightFormat format, int token_tiles>
SDAR_KERNEL(128, token_tiles == 8 ? 2 : 4, gemm, GemmParams a, int parts) {
  let_next_begin();
  using T = Tile<format, token_tiles>;
  const int slabs = a.weight.slabs(), padded = slabs * T::kSlabK, part = block_index_z();
  const GemmSource source = T::source(a.weight, a.activations, a.tokens);
  const int begin = split_begin(part, parts, padded) / T::kSlabK;
  const int end = split_begin(part + 1, parts, padded) / T::kSlabK;
  typename T::Sums sums;
  T::clear(sums);
  typename T::Ring ring;
  T::template start<true>(source, begin, end, ring);
  for (int i = 0; i < end - begin; i++) {
    T::multiply(ring, sums);
  }
  if (parts > 1) {
    const int place = block_index_y() * grid_size_x() + block_index_x();
    float* stored = a.partials + int64_t{place} * parts * T::kOutputs;
    if (!leave_part<T>(stored, a.tickets + place, parts, sums)) return;
    if (a.epilogue == Epilogue::add) {
      get_rows<T>(a, source, sums);
    } else {
      T::clear(sums);
    }
    add_parts<T>(stored, parts, sums);
  }
  put<T>(a, source, a.epilogue == Epilogue::add && parts == 1, sums);
}

template <WeightFormat format, int token_tiles>
void launch_tile(Stream stream, const GemmParams& args) {
  LaunchShape shape = Tile<format, token_tiles>::shape(stream, args.weight, args.tokens);
  shape.grid_z = args.weight.splits();
  shape.early = args.early;
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
