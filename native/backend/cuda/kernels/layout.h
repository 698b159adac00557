// How weights and activations lie in device memory: in the order in which the lanes of a warp feed mma.m16n8k16, so
// that every load is 16 bytes per lane, side by side. One header for packing, kernels and tests.
//
// An instruction multiplies 16 weight rows by 8 tokens over 16 k; a slice is two instructions, 32 k. Lane 4g + t feeds
// the rows g and g + 8 and token g with k = 2t, 2t + 1, 2t + 8, 2t + 9 of each instruction. bf16 comes row by row and
// is handed out by ldmatrix; int8 and int4 weights lie as the lanes take them.
//
// Activations: bf16 [tokens/8][padded k/32][8][32], a lane's 16 bytes at lane · 16 of each [8][32].
// Weights: [rows/16][padded k/tile k] weight tiles; rows past the last and columns past the last are zero.
//   bf16  64 k:  2 slices [16][32] bf16
//   int8  128 k: 4 slices [32 lanes][2 rows: g, g+8][2 instructions][4], two's complement, a lane's four k in bytes
//                0 2 1 3; then the scales [16] f32
//   int4  128 k: 4 slices [32 lanes][2 rows: g, g+8] words, zero point 8, the lane's four k of the first instruction
//                in nibbles 0 4 1 5, of the second in 2 6 3 7; then the scales [2 groups of 64][16] f32
// Rows of gate_up alternate: 8 of gate, then the same 8 of up, so that one lane holds both.
// f32 (the router alone) is row-major.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/weights.h"
#include "util/host_device.h"

namespace sdar::cuda {

constexpr int32_t kTileRows = 16;   ///< weight rows of an instruction
constexpr int32_t kTileTokens = 8;  ///< tokens of an instruction
constexpr int32_t kSliceK = 32;
constexpr int32_t kPadK = 128;

SDAR_HOST_DEVICE constexpr int32_t padded_k(int32_t k) { return (k + kPadK - 1) / kPadK * kPadK; }
SDAR_HOST_DEVICE constexpr int32_t ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }

SDAR_HOST_DEVICE constexpr bool is_quantised(WeightFormat f) {
  return f == WeightFormat::int8 || f == WeightFormat::int4;
}
/// Consecutive k that share a scale.
SDAR_HOST_DEVICE constexpr int32_t group_k(WeightFormat f) { return f == WeightFormat::int4 ? 64 : 128; }
SDAR_HOST_DEVICE constexpr int32_t weight_tile_k(WeightFormat f) { return f == WeightFormat::bf16 ? 64 : 128; }
/// Bytes of a weight tile before its scales, and in all; a multiple of 16.
SDAR_HOST_DEVICE constexpr int32_t weight_tile_data_bytes(WeightFormat f) {
  return f == WeightFormat::int4 ? 1024 : 2048;
}
SDAR_HOST_DEVICE constexpr int32_t weight_tile_bytes(WeightFormat f) {
  return weight_tile_data_bytes(f) + (is_quantised(f) ? weight_tile_k(f) / group_k(f) * kTileRows * 4 : 0);
}

/// Element of an activation buffer of `padded` columns.
SDAR_HOST_DEVICE constexpr int64_t activation_index(int32_t token, int32_t k, int32_t padded) {
  return (static_cast<int64_t>(token / kTileTokens) * (padded / kSliceK) + k / kSliceK) * (kTileTokens * kSliceK) +
         token % kTileTokens * kSliceK + k % kSliceK;
}
SDAR_HOST_DEVICE constexpr int64_t activation_elements(int32_t tokens, int32_t k) {
  return static_cast<int64_t>(ceil_div(tokens, kTileTokens)) * kTileTokens * padded_k(k);
}

/// Weight rows of the block that k is split for, whatever the block that computes them.
constexpr int32_t kSplitRows = 64;
/// Split-K: a matrix of few rows keeps a device busy only when several blocks share the sum over k. The number of splits
/// depends on the shape alone, and every kernel adds partial sums in ascending order, so that the number of tokens never
/// shows in a result. At least 512 k per split, enough blocks for two on each of 128 multiprocessors; gate_up and the
/// lm_head have rows enough.
SDAR_HOST_DEVICE constexpr int32_t splits_of(WeightKind kind, int32_t rows, int32_t cols) {
  if (kind != WeightKind::linear) return 1;
  const int32_t wanted = ceil_div(256, ceil_div(rows, kSplitRows)), possible = padded_k(cols) / 512;
  const int32_t splits = wanted < possible ? wanted : possible;
  return splits < 1 ? 1 : splits > 16 ? 16 : splits;
}
/// First k of `split`; split == splits gives the end. A multiple of 128.
SDAR_HOST_DEVICE constexpr int32_t split_begin(int32_t split, int32_t splits, int32_t padded) {
  return split * (padded / kPadK) / splits * kPadK;
}

}  // namespace sdar::cuda
