// y = activations·Wᵀ for many tokens on sm_90 (H100, H200): warpgroup MMA, limited by the tensor cores.
//
// A block takes 128 weight rows and 128 or 256 tokens. Each of its two warpgroups multiplies 64 rows, whose fragments
// it loads into registers as mma.sync does, by the tokens, which wgmma reads from shared memory itself: the layout
// there is wgmma's 64-byte swizzle as it stands (layout.h, GemmTile::swizzle). A k-tile of bf16 is issued while the MMA
// of the one before is still in flight; with scales a group's MMA is awaited, while the other warpgroup multiplies.
// Splits of k are added in registers.
//
// wgmma and mma.sync give the same bits on sm_90: a sum of 16 products and the one before, of 25 fractional bits,
// rounded once (github.com/microsoft/MMA-Sim, checked on devices). The backend verifies that on the device at hand
// before this kernel takes any matmul.
//
// Share of peak, not measured yet: of 64 k a block of 256 tokens takes 1024 clocks of the tensor cores, in which its
// shared memory moves 48 KB in, 16 KB of weights out and 32 KB of tokens out per warpgroup: 128 KB, the whole of its
// 128 bytes a clock. 48 KB per 4.2 million multiply-adds are 7 TB/s from L2 at 600 TFLOP/s; a block of 128 tokens takes
// a third more. 400 to 600 TFLOP/s are expected, against 300 to 350 of gemm_large.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/gemm_epilogue.cuh"

namespace sdar::cuda {
namespace {

/// Eight warps, two warpgroups, of 16 rows each; all tokens of the block. The pipeline of bf16 has one more stage: its
/// k-tile is still being multiplied when the next one is taken up.
constexpr TileConfig tile_config(WeightFormat format, int token_tiles) {
  return {.row_warps = 8,
          .token_warps = 1,
          .row_tiles = 1,
          .token_tiles = token_tiles,
          .stages = 4,
          .in_flight = is_quantised(format) ? 3 : 2};
}
template <WeightFormat format, int token_tiles>
struct Tile : GemmTile<format, tile_config(format, token_tiles)> {
  using Base = GemmTile<format, tile_config(format, token_tiles)>;
  using typename Base::Pipeline;
  using typename Base::RowAccumulators;
  static_assert(Base::kStageBytes % 512 == 0 && Base::kWeightBytes % 512 == 0);

  /// The tokens of 16 k of a stage.
  SDAR_DEVICE static TokenOperand tokens(int stage, int instruction) {
    return token_operand(shared_memory<uint8_t>(stage * Base::kStageBytes + Base::kWeightBytes + instruction / 2 * 512 +
                                                instruction % 2 * 32),
                         Base::kTokenTileBytes);
  }

  /// The next k-tile is here for all, and all have waited for the MMA before the latest.
  SDAR_DEVICE static void meet() {
    cp_async_wait<Base::kInFlight - 1>();
    fence_for_warpgroup_mma();
    sync_block();
  }

  /// Multiplies the next k-tile; the MMA of the one before may still be in flight, `a` is not its.
  SDAR_DEVICE static void multiply_bf16(Pipeline& pipe, uint32_t (&a)[4][4], RowAccumulators& acc) {
    meet();
    SDAR_UNROLL
    for (int k = 0; k < 4; k++) ldmatrix_x4(a[k], Base::weight_row(pipe.stage, k % 2) + k / 2 * 1024);
    warpgroup_fence();
    SDAR_UNROLL
    for (int k = 0; k < 4; k++) warpgroup_mma(acc, a[k], tokens(pipe.stage, k), true);
    warpgroup_commit();
    if (in_range(0, pipe.left)) Base::copy_next(pipe);
    Base::advance(pipe);
    Base::take_next(pipe);
    warpgroup_wait<1>();
  }

  /// Multiplies the next k-tile, each group by its scales.
  SDAR_DEVICE static void multiply_scaled(Pipeline& pipe, RowAccumulators& group, RowAccumulators& acc) {
    meet();
    if (in_range(0, pipe.left)) Base::copy_next(pipe);
    const Shared<uint8_t> weights = Base::weights_of_lane(pipe.stage);
    constexpr int kGroups = Base::kTileK / group_k(format), kGroupSlices = Base::kSlices / kGroups;
    uint32_t a[2][2][4];
    SDAR_UNROLL
    for (int index = 0; index < kGroups; index++) {
      SDAR_UNROLL
      for (int i = 0; i < kGroupSlices; i++) {
        const int slice = index * kGroupSlices + i;
        Base::fragments(weights, slice, a[slice % 2]);
        warpgroup_fence();
        SDAR_UNROLL
        for (int j = 0; j < 2; j++)
          warpgroup_mma(group, a[slice % 2][j], tokens(pipe.stage, slice * 2 + j), i > 0 || j > 0);
        warpgroup_commit();
        if (i + 1 < kGroupSlices) warpgroup_wait<1>();  // the other fragments are free
      }
      const Floats2 scales = Base::scales(pipe.stage, index, 0);
      warpgroup_wait_all(group);
      Base::add_group(scales, group, acc);
    }
    Base::advance(pipe);
    Base::take_next(pipe);
  }
};

template <WeightFormat format, int token_tiles, int has_splits>
SDAR_KERNEL(256, 1, gemm_warpgroup, GemmParams a) {
  if constexpr (!kWarpgroups) return;
  pdl_trigger();
  using T = Tile<format, token_tiles>;
  const int k_tiles = a.weight.k_tiles(), splits = a.weight.splits(), padded = k_tiles * T::kTileK;
  const GemmSource source = T::source(a.weight, a.activations, a.tokens);
  typename T::Pipeline pipe;
  T::template start<true>(source, 0, k_tiles, pipe);
  typename T::Accumulators acc, total;
  if (has_splits) {
    if (a.epilogue == Epilogue::add) {
      load_out<T>(a, source, total);
    } else {
      T::clear(total);
    }
  }
  int k_tile = 0;
  const auto multiply_until = [&](int end) {
    T::clear(acc);  // from +0 on, as mma.sync: a sum of zeros keeps its sign
    if constexpr (T::kScaled) {
      typename T::RowAccumulators group;
      for (; k_tile < end; k_tile++) T::multiply_scaled(pipe, group, acc[0]);
    } else {
      uint32_t fragments[2][4][4];
      for (; k_tile < end; k_tile += 2) {  // two k-tiles are 128 k: a split has whole pairs
        T::multiply_bf16(pipe, fragments[0], acc[0]);
        T::multiply_bf16(pipe, fragments[1], acc[0]);
      }
      warpgroup_wait_all(acc[0]);
    }
  };
  if constexpr (has_splits) {
    for (int split = 0; split < splits; split++) {
      multiply_until(split_begin(split + 1, splits, padded) / T::kTileK);
      SDAR_UNROLL
      for (int t = 0; t < token_tiles; t++) {
        SDAR_UNROLL
        for (int i = 0; i < 4; i++) total[0][t][i] += acc[0][t][i];
      }
    }
  } else {
    multiply_until(k_tiles);
  }
  if (has_splits) {
    store_out<T>(a, source, false, total);
  } else {
    put<T>(a, source, a.epilogue == Epilogue::add, acc);
  }
}

template <WeightFormat format, int token_tiles, int has_splits>
void launch_tile(Stream stream, const GemmParams& args) {
  using T = Tile<format, token_tiles>;
  LaunchShape shape = T::shape(stream, args.weight, args.tokens);
  shape.pdl = args.pdl;
  SDAR_LAUNCH(shape, (gemm_warpgroup_kernel<format, token_tiles, has_splits>), args);
}

template <WeightFormat format>
void launch_format(Stream stream, const GemmParams& args) {
  if (args.weight.splits() > 1) return launch_tile<format, 16, 1>(stream, args);
  if constexpr (!is_quantised(format)) {
    if (args.token_tiles == 32) return launch_tile<format, 32, 0>(stream, args);
  }
  launch_tile<format, 16, 0>(stream, args);
}

}  // namespace

void gemm_warpgroup(Stream stream, const GemmParams& args) {
  if (args.tokens == 0) return;
  with_format(args.weight.format, [&]<WeightFormat format>() { launch_format<format>(stream, args); });
}

}  // namespace sdar::cuda
