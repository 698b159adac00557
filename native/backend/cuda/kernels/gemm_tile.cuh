// One block's share of activations·Wᵀ: a pipeline of k-tiles in shared memory, weights become bf16 in registers,
// mma.m16n8k16 accumulates in f32. Layouts: layout.h. Used by gemm.cu, gemm_large.cu, gemm_grouped.cu and lm_head.cu;
// the copies also by gemm_warpgroup.cu.
//
// An element's sum is that of its instructions in ascending k, whatever the tile: neither the number of tokens nor the
// block's shape shows in it. With int8 and int4 weights the integers (exact in bf16) are summed per group of columns
// and each group's sum is then multiplied by its scale in f32.
#pragma once
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
  const uint8_t* weights;       ///< weight tiles
  const uint16_t* activations;  ///< tiles
  int row_tiles, k_tiles;       ///< of the matrix
  int tokens;
  int first_row_tile, first_token_tile;  ///< of the block
};

struct TileConfig {
  int row_warps, token_warps;  ///< warps of a block, along weight rows and tokens
  int row_tiles, token_tiles;  ///< of a warp: of 16 weight rows, of 8 tokens
  int stages;                  ///< of the pipeline
  int in_flight;               ///< of these, while one is multiplied
};

template <WeightFormat format, TileConfig config>
struct GemmTile {
  static constexpr WeightFormat kFormat = format;
  static constexpr int kRowTiles = config.row_tiles, kTokenTiles = config.token_tiles;
  static constexpr int kStages = config.stages, kInFlight = config.in_flight;
  static constexpr int kWarps = config.row_warps * config.token_warps, kThreads = kWarp * kWarps;
  static constexpr int kBlockRowTiles = config.row_warps * kRowTiles;
  static constexpr int kBlockTokenTiles = config.token_warps * kTokenTiles;
  static constexpr int kTileK = weight_tile_k(kFormat), kSlices = kTileK / kSliceK;
  static constexpr int kWeightTileBytes = weight_tile_bytes(kFormat);
  static constexpr int kTokenTileBytes = kTileTokens * kTileK * 2;
  static constexpr int kWeightBytes = kBlockRowTiles * kWeightTileBytes;
  static constexpr int kStageBytes = kWeightBytes + kBlockTokenTiles * kTokenTileBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static_assert(kBlockRowTiles % kWarps == 0);
  static constexpr int kOutputs = kBlockRowTiles * kTileRows * kBlockTokenTiles * kTileTokens;
  static constexpr int kLaneBytes = format == WeightFormat::int4 ? 8 : 16;  ///< that a lane loads at once
  static constexpr bool kScaled = is_quantised(kFormat);

  /// Of lane 4g + t: rows g, g, g + 8, g + 8 and tokens 2t, 2t + 1, 2t, 2t + 1 of each tile.
  using RowAccumulators = float[kTokenTiles][4];
  using Accumulators = RowAccumulators[kRowTiles];

  /// First row tile and token tile of this warp in the block.
  SDAR_DEVICE static int warp_row_tile() { return warp_index() % config.row_warps * kRowTiles; }
  SDAR_DEVICE static int warp_token_tile() { return warp_index() / config.row_warps * kTokenTiles; }

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
            weight.k_tiles(),
            tokens,
            block_index_y() * kBlockRowTiles,
            block_index_x() * kBlockTokenTiles};
  }

  SDAR_DEVICE static void clear(Accumulators& acc) {
    SDAR_UNROLL
    for (int r = 0; r < kRowTiles; r++) {
      SDAR_UNROLL
      for (int t = 0; t < kTokenTiles; t++) {
        SDAR_UNROLL
        for (int i = 0; i < 4; i++) acc[r][t][i] = 0;
      }
    }
  }

  /// A thread's share of the copies, from the k-tile that is issued next.
  struct Pipeline {
    const uint8_t* weights;
    const uint16_t* activations;
    int weight_stride, activation_stride;  ///< bytes, elements: from one of the thread's tiles to its next
    uint32_t exist;                        ///< a bit per tile of the thread: of rows from 0, of tokens from 16
    int left;                              ///< k-tiles that are not issued yet
    int stage;                             ///< that is multiplied next
  };

  /// Issues the first stages: k-tiles begin, begin + 1, …. With `pdl`, weights are issued before pdl_wait.
  template <bool pdl = false>
  SDAR_DEVICE static void start(const GemmSource& s, int begin, int end, Pipeline& pipe) {
    const int thread = thread_index(), lane = lane_index();
    const int row_tile = s.first_row_tile + warp_index(), token_tile = s.first_token_tile + thread / kTileK;
    pipe.weights = s.weights + (int64_t{row_tile} * s.k_tiles + begin) * kWeightTileBytes + lane * 16;
    pipe.weight_stride = kWarps * s.k_tiles * kWeightTileBytes;
    pipe.exist = 0;
    SDAR_UNROLL
    for (int i = 0; i < kRowTilesOfWarp; i++) {
      if (in_range(row_tile + i * kWarps, s.row_tiles)) pipe.exist |= 1u << i;
    }
    const int slices = s.k_tiles * kSlices;
    pipe.activations = s.activations + (int64_t{token_tile} * slices + begin * kSlices) * (kTileTokens * kSliceK) +
                       thread % kTileK * 8;
    pipe.activation_stride = kThreads / kTileK * slices * (kTileTokens * kSliceK);
    SDAR_UNROLL
    for (int i = 0; i < kTokenTilesOfThread; i++) {
      const int tile = token_tile + i * (kThreads / kTileK);
      if (in_range(tile * kTileTokens + lane / 4, s.tokens)) pipe.exist |= 0x10000u << i;
    }
    pipe.left = end - begin;
    pipe.stage = 0;
    // Weights do not come from an earlier launch. A split has kPadK at least.
    SDAR_UNROLL
    for (int i = 0; i < kInFlight; i++) {
      if (i < kPadK / kTileK || in_range(i, pipe.left)) copy_weights(pipe, i, i * kWeightTileBytes);
    }
    if (pdl) pdl_wait();
    SDAR_UNROLL
    for (int i = 0; i < kInFlight; i++) {
      if (i < kPadK / kTileK || in_range(0, pipe.left)) copy_activations(pipe, i);
      advance(pipe);
    }
  }

  /// Multiplies the next k-tile and issues one more.
  SDAR_DEVICE static void multiply(Pipeline& pipe, Accumulators& acc) {
    cp_async_wait<kInFlight - 1>();
    sync_block();  // the stage is here for all; the one before it has been used by all
    if constexpr (kScaled) {
      if (in_range(0, pipe.left)) copy_next(pipe);
      add_scaled(pipe.stage, acc);
    } else {
      add_bf16(pipe, acc);
    }
    advance(pipe);
    take_next(pipe);
  }

 protected:
  static constexpr int kRowTilesOfWarp = kBlockRowTiles / kWarps;
  static constexpr int kTokenTilesOfThread = ceil_div(kBlockTokenTiles * kTileK, kThreads);
  static constexpr int kTokenPairs = ceil_div(kTokenTiles, 2);
  static_assert(kThreads % kTileK == 0 && kRowTilesOfWarp <= 16 && kTokenTilesOfThread <= 16);

  /// The stage that the k-tile issued next goes to.
  SDAR_DEVICE static int next_stage(const Pipeline& pipe) {
    const int stage = pipe.stage + kInFlight;
    return stage >= kStages ? stage - kStages : stage;
  }
  SDAR_DEVICE static void copy_next(const Pipeline& pipe) {
    copy_weights(pipe, next_stage(pipe));
    copy_activations(pipe, next_stage(pipe));
  }
  SDAR_DEVICE static void take_next(Pipeline& pipe) { pipe.stage = pipe.stage + 1 == kStages ? 0 : pipe.stage + 1; }
  SDAR_DEVICE static void advance(Pipeline& pipe) {
    pipe.weights += kWeightTileBytes;
    pipe.activations += kSlices * kTileTokens * kSliceK;
    pipe.left--;
    cp_async_commit();
  }

  /// Of 8 rows or tokens of 64 bytes, where the 16 bytes lie that are the lane's in memory: moved within a row, so that
  /// the same 16 bytes of 8 rows, which ldmatrix reads at once, lie in different banks.
  SDAR_DEVICE static int swizzle(int lane) { return lane ^ (lane / 8 % 4); }

  /// `further`: bytes past the weight tile that is issued next.
  SDAR_DEVICE static void copy_weights(const Pipeline& pipe, int stage, int further = 0) {
    const int thread = opaque(thread_index()), lane = thread % kWarp, to_lane = kScaled ? lane : swizzle(lane);
    const Shared<uint8_t> to =
        shared_memory<uint8_t>(stage * kStageBytes + thread / kWarp * kWeightTileBytes + to_lane * 16);
    SDAR_UNROLL
    for (int i = 0; i < kRowTilesOfWarp; i++) {
      const uint8_t* from = pipe.weights + i * pipe.weight_stride + further;
      SDAR_UNROLL
      for (int c = 0; c < ceil_div(kWeightTileBytes / 16, kWarp); c++) {
        if (kWeightTileBytes / 16 % kWarp != 0 && !in_range(c * kWarp + lane, kWeightTileBytes / 16)) break;
        cp_async_16(to + (i * kWarps * kWeightTileBytes + c * kWarp * 16), from + c * kWarp * 16, pipe.exist >> i & 1);
      }
    }
  }
  SDAR_DEVICE static void copy_activations(const Pipeline& pipe, int stage) {
    const int thread = opaque(thread_index()), lane = thread % kWarp;
    const Shared<uint8_t> to =
        shared_memory<uint8_t>(stage * kStageBytes + kWeightBytes + (thread - lane + swizzle(lane)) * 16);
    SDAR_UNROLL
    for (int i = 0; i < kTokenTilesOfThread; i++) {
      if (kBlockTokenTiles * kTileK % kThreads != 0 && !in_range(i * kThreads + thread, kBlockTokenTiles * kTileK))
        break;
      cp_async_16(to + i * kThreads * 16, pipe.activations + i * pipe.activation_stride, pipe.exist >> (16 + i) & 1);
    }
  }

  /// The tokens' fragments of an instruction, 16 k.
  using TokenFragments = uint32_t[kTokenTiles][2];
  /// What this lane names to ldmatrix of the first slice's instruction 0 or 1: of bf16 weights a row of the warp's
  /// first row tile.
  SDAR_DEVICE static Shared<uint8_t> weight_row(int stage, int instruction) {
    const int lane = opaque(lane_index()), row = lane % 8, matrix = lane / 8;
    return shared_memory<uint8_t>(stage * kStageBytes + warp_row_tile() * kWeightTileBytes + matrix % 2 * 512 +
                                  row * 64 + (2 * instruction + matrix / 2 ^ row / 2) * 16);
  }
  /// Of tokens a row of the warp's first tile or, where there are more, of the second.
  SDAR_DEVICE static Shared<uint8_t> token_row(int stage, int instruction) {
    const int lane = opaque(lane_index()), row = lane % 8, matrix = lane / 8;
    const int tile = warp_token_tile() + (kTokenTiles == 1 ? 0 : matrix / 2);
    return shared_memory<uint8_t>(stage * kStageBytes + kWeightBytes + tile * kTokenTileBytes + row * 64 +
                                  (2 * instruction + matrix % 2 ^ row / 2) * 16);
  }
  /// Of tiles 2 · pair and 2 · pair + 1.
  SDAR_DEVICE static void load_tokens(Shared<uint8_t> row, int slice, int pair, TokenFragments& b) {
    if constexpr (kTokenTiles == 1) {
      ldmatrix_x2(b[0], row + slice * 512);
    } else {
      uint32_t two[4];
      ldmatrix_x4(two, row + (pair * 2 * kTokenTileBytes + slice * 512));
      b[2 * pair][0] = two[0], b[2 * pair][1] = two[1];
      b[2 * pair + 1][0] = two[2], b[2 * pair + 1][1] = two[3];
    }
  }

  /// Fragments are loaded one instruction ahead, the next k-tile is issued in between. ldmatrix gives the four
  /// registers of an instruction side by side; two 16-byte loads would have to be shuffled by moves, two for each mma.
  SDAR_DEVICE static void add_bf16(const Pipeline& pipe, Accumulators& acc) {
    const Shared<uint8_t> weights[2] = {weight_row(pipe.stage, 0), weight_row(pipe.stage, 1)};
    const Shared<uint8_t> tokens[2] = {token_row(pipe.stage, 0), token_row(pipe.stage, 1)};
    constexpr int kInstructions = kSlices * 2, kSteps = kInstructions * kRowTiles;
    const bool more = in_range(0, pipe.left);
    uint32_t a[2][4];
    TokenFragments b[2];
    SDAR_UNROLL
    for (int pair = 0; pair < kTokenPairs; pair++) load_tokens(tokens[0], 0, pair, b[0]);
    ldmatrix_x4(a[0], weights[0]);
    SDAR_UNROLL
    for (int step = 0; step < kSteps; step++) {
      const int k = step / kRowTiles, r = step % kRowTiles, next = step + 1, next_k = next / kRowTiles;
      if (next < kSteps) {
        ldmatrix_x4(a[next % 2], weights[next_k % 2] + (next % kRowTiles * kWeightTileBytes + next_k / 2 * 1024));
      }
      if (k + 1 < kInstructions) {
        SDAR_UNROLL
        for (int pair = r * kTokenPairs / kRowTiles; pair < (r + 1) * kTokenPairs / kRowTiles; pair++) {
          load_tokens(tokens[(k + 1) % 2], (k + 1) / 2, pair, b[(k + 1) % 2]);
        }
      }
      SDAR_UNROLL
      for (int t = 0; t < kTokenTiles; t++) mma_m16n8k16_bf16(acc[r][t], a[step % 2], b[k % 2][t]);
      if (step == 0 && more) copy_weights(pipe, next_stage(pipe));
      if (step == kSteps / 2 && more) copy_activations(pipe, next_stage(pipe));
    }
  }

  /// Of int8 and int4 weights: the lane's part of the warp's first row tile.
  SDAR_DEVICE static Shared<uint8_t> weights_of_lane(int stage) {
    return shared_memory<uint8_t>(stage * kStageBytes + warp_row_tile() * kWeightTileBytes +
                                  opaque(lane_index()) * kLaneBytes);
  }
  /// The integers of each group, then their scale.
  SDAR_DEVICE static void add_scaled(int stage, Accumulators& acc) {
    const Shared<uint8_t> weights = weights_of_lane(stage);
    const Shared<uint8_t> tokens[2] = {token_row(stage, 0), token_row(stage, 1)};
    constexpr int kGroups = kTileK / group_k(kFormat), kGroupSlices = kSlices / kGroups;
    // The accumulators of two groups at once would be too many registers.
    SDAR_NO_UNROLL
    for (int index = 0; index < kGroups; index++) {
      Accumulators group;
      clear(group);
      SDAR_UNROLL
      for (int i = 0; i < kGroupSlices; i++) {
        const int slice = index * kGroupSlices + i;
        TokenFragments b[2];
        SDAR_UNROLL
        for (int j = 0; j < 2 * kTokenPairs; j++) load_tokens(tokens[j % 2], slice, j / 2, b[j % 2]);
        SDAR_UNROLL
        for (int r = 0; r < kRowTiles; r++) {
          uint32_t a[2][4];
          fragments(weights + r * kWeightTileBytes, slice, a);
          SDAR_UNROLL
          for (int t = 0; t < kTokenTiles; t++) {
            SDAR_UNROLL
            for (int j = 0; j < 2; j++) mma_m16n8k16_bf16(group[r][t], a[j], b[j][t]);
          }
        }
      }
      SDAR_UNROLL
      for (int r = 0; r < kRowTiles; r++) add_group(scales(stage, index, r), group[r], acc[r]);
    }
  }

  /// Of the lane's rows g and g + 8 in the warp's row tile r.
  SDAR_DEVICE static Floats2 scales(int stage, int index, int r) {
    const Shared<float> low =
        shared_memory<float>(stage * kStageBytes + (warp_row_tile() + r) * kWeightTileBytes +
                             weight_tile_data_bytes(kFormat) + (index * kTileRows + lane_index() / 4) * 4);
    return {{load_shared<float>(low), load_shared<float>(low + 8)}};
  }
  /// acc += group · scale of each row.
  SDAR_DEVICE static void add_group(const Floats2& scales, const RowAccumulators& group, RowAccumulators& acc) {
    SDAR_UNROLL
    for (int t = 0; t < kTokenTiles; t++) {
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) acc[t][i] = fused(scales.f[i / 2], group[t][i], acc[t][i]);
    }
  }

  /// Two bytes of `q`, at bits shift and shift + 16, two's complement, as bf16 (exact): the low 7 bits above 128, minus
  /// 128 or, when negative, 256.
  SDAR_DEVICE static uint32_t int8_pair(uint32_t q, int shift) {
    return fma_bf16x2(and_or(q >> shift, 0x007f007fu, 0x43004300u), 0x3f803f80u,
                      and_or(q >> shift, 0x00800080u, 0xc300c300u));
  }

  /// The fragments of a slice's two instructions; `tile` points at this lane's part of the first.
  SDAR_DEVICE static void fragments(Shared<uint8_t> tile, int slice, uint32_t (&a)[2][4]) {
    if constexpr (kFormat == WeightFormat::int8) {
      const Words4 q = load_shared<Words4>(tile + slice * 512);
      SDAR_UNROLL
      for (int i = 0; i < 2; i++) {
        a[i][0] = int8_pair(q.w[i], 0), a[i][1] = int8_pair(q.w[2 + i], 0);
        a[i][2] = int8_pair(q.w[i], 8), a[i][3] = int8_pair(q.w[2 + i], 8);
      }
    } else {
      const Words2 q = load_shared<Words2>(tile + slice * 256);
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
constexpr TileConfig small_tile(WeightFormat format, int token_tiles) {
  if (token_tiles < 8)
    return {.row_warps = 4, .token_warps = 1, .row_tiles = 1, .token_tiles = token_tiles, .stages = 4, .in_flight = 3};
  if (is_quantised(format))
    return {.row_warps = 4, .token_warps = 1, .row_tiles = 2, .token_tiles = 8, .stages = 3, .in_flight = 2};
  return {.row_warps = 2, .token_warps = 2, .row_tiles = 4, .token_tiles = 4, .stages = 3, .in_flight = 2};
}
template <WeightFormat format, int token_tiles>
using SmallTile = GemmTile<format, small_tile(format, token_tiles)>;

}  // namespace sdar::cuda
