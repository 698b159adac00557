// One panel of packed weights times m rows of activations. Register tiles are R rows × C vectors of columns; a tile's
// sums live in registers for all of k, so each y adds its products in ascending order whatever R is.
#pragma once
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vectors.h"

namespace sdar::cpu {
namespace {

constexpr int kRow = 128;    // bytes of a panel that feed 32 columns once: 1 k in f32, 2 in bf16, 4 in int8, 8 in int4
constexpr int kNear = 4096;  // prefetch distance while a panel comes from memory

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
  const std::byte* ahead;   ///< what to fetch meanwhile
  int64_t ahead_step;       ///< bytes of it per kRow bytes of the panel
  int64_t ahead_share;      ///< bytes of it per pass over the panel
  int32_t (*sums)[kPanel];  ///< scratch, a row for each of the tile's
};

/// A panel that is passed over once comes from memory: fetch it just ahead, into L1. In one of several
/// passes the panel is in L2 by now: fetch a share of the next panel into that.
enum class Fetch { near, next };

template <Fetch F>
SDAR_INLINE void fetch(Tile& t) {
  const char* p = reinterpret_cast<const char*>(t.ahead);
  if constexpr (F == Fetch::near) {
    _mm_prefetch(p, _MM_HINT_T0);
    _mm_prefetch(p + 64, _MM_HINT_T0);
  } else {
    _mm_prefetch(p, _MM_HINT_T1);
  }
  t.ahead += t.ahead_step;
}

/// Sums of a tile, [R][32] floats in memory.
using Sums = float (*)[kPanel];

#define SDAR_UNROLL _Pragma("GCC unroll 8")

template <int R, int C>
SDAR_INLINE void clear(F (&f)[R][C]) {
  SDAR_UNROLL for (int r = 0; r < R; r++) { SDAR_UNROLL for (int c = 0; c < C; c++) f[r][c] = zero(); }
}

template <int R, int C>
SDAR_INLINE void keep(const F (&f)[R][C], Sums out) {
  SDAR_UNROLL for (int r = 0; r < R; r++) {
    SDAR_UNROLL for (int c = 0; c < C; c++) store(out[r] + c * kLanes, f[r][c]);
  }
}

template <int R, int C>
SDAR_INLINE void clear(Sums out) {
  SDAR_UNROLL for (int r = 0; r < R; r++) {
    SDAR_UNROLL for (int c = 0; c < C; c++) store(out[r] + c * kLanes, zero());
  }
}

struct TileF32 {
  template <int R, int C, Fetch fetching>
  static void run(Tile t, Sums out) {
    F f[R][C];
    clear(f);
    for (int64_t k = 0; k < t.k; k++, t.w += kRow, t.a += sizeof(float)) {
      F w[C];
      SDAR_UNROLL for (int c = 0; c < C; c++) w[c] = load(reinterpret_cast<const float*>(t.w) + c * kLanes);
      fetch<fetching>(t);
      SDAR_UNROLL for (int r = 0; r < R; r++) {
        const F a = broadcast_float(t.a + r * t.stride);
        SDAR_UNROLL for (int c = 0; c < C; c++) f[r][c] = fma(a, w[c], f[r][c]);
      }
    }
    keep(f, out);
  }
};

struct TileBf16 {
  template <int R, int C, Fetch fetching>
  static void run(Tile t, Sums out) {
    F f[R][C];
    clear(f);
#if defined(__AVX512BF16__) && !defined(SDAR_DOT8_EVEX)
    for (int64_t k = 0; k < t.k; k += 2, t.w += kRow, t.a += 4) {
      __m512bh w[C];
      SDAR_UNROLL for (int c = 0; c < C; c++) w[c] = (__m512bh)load_bits(t.w + c * sizeof(I));
      fetch<fetching>(t);
      SDAR_UNROLL for (int r = 0; r < R; r++) {
        const __m512bh a = (__m512bh)broadcast32(t.a + r * t.stride);
        SDAR_UNROLL for (int c = 0; c < C; c++) f[r][c] = _mm512_dpbf16_ps(f[r][c], a, w[c]);
      }
    }
#else  // a bf16 in the upper half of a lane is the f32
    const I upper = set1(static_cast<int32_t>(0xffff0000));
    for (int64_t k = 0; k < t.k; k += 2, t.w += kRow, t.a += 8) {
      F even[C], odd[C];
      SDAR_UNROLL for (int c = 0; c < C; c++) {
        const I w = load_bits(t.w + c * sizeof(I));
        even[c] = from_bits(shift_left<16>(w));
        odd[c] = from_bits(bit_and(w, upper));
      }
      fetch<fetching>(t);
      SDAR_UNROLL for (int r = 0; r < R; r++) {
        const F a = broadcast_float(t.a + r * t.stride), b = broadcast_float(t.a + r * t.stride + 4);
        SDAR_UNROLL for (int c = 0; c < C; c++) f[r][c] = fma(b, odd[c], fma(a, even[c], f[r][c]));
      }
    }
#endif
    keep(f, out);
  }
};

/// out += Σ of a group · scale of the row's group · scale of the column's group, which t.w has reached. These sums pass
/// by once in a group: memory keeps them, so that registers hold the integer sums of more rows.
template <Fetch fetching, int R, int C>
SDAR_INLINE void add_group(Tile& t, const I (&sum)[R][C], Sums out) {
  F w[C];
  const float* a_scales = t.a_scales;
  SDAR_UNROLL for (int c = 0; c < C; c++) w[c] = load(reinterpret_cast<const float*>(t.w) + c * kLanes);
  t.w += kRow;
  t.a_scales += t.scale_stride;
  t.offsets += t.scale_stride;
  fetch<fetching>(t);
  SDAR_UNROLL for (int r = 0; r < R; r++) {
    const F a = set1(a_scales[r]);
    SDAR_UNROLL for (int c = 0; c < C; c++) {
      float* f = out[r] + c * kLanes;
      store(f, fma(to_float(sum[r][c]), mul(a, w[c]), load(f)));
    }
  }
}

/// The zero point's part of each row's sum.
template <int R, int C>
SDAR_INLINE void start_group(const Tile& t, I (&sum)[R][C]) {
  SDAR_UNROLL for (int r = 0; r < R; r++) { SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = set1(t.offsets[r]); }
}

struct TileInt8 {
  template <int R, int C, Fetch fetching>
  static void run(Tile t, Sums out) {
    clear<R, C>(out);
    for (int64_t g = 0; g < t.groups; g++) {
      const int64_t left = t.k - g * group_size(WeightFormat::int8);
      const int64_t n = left < group_size(WeightFormat::int8) ? left : group_size(WeightFormat::int8);
      I sum[R][C];
      start_group(t, sum);
      for (int64_t k = 0; k < n; k += 4, t.w += kRow) {
        fetch<fetching>(t);
#ifdef SDAR_DOT8
        I w[C];
        SDAR_UNROLL for (int c = 0; c < C; c++) w[c] = load_bits(t.w + c * sizeof(I));
        SDAR_UNROLL for (int r = 0; r < R; r++) {
          const I a = broadcast32(t.a + r * t.stride);
          SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = dot8(sum[r][c], w[c], a);
        }
        t.a += 4;
#else  // as int16: bytes 0 and 2 of each column, then 1 and 3; activations lie in that order
        I even[C], odd[C];
        SDAR_UNROLL for (int c = 0; c < C; c++) {
          const I w = load_bits(t.w + c * sizeof(I));
          even[c] = bit_and(w, set1(0x00ff00ff));
          odd[c] = shift_right16<8>(w);
        }
        SDAR_UNROLL for (int r = 0; r < R; r++) {
          const I a = broadcast32(t.a + r * t.stride), b = broadcast32(t.a + r * t.stride + 4);
          SDAR_UNROLL for (int c = 0; c < C; c++) {
            sum[r][c] = add(sum[r][c], add(madd16(even[c], a), madd16(odd[c], b)));
          }
        }
        t.a += 8;
#endif
      }
      add_group<fetching>(t, sum, out);
    }
  }
};

#ifndef SDAR_DOT8
/// In the order that is written: gcc would have all products of a tile wait in registers that there are not.
SDAR_INLINE void add_to(I& sum16, I v) {
  sum16 = add16(sum16, v);
  asm volatile("" : "+v"(sum16));
}
#endif

struct TileInt4 {
  template <int R, int C, Fetch fetching>
  static void run(Tile t, Sums out) {
    clear<R, C>(out);
    const I nibble = set1(0x0f0f0f0f);
    for (int64_t g = 0; g < t.groups; g++) {
      I sum[R][C];
      start_group(t, sum);
#ifndef SDAR_DOT8  // in memory, so that the 16-bit sums have the registers
      SDAR_UNROLL for (int r = 0; r < R; r++) {
        SDAR_UNROLL for (int c = 0; c < C; c++) store_bits(t.sums[r] + c * kLanes, sum[r][c]);
      }
#endif
#ifdef SDAR_DOT8
      for (int64_t k = 0; k < group_size(WeightFormat::int4); k += 8, t.w += kRow, t.a += 8) {
        I low[C], high[C];
        SDAR_UNROLL for (int c = 0; c < C; c++) {
          const I w = load_bits(t.w + c * sizeof(I));
          low[c] = bit_and(w, nibble);
          high[c] = bit_and(shift_right16<4>(w), nibble);
        }
        fetch<fetching>(t);
        SDAR_UNROLL for (int r = 0; r < R; r++) {
          const I a = broadcast32(t.a + r * t.stride), b = broadcast32(t.a + r * t.stride + 4);
          SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = dot8(sum[r][c], low[c], a);
          SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = dot8(sum[r][c], high[c], b);
        }
      }
#else  // eight pairs of products, at most 8 · 2 · 15 · 127 = 30480, fit into an int16
      for (int64_t k = 0; k < group_size(WeightFormat::int4); k += 32) {
        I part[R][C];
        SDAR_UNROLL for (int r = 0; r < R; r++) { SDAR_UNROLL for (int c = 0; c < C; c++) part[r][c] = set1(0); }
        _Pragma("GCC unroll 1") for (int i = 0; i < 4; i++, t.w += kRow, t.a += 8) {
          fetch<fetching>(t);
          I w[C];
          SDAR_UNROLL for (int c = 0; c < C; c++) w[c] = bit_and(load_bits(t.w + c * sizeof(I)), nibble);
          SDAR_UNROLL for (int r = 0; r < R; r++) {
            const I a = broadcast32(t.a + r * t.stride);
            SDAR_UNROLL for (int c = 0; c < C; c++) add_to(part[r][c], madd8(w[c], a));
          }
          SDAR_UNROLL for (int c = 0; c < C; c++) {
            w[c] = bit_and(shift_right16<4>(load_bits(t.w + c * sizeof(I))), nibble);
          }
          SDAR_UNROLL for (int r = 0; r < R; r++) {
            const I a = broadcast32(t.a + r * t.stride + 4);
            SDAR_UNROLL for (int c = 0; c < C; c++) add_to(part[r][c], madd8(w[c], a));
          }
        }
        SDAR_UNROLL for (int r = 0; r < R; r++) {
          SDAR_UNROLL for (int c = 0; c < C; c++) {
            int32_t* wide = t.sums[r] + c * kLanes;
            store_bits(wide, add(load_bits(wide), madd16(part[r][c], set1(0x00010001))));
          }
        }
      }
      SDAR_UNROLL for (int r = 0; r < R; r++) {
        SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = load_bits(t.sums[r] + c * kLanes);
      }
#endif
      add_group<fetching>(t, sum, out);
    }
  }
};

#if defined(__AVX512F__) && !defined(SDAR_DOT8_EVEX)
constexpr int kMaxRows = kTileRows;
constexpr int kWholeRows = kTileRows;  // tiles of up to so many rows take all 32 columns at once
#else
constexpr int kMaxRows = 6;
constexpr int kWholeRows = 2;  // sixteen registers: more rows take the panel's halves
#endif
constexpr int kVectors = kPanel / kLanes;

template <class Format, int R, Fetch fetching>
void run_tile(Tile t, Sums out) {
  if constexpr (R <= kWholeRows) {
    Format::template run<R, kVectors, fetching>(t, out);
  } else {
    Format::template run<R, kVectors / 2, fetching>(t, out);
    t.ahead += t.ahead_share;
    t.w += kRow / 2;
    Format::template run<R, kVectors / 2, fetching>(t, reinterpret_cast<Sums>(&out[0][kPanel / 2]));
  }
}

template <class Format, Fetch fetching>
void run_rows(int rows, const Tile& t, Sums out) {
  switch (rows) {
    case 1:
      return run_tile<Format, 1, fetching>(t, out);
    case 2:
      return run_tile<Format, 2, fetching>(t, out);
    case 3:
      return run_tile<Format, 3, fetching>(t, out);
    case 4:
      return run_tile<Format, 4, fetching>(t, out);
    case 5:
      return run_tile<Format, 5, fetching>(t, out);
    case 6:
      return run_tile<Format, 6, fetching>(t, out);
#if defined(__AVX512F__) && !defined(SDAR_DOT8_EVEX)
    case 7:
      return run_tile<Format, 7, fetching>(t, out);
    case 8:
      return run_tile<Format, 8, fetching>(t, out);
#endif
  }
}

template <Fetch fetching>
void run_format(WeightFormat format, int rows, const Tile& t, Sums out) {
  switch (format) {
    case WeightFormat::f32:
      return run_rows<TileF32, fetching>(rows, t, out);
    case WeightFormat::bf16:
      return run_rows<TileBf16, fetching>(rows, t, out);
    case WeightFormat::int8:
      return run_rows<TileInt8, fetching>(rows, t, out);
    case WeightFormat::int4:
      return run_rows<TileInt4, fetching>(rows, t, out);
  }
}

/// Rows of a tile at most: what leaves registers for the operands.
int tile_rows(WeightFormat format) {
  if (kMaxRows == kTileRows) return kTileRows;
#ifdef SDAR_DOT8
  return format == WeightFormat::f32 ? 6 : 5;
#else
  return format == WeightFormat::f32 ? 6 : format == WeightFormat::int8 ? 4 : 5;
#endif
}

void panel(const PanelJob& job) {
  alignas(64) float y[kTileRows][kPanel];
  alignas(64) int32_t sums[kTileRows][kPanel];
  const int64_t bytes = static_cast<int64_t>(panel_bytes(job.format, job.k)), groups = groups_of(job.format, job.k);
  const int most = tile_rows(job.format), tiles = (job.m + most - 1) / most;
  const int passes = tiles * ((job.m + tiles - 1) / tiles > kWholeRows ? 2 : 1);
  for (int i = 0, row = 0; i < tiles; i++) {
    const int rows = job.m / tiles + (i < job.m % tiles);
    Tile t{};
    t.w = job.panel;
    t.k = job.k;
    t.a = job.a.data + row * job.a.stride;
    t.stride = job.a.stride;
    t.a_scales = job.a.scales + row;
    t.offsets = job.a.offsets + row;
    t.groups = groups;
    t.scale_stride = job.a.scale_stride;
    t.sums = sums;
    if (passes == 1) {
      t.ahead = job.panel + kNear;
      t.ahead_step = kRow;
      run_format<Fetch::near>(job.format, rows, t, y);
    } else {
      t.ahead_step = kRow / passes;
      t.ahead_share = bytes / passes;
      t.ahead = job.panel + bytes + i * (bytes / tiles);
      run_format<Fetch::next>(job.format, rows, t, y);
    }
    for (int r = 0; r < rows; r++) finish_row(job.epilogue, y[r], job.columns, job.out + (row + r) * job.out_stride);
    row += rows;
  }
}

}  // namespace
}  // namespace sdar::cpu
