// GEMMs of a layer: weights in weight tiles, activations in tiles (layout.h), sums in f32.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cuda/kernels/device_types.h"
#include "backend/cuda/kernels/layout.h"

namespace sdar::cuda {

/// A packed weight on the device.
struct DeviceMatrix {
  const uint8_t* data = nullptr;
  WeightKind kind = WeightKind::linear;
  WeightFormat format = WeightFormat::bf16;  ///< as held: bf16, int8 or int4
  int32_t rows = 0, cols = 0;                ///< as in its WeightSpec

  /// Weight tiles of one row tile.
  SDAR_HOST_DEVICE int32_t k_tiles() const { return padded_k(cols) / weight_tile_k(format); }
  SDAR_HOST_DEVICE int32_t outputs() const { return kind == WeightKind::gate_up ? rows / 2 : rows; }
  SDAR_HOST_DEVICE int32_t row_tiles() const {
    return kind == WeightKind::gate_up ? ceil_div(rows / 2, 8) : ceil_div(rows, kTileRows);
  }
  SDAR_HOST_DEVICE int32_t splits() const { return splits_of(kind, rows, cols); }
};

enum class Epilogue : uint8_t {
  store,     ///< out [tokens, rows] f32 = y
  add,       ///< out [tokens, rows] f32 += y
  silu_mul,  ///< tiles [tokens, rows / 2] bf16 = silu(gate)·up; for gate_up
};

/// y = activations·Wᵀ. Each split of k (split_begin) is summed by itself; then ((out +) p0) + p1 + …
/// An element of y has the same bits in every kernel and at every number of tokens.
struct GemmParams {
  DeviceMatrix weight;
  const uint16_t* activations = nullptr;  ///< tiles [tokens, padded cols]; zeros past the last column
  int32_t tokens = 0;                     ///< rows past them in the last tile are not read
  Epilogue epilogue = Epilogue::store;
  float* out = nullptr;
  uint16_t* tiles = nullptr;  ///< of padded_k(rows / 2) columns; those past the last become zero or are left alone
  /// gemm alone, when splits() > 1; not shared by launches that may overlap.
  float* partials = nullptr;     ///< [gemm_partial_floats]
  uint32_t* counters = nullptr;  ///< [gemm_counters], of blocks that are done with a tile: zero; zero again afterwards
  bool pdl = false;              ///< programmatic dependent launch (LaunchShape)
  int32_t token_tiles = 0;       ///< of a block, for gemm_warpgroup alone: 16 or, see warpgroup_takes, 32
};

/// For 1 … 64 tokens (more are taken in chunks of 64).
void gemm(Stream stream, const GemmParams& args);
/// How gemm shares a matmul out: tiles of tokens and of rows per block. Partial sums are those of whole blocks.
SDAR_HOST_DEVICE constexpr int32_t gemm_token_tiles(int32_t tokens) {
  return tokens <= 8 ? 1 : tokens <= 16 ? 2 : tokens <= 32 ? 4 : 8;
}
SDAR_HOST_DEVICE constexpr int32_t gemm_row_tiles(int32_t token_tiles) { return token_tiles == 8 ? 8 : 4; }
inline size_t gemm_counters(const DeviceMatrix& weight, int32_t tokens) {
  const int32_t token_tiles = gemm_token_tiles(tokens);
  return weight.splits() <= 1 ? 0
                              : static_cast<size_t>(ceil_div(tokens, token_tiles * kTileTokens)) *
                                    static_cast<size_t>(ceil_div(weight.row_tiles(), gemm_row_tiles(token_tiles)));
}
inline size_t gemm_partial_floats(const DeviceMatrix& weight, int32_t tokens) {
  const int32_t token_tiles = gemm_token_tiles(tokens);
  return gemm_counters(weight, tokens) * static_cast<size_t>(weight.splits()) *
         static_cast<size_t>(token_tiles * kTileTokens * gemm_row_tiles(token_tiles) * kTileRows);
}

/// For many tokens. A block takes 128 weight rows and 128 tokens.
void gemm_large(Stream stream, const GemmParams& args);

/// For many tokens on sm_90 (elsewhere nothing is written). A block takes 128 weight rows and 128 or 256 tokens.
void gemm_warpgroup(Stream stream, const GemmParams& args);
/// Whether gemm_warpgroup's blocks can have so many token tiles: registers hold the accumulators of 32 when nothing else
/// is accumulated beside.
SDAR_HOST_DEVICE inline bool warpgroup_takes(const DeviceMatrix& weight, int32_t token_tiles) {
  return token_tiles == 16 || (token_tiles == 32 && weight.format == WeightFormat::bf16 && weight.splits() == 1);
}
/// The token tiles with which gemm_warpgroup is expected to be fastest; 0 where gemm or gemm_large are.
int32_t warpgroup_tiles(const DeviceMatrix& weight, int32_t tokens, int32_t multiprocessors);

/// Maximum tokens of gemm: for more, the partial sums would need too much memory.
constexpr int32_t kMaxSplitTokens = 1024;
/// Whether a matmul is gemm_large's: where its blocks give each multiprocessor one and have no splits to add one after
/// the other. Otherwise gemm's smaller blocks and split-K keep more of the device busy. Both give the same bits.
inline bool is_large(const DeviceMatrix& weight, int32_t tokens, int32_t multiprocessors) {
  if (tokens <= 256) return false;  // measured on an H200: smaller blocks are a fifth faster at 256
  const int64_t blocks = int64_t{ceil_div(tokens, 128)} * ceil_div(weight.row_tiles(), 128 / kTileRows);
  return tokens > kMaxSplitTokens || (weight.splits() == 1 && blocks >= multiprocessors);
}

}  // namespace sdar::cuda
