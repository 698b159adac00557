// The epilogue: from a warp's accumulators to memory.
#pragma once
#include "backend/cuda/kernels/gemm_tile.cuh"

namespace sdar::cuda {

SDAR_DEVICE float silu_multiply(float gate, float up) { return divide(gate, 1.0f + exp_fast(-gate)) * up; }

/// acc = out.
template <class Tile>
SDAR_DEVICE void load_out(const GemmParams& a, const GemmSource& s, typename Tile::Accumulators& acc) {
  const int row = opaque((s.first_row_tile + Tile::warp_row_tile()) * kTileRows + lane_index() / 4);
  const int token = opaque((s.first_token_tile + Tile::warp_token_tile()) * kTileTokens + lane_index() % 4 * 2);
  SDAR_UNROLL
  for (int r = 0; r < Tile::kRowTiles; r++) {
    SDAR_UNROLL
    for (int t = 0; t < Tile::kTokenTiles; t++) {
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) {
        const int at_row = row + r * kTileRows + i / 2 * 8, at_token = token + t * kTileTokens + i % 2;
        const bool exists = in_range(at_row, a.weight.rows) && in_range(at_token, a.tokens);
        acc[r][t][i] = exists ? load_global<float>(a.out + int64_t{at_token} * a.weight.rows + at_row) : 0.0f;
      }
    }
  }
}

/// out = acc, or out + acc with `add`. Lane 4g + t writes rows g, g + 8 of tokens 2t, 2t + 1: a warp's store covers
/// whole sectors, 8 rows of 4 tokens.
template <class Tile>
SDAR_DEVICE void store_out(const GemmParams& a, const GemmSource& s, bool add, const typename Tile::Accumulators& acc) {
  const int row = opaque((s.first_row_tile + Tile::warp_row_tile()) * kTileRows + lane_index() / 4);
  const int token = opaque((s.first_token_tile + Tile::warp_token_tile()) * kTileTokens + lane_index() % 4 * 2);
  constexpr int kAtOnce = Tile::kTokenTiles < 8 ? Tile::kTokenTiles : 8;
  SDAR_UNROLL
  for (int r = 0; r < Tile::kRowTiles; r++) {
    SDAR_UNROLL
    for (int first = 0; first < Tile::kTokenTiles; first += kAtOnce) {
      float before[kAtOnce][4];  // all issued before the first is awaited
      SDAR_UNROLL
      for (int t = 0; t < kAtOnce; t++) {
        SDAR_UNROLL
        for (int i = 0; i < 4; i++) {
          const int at_row = row + r * kTileRows + i / 2 * 8, at_token = token + (first + t) * kTileTokens + i % 2;
          const bool exists = add && in_range(at_row, a.weight.rows) && in_range(at_token, a.tokens);
          before[t][i] = exists ? load_global<float>(a.out + int64_t{at_token} * a.weight.rows + at_row) : 0.0f;
        }
      }
      SDAR_UNROLL
      for (int t = 0; t < kAtOnce; t++) {
        SDAR_UNROLL
        for (int i = 0; i < 4; i++) {
          const int to_row = row + r * kTileRows + i / 2 * 8, to_token = token + (first + t) * kTileTokens + i % 2;
          if (!in_range(to_row, a.weight.rows) || !in_range(to_token, a.tokens)) continue;
          const float sum = acc[r][first + t][i];
          store_global<float>(a.out + int64_t{to_token} * a.weight.rows + to_row, add ? before[t][i] + sum : sum);
        }
      }
    }
  }
}

/// silu(gate)·up as bf16 tiles: rows g and g + 8 of a tile are gate and up of one output. Columns past the last, whose
/// weights are zero, become zero; a block's columns never exceed the padded ones.
template <class Tile>
SDAR_DEVICE void store_silu(const GemmParams& a, const GemmSource& s, const typename Tile::Accumulators& acc) {
  const int columns = padded_k(a.weight.outputs());
  const int output = opaque((s.first_row_tile + Tile::warp_row_tile()) * 8 + lane_index() / 4);
  const int token = opaque((s.first_token_tile + Tile::warp_token_tile()) * kTileTokens + lane_index() % 4 * 2);
  SDAR_UNROLL
  for (int r = 0; r < Tile::kRowTiles; r++) {
    SDAR_UNROLL
    for (int t = 0; t < Tile::kTokenTiles; t++) {
      SDAR_UNROLL
      for (int i = 0; i < 2; i++) {
        const int to_output = output + r * 8, to_token = token + t * kTileTokens + i;
        if (!in_range(to_token, a.tokens)) continue;
        store_global<uint16_t>(a.tiles + activation_index(to_token, to_output, columns),
                               float_to_bf16(silu_multiply(acc[r][t][i], acc[r][t][2 + i])));
      }
    }
  }
}

/// Stores what the epilogue says; `add`: to what is in `out`, unless it is silu_mul.
template <class Tile>
SDAR_DEVICE void put(const GemmParams& a, const GemmSource& s, bool add, const typename Tile::Accumulators& acc) {
  if (a.epilogue == Epilogue::silu_mul) {
    store_silu<Tile>(a, s, acc);
  } else {
    store_out<Tile>(a, s, add, acc);
  }
}

}  // namespace sdar::cuda
