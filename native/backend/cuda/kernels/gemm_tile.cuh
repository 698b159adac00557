// One block's part of activations·Wᵀ: slabs and activations come through a ring of stages in shared memory, weights
// become bf16 in registers, mma.m16n8k16 sums in f32. Layouts: layout.h. Used by gemm.cu, gemm_large.cu and head.cu;
// the copies also by gemm_warpgroup.cu.
//
// An element's sum is that of its instructions in ascending k, whatever the tile: neither the number of tokens nor the
// block's shape shows in it. With int8 and int4 weights the integers (exact in bf16) are summed per group of columns
// and each group's sum is then multiplied by its scale in f32.
#pragma once
#include <type_traits>

#include "backend/cuda/kernels/computed_here.cuh"
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/layout.h"

namespace sdar::cuda {

/// launch.operator()<format>() for the format that a matrix is held in.
template <class Launch>
void with_format(WeightFormat format, Launch launch) {
  switch (format) {
    case WeightFormat::int8:
      return launch.template operator()<WeightFormat::int8>();
    case WeightFormat::int4:
      return launch.template operator()<WeightFormat::int4>();
    default:
      return launch.template operator()<WeightFormat::bf16>();
  }
}

/// What a block multiplies.
struct GemmSource {
  const uint8_t* weights;       ///< slabs
  const uint16_t* activations;  ///< tiles
  int row_tiles, slabs;         ///< of the matrix; slabs of one row tile
  int tokens;
  int first_row_tile, first_token_tile;  ///< of the block
};

/// A block of kWarpsN · kWarpsM warps; a warp takes kRowTiles · 16 weight rows and kTokenTiles · 8 tokens. Of the
/// ring's stages `ahead` are under way while one is multiplied.
template <WeightFormat format, int kWarpsN, int kWarpsM, int row_tiles, int token_tiles, int stages,
          int ahead = stages - 1>
struct GemmTile {
  static constexpr WeightFormat kFormat = format;
  static constexpr int kRowTiles = row_tiles, kTokenTiles = token_tiles, kStages = stages, kAhead = ahead;
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
  using RowSums = float[kTokenTiles][4];
  using Sums = RowSums[kRowTiles];

  /// First row tile and token tile of this warp in the block.
  SDAR_DEVICE static int warp_row_tile() { return warp_index() % kWarpsN * kRowTiles; }
  SDAR_DEVICE static int warp_token_tile() { return warp_index() / kWarpsN * kTokenTiles; }

  /// Blocks of tokens along x, of weight rows along y.
  static LaunchShape shape(Stream stream, const DeviceMatrix& weight, int32_t tokens) {
    return {.grid_x = ceil_div(tokens, kBlockTokenTiles * kTileTokens),
            .grid_y = ceil_div(weight.row_tiles(), kBlockRowTiles),
            .threads = kThreads,
            .shared_bytes = kSharedBytes,
            .stream = stream};
  }
  /// This block's of such a launch.
  SDAR_DEVICE static GemmSource source(const DeviceMatrix& weight, const uint16_t* activations, int tokens) {
    return {weight.data,
            activations,
            weight.row_tiles(),
            weight.slabs(),
            tokens,
            block_index_y() * kBlockRowTiles,
            block_index_x() * kBlockTokenTiles};
  }

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

  /// A thread's share of the copies, from the slab that comes next.
  struct Ring {
    const uint8_t* weights;
    const uint16_t* activations;
    int weight_stride, activation_stride;  ///< bytes, elements: from one of the thread's tiles to its next
    uint32_t exist;                        ///< a bit per tile of the thread: of rows from 0, of tokens from 16
    int left;                              ///< slabs that were not asked for
    int stage;                             ///< that is multiplied next
  };

  /// The ring's first stages are asked for: slabs begin, begin + 1, …. Of an `early` launch
  /// weights are asked for before it waits for the launches before.
  template <bool early = false>
  SDAR_DEVICE static void start(const GemmSource& s, int begin, int end, Ring& ring) {
    const int thread = thread_index(), lane = lane_index();
    const int row_tile = s.first_row_tile + warp_index(), token_tile = s.first_token_tile + thread / kSlabK;
    ring.weights = s.weights + (int64_t{row_tile} * s.slabs + begin) * kSlabBytes + lane * 16;
    ring.weight_stride = kWarps * s.slabs * kSlabBytes;
    ring.exist = 0;
    SDAR_UNROLL
    for (int i = 0; i < kRowTilesOfWarp; i++) {
      if (in_range(row_tile + i * kWarps, s.row_tiles)) ring.exist |= 1u << i;
    }
    const int pieces = s.slabs * kPieces;
    ring.activations = s.activations + (int64_t{token_tile} * pieces + begin * kPieces) * (kTileTokens * kPieceK) +
                       thread % kSlabK * 8;
    ring.activation_stride = kThreads / kSlabK * pieces * (kTileTokens * kPieceK);
    SDAR_UNROLL
    for (int i = 0; i < kTokenTilesOfThread; i++) {
      const int tile = token_tile + i * (kThreads / kSlabK);
      if (in_range(tile * kTileTokens + lane / 4, s.tokens)) ring.exist |= 0x10000u << i;
    }
    ring.left = end - begin;
    ring.stage = 0;
    // Weights do not come from an earlier launch. A part has kPadK at least.
    SDAR_UNROLL
    for (int i = 0; i < kAhead; i++) {
      if (i < kPadK / kSlabK || in_range(i, ring.left)) copy_weights(ring, i, i * kSlabBytes);
    }
    if (early) wait_for_launches();
    SDAR_UNROLL
    for (int i = 0; i < kAhead; i++) {
      if (i < kPadK / kSlabK || in_range(0, ring.left)) copy_activations(ring, i);
      advance(ring);
    }
  }

  /// Adds the products of the next slab and asks for one more.
  SDAR_DEVICE static void multiply(Ring& ring, Sums& sums) {
    cp_async_wait<kAhead - 1>();
    sync_block();  // the stage is here for all; the one before it has been used by all
    if constexpr (kScaled) {
      if (in_range(0, ring.left)) copy_next(ring);
      add_scaled(ring.stage, sums);
    } else {
      add_bf16(ring, sums);
    }
    advance(ring);
    take_next(ring);
  }

 protected:
  static constexpr int kRowTilesOfWarp = kBlockRowTiles / kWarps;
  static constexpr int kTokenTilesOfThread = ceil_div(kBlockTokenTiles * kSlabK, kThreads);
  static constexpr int kTokenPairs = ceil_div(kTokenTiles, 2);
  static_assert(kThreads % kSlabK == 0 && kRowTilesOfWarp <= 16 && kTokenTilesOfThread <= 16);

  /// The stage that the next slab to be asked for goes to.
  SDAR_DEVICE static int next_stage(const Ring& ring) {
    const int stage = ring.stage + kAhead;
    return stage >= kStages ? stage - kStages : stage;
  }
  SDAR_DEVICE static void copy_next(const Ring& ring) {
    copy_weights(ring, next_stage(ring));
    copy_activations(ring, next_stage(ring));
  }
  SDAR_DEVICE static void take_next(Ring& ring) { ring.stage = ring.stage + 1 == kStages ? 0 : ring.stage + 1; }
  SDAR_DEVICE static void advance(Ring& ring) {
    ring.weights += kSlabBytes;
    ring.activations += kPieces * kTileTokens * kPieceK;
    ring.left--;
    cp_async_commit();
  }

  /// Of 8 rows or tokens of 64 bytes, where the 16 bytes lie that are the lane's in memory: moved within a row, so that
  /// the same 16 bytes of 8 rows, which ldmatrix reads at once, lie in different banks.
  SDAR_DEVICE static int place(int lane) { return lane ^ (lane / 8 % 4); }

  /// `further`: bytes past the slab that comes next.
  SDAR_DEVICE static void copy_weights(const Ring& ring, int stage, int further = 0) {
    const int thread = computed_here(thread_index()), lane = thread % kWarp, to_lane = kScaled ? lane : place(lane);
    const Shared<uint8_t> to = shared_memory<uint8_t>(stage * kStageBytes + thread / kWarp * kSlabBytes + to_lane * 16);
    SDAR_UNROLL
    for (int i = 0; i < kRowTilesOfWarp; i++) {
      const uint8_t* from = ring.weights + i * ring.weight_stride + further;
      SDAR_UNROLL
      for (int c = 0; c < ceil_div(kSlabBytes / 16, kWarp); c++) {
        if (kSlabBytes / 16 % kWarp != 0 && !in_range(c * kWarp + lane, kSlabBytes / 16)) break;
        cp_async_16(to + (i * kWarps * kSlabBytes + c * kWarp * 16), from + c * kWarp * 16, ring.exist >> i & 1);
      }
    }
  }
  SDAR_DEVICE static void copy_activations(const Ring& ring, int stage) {
    const int thread = computed_here(thread_index()), lane = thread % kWarp;
    const Shared<uint8_t> to =
        shared_memory<uint8_t>(stage * kStageBytes + kWeightBytes + (thread - lane + place(lane)) * 16);
    SDAR_UNROLL
    for (int i = 0; i < kTokenTilesOfThread; i++) {
      if (kBlockTokenTiles * kSlabK % kThreads != 0 && !in_range(i * kThreads + thread, kBlockTokenTiles * kSlabK))
        break;
      cp_async_16(to + i * kThreads * 16, ring.activations + i * ring.activation_stride, ring.exist >> (16 + i) & 1);
    }
  }

  /// The tokens' fragments of an instruction, 16 k.
  using TokenFragments = uint32_t[kTokenTiles][2];
  /// What this lane names to ldmatrix of the first piece's instruction 0 or 1: of bf16 weights a row of the warp's
  /// first row tile.
  SDAR_DEVICE static Shared<uint8_t> weight_row(int stage, int instruction) {
    const int lane = computed_here(lane_index()), row = lane % 8, matrix = lane / 8;
    return shared_memory<uint8_t>(stage * kStageBytes + warp_row_tile() * kSlabBytes + matrix % 2 * 512 + row * 64 +
                                  (2 * instruction + matrix / 2 ^ row / 2) * 16);
  }
  /// Of tokens a row of the warp's first tile or, where there are more, of the second.
  SDAR_DEVICE static Shared<uint8_t> token_row(int stage, int instruction) {
    const int lane = computed_here(lane_index()), row = lane % 8, matrix = lane / 8;
    const int tile = warp_token_tile() + (kTokenTiles == 1 ? 0 : matrix / 2);
    return shared_memory<uint8_t>(stage * kStageBytes + kWeightBytes + tile * kTokenTileBytes + row * 64 +
                                  (2 * instruction + matrix % 2 ^ row / 2) * 16);
  }
  /// Of tiles 2 · pair and 2 · pair + 1.
  SDAR_DEVICE static void load_tokens(Shared<uint8_t> row, int piece, int pair, TokenFragments& b) {
    if constexpr (kTokenTiles == 1) {
      ldmatrix_x2(b[0], row + piece * 512);
    } else {
      uint32_t two[4];
      ldmatrix_x4(two, row + (pair * 2 * kTokenTileBytes + piece * 512));
      b[2 * pair][0] = two[0], b[2 * pair][1] = two[1];
      b[2 * pair + 1][0] = two[2], b[2 * pair + 1][1] = two[3];
    }
  }

  /// Fragments are loaded one instruction ahead, the next slab is asked for in between. ldmatrix gives the four
  /// registers of an instruction side by side; two 16-byte loads would have to be shuffled by moves, two for each mma.
  SDAR_DEVICE static void add_bf16(const Ring& ring, Sums& sums) {
    const Shared<uint8_t> weights[2] = {weight_row(ring.stage, 0), weight_row(ring.stage, 1)};
    const Shared<uint8_t> tokens[2] = {token_row(ring.stage, 0), token_row(ring.stage, 1)};
    constexpr int kInstructions = kPieces * 2, kSteps = kInstructions * kRowTiles;
    const bool more = in_range(0, ring.left);
    uint32_t a[2][4];
    TokenFragments b[2];
    SDAR_UNROLL
    for (int pair = 0; pair < kTokenPairs; pair++) load_tokens(tokens[0], 0, pair, b[0]);
    ldmatrix_x4(a[0], weights[0]);
    SDAR_UNROLL
    for (int step = 0; step < kSteps; step++) {
      const int k = step / kRowTiles, r = step % kRowTiles, next = step + 1, next_k = next / kRowTiles;
      if (next < kSteps) {
        ldmatrix_x4(a[next % 2], weights[next_k % 2] + (next % kRowTiles * kSlabBytes + next_k / 2 * 1024));
      }
      if (k + 1 < kInstructions) {
        SDAR_UNROLL
        for (int pair = r * kTokenPairs / kRowTiles; pair < (r + 1) * kTokenPairs / kRowTiles; pair++) {
          load_tokens(tokens[(k + 1) % 2], (k + 1) / 2, pair, b[(k + 1) % 2]);
        }
      }
      SDAR_UNROLL
      for (int t = 0; t < kTokenTiles; t++) mma_m16n8k16_bf16(sums[r][t], a[step % 2], b[k % 2][t]);
      if (step == 0 && more) copy_weights(ring, next_stage(ring));
      if (step == kSteps / 2 && more) copy_activations(ring, next_stage(ring));
    }
  }

  /// Of int8 and int4 weights: the lane's part of the warp's first row tile.
  SDAR_DEVICE static Shared<uint8_t> weights_of_lane(int stage) {
    return shared_memory<uint8_t>(stage * kStageBytes + warp_row_tile() * kSlabBytes +
                                  computed_here(lane_index()) * kLaneBytes);
  }
  /// The integers' products of each group, then their scale.
  SDAR_DEVICE static void add_scaled(int stage, Sums& sums) {
    const Shared<uint8_t> weights = weights_of_lane(stage);
    const Shared<uint8_t> tokens[2] = {token_row(stage, 0), token_row(stage, 1)};
    constexpr int kGroups = kSlabK / group_k(kFormat), kGroupPieces = kPieces / kGroups;
    // The sums of two groups at once would be too many registers.
    SDAR_NO_UNROLL
    for (int index = 0; index < kGroups; index++) {
      Sums group;
      clear(group);
      SDAR_UNROLL
      for (int i = 0; i < kGroupPieces; i++) {
        const int piece = index * kGroupPieces + i;
        TokenFragments b[2];
        SDAR_UNROLL
        for (int j = 0; j < 2 * kTokenPairs; j++) load_tokens(tokens[j % 2], piece, j / 2, b[j % 2]);
        SDAR_UNROLL
        for (int r = 0; r < kRowTiles; r++) {
          uint32_t a[2][4];
          fragments(weights + r * kSlabBytes, piece, a);
          SDAR_UNROLL
          for (int t = 0; t < kTokenTiles; t++) {
            SDAR_UNROLL
            for (int j = 0; j < 2; j++) mma_m16n8k16_bf16(group[r][t], a[j], b[j][t]);
          }
        }
      }
      SDAR_UNROLL
      for (int r = 0; r < kRowTiles; r++) add_group(scales(stage, index, r), group[r], sums[r]);
    }
  }

  /// Of the lane's rows g and g + 8 in the warp's row tile r.
  SDAR_DEVICE static Floats2 scales(int stage, int index, int r) {
    const Shared<float> low =
        shared_memory<float>(stage * kStageBytes + (warp_row_tile() + r) * kSlabBytes + slab_data_bytes(kFormat) +
                             (index * kTileRows + lane_index() / 4) * 4);
    return {{load_shared<float>(low), load_shared<float>(low + 8)}};
  }
  /// sums += group · scale of each row.
  SDAR_DEVICE static void add_group(const Floats2& scales, const RowSums& group, RowSums& sums) {
    SDAR_UNROLL
    for (int t = 0; t < kTokenTiles; t++) {
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) sums[t][i] = fused(scales.f[i / 2], group[t][i], sums[t][i]);
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
    if constexpr (kFormat == WeightFormat::int8) {
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

/// Of blocks of 4 warps and token_tiles · 8 tokens: 64 weight rows, 128 of them above 32 tokens. There two warps share
/// the tokens, where registers allow: a warp of 64 rows and 32 tokens loads a quarter less than one of 32 rows and 64.
template <WeightFormat format, int token_tiles>
using SmallTile = std::conditional_t<
    token_tiles == 8,
    std::conditional_t<is_quantised(format), GemmTile<format, 4, 1, 2, 8, 3>, GemmTile<format, 2, 2, 4, 4, 3>>,
    GemmTile<format, 4, 1, 1, token_tiles, 4>>;

}  // namespace sdar::cuda
