// A tile: R rows of activations × C vectors of four columns of a panel, on 64-bit Arm.
#pragma once
#include "backend/cpu/kernels/vectors.h"

namespace sdar::cpu {
namespace {

constexpr int kRow = 128;    // bytes of a panel that feed 32 columns once: 1 k in f32, 2 in bf16, 4 in int8, 8 in int4
constexpr int kNear = 2048;  // prefetch distance
constexpr int kQuads = kPanel / kLanes;

/// What a tile reads: its columns of a panel and its rows.
struct Tile {
  const std::byte* w;
  int64_t k;
  const std::byte* a;
  size_t stride;
  const float* a_scales;
  const int32_t* offsets;
  int64_t groups;
  int64_t scale_stride;
};

/// Sums of a tile, [R][32] floats in memory.
using Sums = float (*)[kPanel];

#define SDAR_UNROLL _Pragma("GCC unroll 16")

/// A tile's share of a row of the panel, some rows ahead.
template <int C>
SDAR_INLINE void fetch(const std::byte* w) {
  SDAR_UNROLL for (int line = 0; line < C * 16; line += 64) __builtin_prefetch(w + kNear + line);
}

template <class T, int R, int C>
SDAR_INLINE void clear(T (&sum)[R][C]) {
  SDAR_UNROLL for (int r = 0; r < R; r++) { SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = T{}; }
}

template <int R, int C>
SDAR_INLINE void keep(const F (&f)[R][C], Sums out) {
  SDAR_UNROLL for (int r = 0; r < R; r++) {
    SDAR_UNROLL for (int c = 0; c < C; c++) store(out[r] + c * kLanes, f[r][c]);
  }
}

template <int R>
SDAR_INLINE void load_rows(const Tile& t, F (&a)[R]) {
  SDAR_UNROLL for (int r = 0; r < R; r++) a[r] = load(reinterpret_cast<const float*>(t.a + r * t.stride));
}

/// Rows that tiles take: at most, in multiples of, and at most with all columns at once.
struct Shape {
  int most, unit, whole;
};

/// Sixteen bytes of each row of a pair, as 8 of both and the next 8 of both. An odd row out is its own partner.
template <int R>
SDAR_INLINE void load_pairs(const Tile& t, int64x2_t (&first)[(R + 1) / 2], int64x2_t (&second)[(R + 1) / 2]) {
  SDAR_UNROLL for (int p = 0; p < (R + 1) / 2; p++) {
    const std::byte* row = t.a + 2 * p * t.stride;
    const int64x2_t x = vld1q_s64(reinterpret_cast<const int64_t*>(row));
    const int64x2_t y = 2 * p + 1 < R ? vld1q_s64(reinterpret_cast<const int64_t*>(row + t.stride)) : x;
    first[p] = vtrn1q_s64(x, y);
    second[p] = vtrn2q_s64(x, y);
  }
}

}  // namespace
}  // namespace sdar::cpu
