// y = activations·Wᵀ for many tokens on sm_90 (H100, H200): wgmma, limited by the tensor cores.
//
// A block takes 128 weight rows and 128 or 256 tokens. Each of its two warpgroups multiplies 64 rows, whose fragments
// it loads into registers as mma.sync does, by the tokens, which wgmma reads from shared memory itself: the layout
// there is wgmma's 64-byte swizzle as it stands (layout.h, GemmTile::place). A slab of bf16 is asked for while the
// products of the one before are still under way; with scales a group's products are awaited, while the other warpgroup
// multiplies. Parts of k are added in registers.
//
// wgmma and mma.sync give the same bits on sm_90: a sum of 16 products and the one before, of 25 fractional bits,
// rounded once (github.com/microsoft/MMA-Sim, checked on cards). products_agree.h makes sure of it on the card at hand
// before this kernel takes any product.
//
// Bytes of a launch (as code: cost.h): weights once per 128 or 256 tokens, activations once per 128 rows, both mostly
// from L2; `out` 4 bytes per element written, and read for Epilogue::add.
// mma (of 16 rows, 8 tokens, 16 k): row tiles · token tiles · padded k / 16, both rounded up to whole blocks.
// Share of peak, not measured yet: of 64 k a block of 256 tokens takes 1024 clocks of the tensor cores, in which its
// shared memory moves 48 KB in, 16 KB of weights out and 32 KB of tokens out per warpgroup: 128 KB, the whole of its
// 128 bytes a clock. 48 KB per 4.2 million products are 7 TB/s from L2 at 600 TFLOP/s; a block of 128 tokens takes a
// third more. 400 to 600 TFLOP/s are expected, against 300 to 350 of gemm_large.
// Occupancy: gemm_warpgroup<bf16, 16, 0>: 256 threads, 131072 shared, 0 blocks on sm_80, 0 on sm_86, 1 on sm_90
// Occupancy: gemm_warpgroup<bf16, 16, 1>: 256 threads, 131072 shared, 0 blocks on sm_80, 0 on sm_86, 1 on sm_90
// Occupancy: gemm_warpgroup<bf16, 32, 0>: 256 threads, 196608 shared, 0 blocks on sm_80, 0 on sm_86, 1 on sm_90
// Occupancy: gemm_warpgroup<int8, 16, 0>: 256 threads, 198656 shared, 0 blocks on sm_80, 0 on sm_86, 1 on sm_90
// Occupancy: gemm_warpgroup<int8, 16, 1>: 256 threads, 198656 shared, 0 blocks on sm_80, 0 on sm_86, 1 on sm_90
// Occupancy: gemm_warpgroup<int4, 16, 0>: 256 threads, 167936 shared, 0 blocks on sm_80, 0 on sm_86, 1 on sm_90
// Occupancy: gemm_warpgroup<int4, 16, 1>: 256 threads, 167936 shared, 0 blocks on sm_80, 0 on sm_86, 1 on sm_90
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/gemm_epilogue.cuh"

namespace sdar::cuda {
namespace {

/// Eight warps, two warpgroups, of 16 rows each; all tokens of the block. The ring of bf16 has one more stage: its slab
/// is still being multiplied when the next one is taken up.
template <WeightFormat format, int token_tiles>
struct Tile : GemmTile<format, 8, 1, 1, token_tiles, 4, is_quantised(format) ? 3 : 2> {
  using Base = GemmTile<format, 8, 1, 1, token_tiles, 4, is_quantised(format) ? 3 : 2>;
  using typename Base::Ring;
  using typename Base::RowSums;
  static_assert(Base::kStageBytes % 512 == 0 && Base::kWeightBytes % 512 == 0);

  /// The tokens of 16 k of a stage.
  SDAR_DEVICE static TokenOperand tokens(int stage, int instruction) {
    return token_operand(shared_memory<uint8_t>(stage * Base::kStageBytes + Base::kWeightBytes + instruction / 2 * 512 +
                                                instruction % 2 * 32),
                         Base::kTokenTileBytes);
  }

  /// The next slab is here for all, and all have waited for the products before the latest.
  SDAR_DEVICE static void meet() {
    cp_async_wait<Base::kAhead - 1>();
    fence_for_warpgroup_mma();
    sync_block();
  }

  /// The products of the next slab, of which those of the slab before may still be under way; `a` is not theirs.
  SDAR_DEVICE static void multiply_bf16(Ring& ring, uint32_t (&a)[4][4], RowSums& sums) {
    meet();
    SDAR_UNROLL
    for (int k = 0; k < 4; k++) ldmatrix_x4(a[k], Base::weight_row(ring.stage, k % 2) + k / 2 * 1024);
    warpgroup_fence();
    SDAR_UNROLL
    for (int k = 0; k < 4; k++) warpgroup_mma(sums, a[k], tokens(ring.stage, k), true);
    warpgroup_commit();
    if (in_range(0, ring.left)) Base::copy_next(ring);
    Base::advance(ring);
    Base::take_next(ring);
    warpgroup_wait<1>();
  }

  /// Adds the products of the next slab, each group's by its scales.
  SDAR_DEVICE static void multiply_scaled(Ring& ring, RowSums& group, RowSums& sums) {
    meet();
    if (in_range(0, ring.left)) Base::copy_next(ring);
    const Shared<uint8_t> weights = Base::weights_of_lane(ring.stage);
    constexpr int kGroups = Base::kSlabK / group_k(format), kGroupPieces = Base::kPieces / kGroups;
    uint32_t a[2][2][4];
    SDAR_UNROLL
    for (int index = 0; index < kGroups; index++) {
      SDAR_UNROLL
      for (int i = 0; i < kGroupPieces; i++) {
        const int piece = index * kGroupPieces + i;
        Base::fragments(weights, piece, a[piece % 2]);
        warpgroup_fence();
        SDAR_UNROLL
        for (int j = 0; j < 2; j++)
          warpgroup_mma(group, a[piece % 2][j], tokens(ring.stage, piece * 2 + j), i > 0 || j > 0);
        warpgroup_commit();
        if (i + 1 < kGroupPieces) warpgroup_wait<1>();  // the other fragments are free
      }
      const Floats2 scales = Base::scales(ring.stage, index, 0);
      warpgroup_wait_all(group);
      Base::add_group(scales, group, sums);
    }
    Base::advance(ring);
    Base::take_next(ring);
  }
};

template <WeightFormat format, int token_tiles, int split>
SDAR_KERNEL(256, 1, gemm_warpgroup, GemmParams a) {
  if constexpr (!kWarpgroups) return;
  let_next_begin();
  using T = Tile<format, token_tiles>;
  const int slabs = a.weight.slabs(), parts = a.weight.splits(), padded = slabs * T::kSlabK;
  const GemmSource source = T::source(a.weight, a.activations, a.tokens);
  typename T::Ring ring;
  T::template start<true>(source, 0, slabs, ring);
  typename T::Sums sums, total;
  if (split) {
    if (a.epilogue == Epilogue::add) {
      get_rows<T>(a, source, total);
    } else {
      T::clear(total);
    }
  }
  int slab = 0;
  const auto multiply_until = [&](int end) {
    T::clear(sums);  // from +0 on, as mma.sync: a sum of zeros keeps its sign
    if constexpr (T::kScaled) {
      typename T::RowSums group;
      for (; slab < end; slab++) T::multiply_scaled(ring, group, sums[0]);
    } else {
      uint32_t fragments[2][4][4];
      for (; slab < end; slab += 2) {  // two slabs are 128 k: a part has whole pairs
        T::multiply_bf16(ring, fragments[0], sums[0]);
        T::multiply_bf16(ring, fragments[1], sums[0]);
      }
      warpgroup_wait_all(sums[0]);
    }
  };
  if constexpr (split) {
    for (int part = 0; part < parts; part++) {
      multiply_until(split_begin(part + 1, parts, padded) / T::kSlabK);
      SDAR_UNROLL
      for (int t = 0; t < token_tiles; t++) {
        SDAR_UNROLL
        for (int i = 0; i < 4; i++) total[0][t][i] += sums[0][t][i];
      }
    }
  } else {
    multiply_until(slabs);
  }
  if (split) {
    put_rows<T>(a, source, false, total);
  } else {
    put<T>(a, source, a.epilogue == Epilogue::add, sums);
  }
}

template <WeightFormat format, int token_tiles, int split>
void launch_tile(Stream stream, const GemmParams& args) {
  using T = Tile<format, token_tiles>;
  LaunchShape shape = T::shape(stream, args.weight, args.tokens);
  shape.early = args.early;
  SDAR_LAUNCH(shape, (gemm_warpgroup_kernel<format, token_tiles, split>), args);
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
