// One block's part of activations·Wᵀ: slabs and activations come through a ring of stages in shared memory, weights
// become bf16 in registers, mma.m16n8k16 sums in f32. Layouts: layout.h. Used by gemm.cu, gemm_large.cu and head.cu.
//
// An element's sum is that of its instructions in ascending k, whatever the tile: neither the number of tokens nor the
// block's shape shows in it. With int8 and int4 weights the integers (exact in bf16) are summed per group of columns
// and each group's sum is then multiplied by its scale in f32.
#pragma once
#include "backend/cuda/computed_here.cuh"
#include "backend/cuda/device.cuh"
#include "backend/cuda/gemm.h"
#include "backend/cuda/layout.h"

namespace sdar::cuda {

/// What a block multiplies.
struct GemmSource {
  const uint8_t* weights;       ///< slabs
  const uint16_t* activations;  ///< tiles
  int row_tiles, slabs;         ///< of the matrix; slabs of one row tile
  int tokens;
  int first_row_tile, first_token_tile;  ///< of the block
};

/// A block of kWarpsN · kWarpsM warps; a warp takes kRowTiles · 16 weight rows and kTokenTiles · 8 tokens.
template <WeightFormat format, int kWarpsN, int kWarpsM, int row_tiles, int token_tiles, int stages>
struct GemmTile {
  static constexpr WeightFormat kFormat = format;
  static constexpr int kRowTiles = row_tiles, kTokenTiles = token_tiles, kStages = stages;
  static constexpr int kWarps = kWarpsN * kWarpsM, kThreads = kWarp * kWarps;
  static constexpr int kBlockRowTiles = kWarpsN * kRowTiles, kBlockTokenTiles = kWarpsM * kTokenTiles;
  static constexpr int kSlabK = slab_k(kFormat), kPieces = kSlabK / kPieceK;
  static constexpr int kSlabBytes = slab_bytes(kFormat);
  static constexpr int kTokenTileBytes = kTileTokens * kSlabK * 2;
  static constexpr int kWeightBytes = kBlockRowTiles * kSlabBytes;
  static constexpr int kStageBytes = kWeightBytes + kBlockTokenTiles * kTokenTileBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static_assert(kBlockRowTiles % kWarps == 0);
  static constexpr int kOutputs = kBlockRowTiles * kTileRows * kBlockTokenTiles * kTileTokens;
  static constexpr int kLaneBytes = format == WeightFormat::int4 ? 8 : 16;  ///< that a lane loads at once
  static constexpr bool kScaled = is_quantised(kFormat);

  /// Of lane 4g + t: rows g, g, g + 8, g + 8 and tokens 2t, 2t + 1, 2t, 2t + 1 of each tile.
  using Sums = float[kRowTiles][kTokenTiles][4];

  /// First row tile and token tile of this warp in the block.
  SDAR_DEVICE static int warp_row_tile() { return warp_index() % kWarpsN * kRowTiles; }
  SDAR_DEVICE static int warp_token_tile() { return warp_index() / kWarpsN * kTokenTiles; }

  SDAR_DEVICE static void clear(Sums& sums) {
    SDAR_UNROLL
    for (int r = 0; r < kRowTiles; r++) {
      SDAR_UNROLL
      for (int t = 0; t < kTokenTiles; t++) {
        SDAR_UNROLL
        for (int i = 0; i < 4; i++) sums[r][t][i] = 0;
      }
    }
  }

  /// Asks for slab `slab` of the block's row tiles and the activations that go with it.
  SDAR_DEVICE static void load_stage(const GemmSource& s, int stage, int slab) {
    const Shared<uint8_t> to = shared_memory<uint8_t>(stage * kStageBytes);
    const int thread = computed_here(thread_index()), warp = thread / kWarp, lane = thread % kWarp;
    SDAR_UNROLL
    for (int i = 0; i < kBlockRowTiles / kWarps; i++) {
      const int tile = i * kWarps + warp;
      const bool exists = in_range(s.first_row_tile + tile, s.row_tiles);
      const uint8_t* from = s.weights + (int64_t{s.first_row_tile + tile} * s.slabs + slab) * kSlabBytes;
      SDAR_UNROLL
      for (int c = 0; c < ceil_div(kSlabBytes / 16, kWarp); c++) {
        const int piece = c * kWarp + lane;
        if (kSlabBytes / 16 % kWarp != 0 && !in_range(piece, kSlabBytes / 16)) break;
        cp_async_16(to + (tile * kSlabBytes + piece * 16), from + piece * 16, exists);
      }
    }
    const int pieces = s.slabs * kPieces;
    SDAR_UNROLL
    for (int i = 0; i < ceil_div(kBlockTokenTiles * kSlabK, kThreads); i++) {
      const int c = i * kThreads + thread;
      if (kBlockTokenTiles * kSlabK % kThreads != 0 && !in_range(c, kBlockTokenTiles * kSlabK)) break;
      const int tile = s.first_token_tile + c / kSlabK, within = c % kSlabK;
      const uint16_t* from = s.activations + (int64_t{tile} * pieces + slab * kPieces) * (kTileTokens * kPieceK);
      cp_async_16(to + (kWeightBytes + c * 16), from + within * 8,
                  in_range(tile * kTileTokens + within % kWarp / 4, s.tokens));
    }
  }

  /// The ring's first stages are asked for: slabs begin, begin + 1, ….
  SDAR_DEVICE static void start(const GemmSource& s, int begin, int end) {
    SDAR_UNROLL
    for (int i = 0; i < kStages - 1; i++) {
      if (i < kPadK / kSlabK || in_range(begin + i, end)) load_stage(s, i, begin + i);  // a part has kPadK at least
      cp_async_commit();
    }
  }
  /// Waits for the stage of slab begin + i and asks for the one that takes the place of slab begin + i − 1.
  SDAR_DEVICE static void advance(const GemmSource& s, int begin, int end, int i) {
    cp_async_wait<kStages - 2>();
    sync_block();  // the stage is here for all; the one before it has been used by all
    const int next = i + kStages - 1;
    if (in_range(begin + next, end)) load_stage(s, next % kStages, begin + next);
    cp_async_commit();
  }

  /// Adds the products of one stage.
  SDAR_DEVICE static void multiply(int stage, Sums& sums) {
    const Shared<uint8_t> weights =
        shared_memory<uint8_t>(stage * kStageBytes + warp_row_tile() * kSlabBytes + lane_index() * kLaneBytes);
    const Shared<uint8_t> tokens = shared_memory<uint8_t>(stage * kStageBytes + kWeightBytes +
                                                          warp_token_tile() * kTokenTileBytes + lane_index() * 16);
    Sums group;
    if (kScaled) clear(group);
    SDAR_UNROLL
    for (int piece = 0; piece < kPieces; piece++) {
      Words4 b[kTokenTiles];
      SDAR_UNROLL
      for (int t = 0; t < kTokenTiles; t++) b[t] = load_shared<Words4>(tokens + (t * kTokenTileBytes + piece * 512));
      SDAR_UNROLL
      for (int r = 0; r < kRowTiles; r++) {
        uint32_t a[2][4];
        fragments(weights + r * kSlabBytes, piece, a);
        SDAR_UNROLL
        for (int t = 0; t < kTokenTiles; t++) {
          SDAR_UNROLL
          for (int i = 0; i < 2; i++) {
            const uint32_t tokens_of[2] = {b[t].w[2 * i], b[t].w[2 * i + 1]};
            mma_m16n8k16_bf16(kScaled ? group[r][t] : sums[r][t], a[i], tokens_of);
          }
        }
      }
      if (kScaled && (piece + 1) % (group_k(kFormat) / kPieceK) == 0) {
        add_group(stage, (piece + 1) / (group_k(kFormat) / kPieceK) - 1, group, sums);
        clear(group);
      }
    }
  }

 private:
  /// sums += group · scale of each row.
  SDAR_DEVICE static void add_group(int stage, int index, const Sums& group, Sums& sums) {
    SDAR_UNROLL
    for (int r = 0; r < kRowTiles; r++) {
      const Shared<float> scales =
          shared_memory<float>(stage * kStageBytes + (warp_row_tile() + r) * kSlabBytes + slab_data_bytes(kFormat) +
                               (index * kTileRows + lane_index() / 4) * 4);
      const float low = load_shared<float>(scales), high = load_shared<float>(scales + 8);
      SDAR_UNROLL
      for (int t = 0; t < kTokenTiles; t++) {
        SDAR_UNROLL
        for (int i = 0; i < 4; i++) sums[r][t][i] = fused(i < 2 ? low : high, group[r][t][i], sums[r][t][i]);
      }
    }
  }

  /// Two bytes of `q`, at bits shift and shift + 16, two's complement, as bf16 (exact): the low 7 bits above 128, minus
  /// 128 or, when negative, 256.
  SDAR_DEVICE static uint32_t int8_pair(uint32_t q, int shift) {
    return fma_bf16x2(and_or(q >> shift, 0x007f007fu, 0x43004300u), 0x3f803f80u,
                      and_or(q >> shift, 0x00800080u, 0xc300c300u));
  }

  /// The fragments of a piece's two instructions; `slab` points at this lane's part of the first.
  SDAR_DEVICE static void fragments(Shared<uint8_t> slab, int piece, uint32_t (&a)[2][4]) {
    if constexpr (kFormat == WeightFormat::bf16) {
      const Words4 low = load_shared<Words4>(slab + piece * 1024),
                   high = load_shared<Words4>(slab + piece * 1024 + 512);
      SDAR_UNROLL
      for (int i = 0; i < 2; i++) {
        a[i][0] = low.w[2 * i], a[i][1] = high.w[2 * i], a[i][2] = low.w[2 * i + 1], a[i][3] = high.w[2 * i + 1];
      }
    } else if constexpr (kFormat == WeightFormat::int8) {
      const Words4 q = load_shared<Words4>(slab + piece * 512);
      SDAR_UNROLL
      for (int i = 0; i < 2; i++) {
        a[i][0] = int8_pair(q.w[i], 0), a[i][1] = int8_pair(q.w[2 + i], 0);
        a[i][2] = int8_pair(q.w[i], 8), a[i][3] = int8_pair(q.w[2 + i], 8);
      }
    } else {
      const Words2 q = load_shared<Words2>(slab + piece * 256);
      SDAR_UNROLL
      for (int i = 0; i < 2; i++) {
        a[i][0] = int4_pair_to_bf16(q.w[0], 8 * i), a[i][1] = int4_pair_to_bf16(q.w[1], 8 * i);
        a[i][2] = int4_pair_to_bf16(q.w[0], 8 * i + 4), a[i][3] = int4_pair_to_bf16(q.w[1], 8 * i + 4);
      }
    }
  }
};

}  // namespace sdar::cuda
