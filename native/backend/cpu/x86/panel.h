// One panel of packed weights times m rows of activations. Register tiles are R rows × C vectors of columns; a tile's
// sums live in registers for all of k, so each y adds its products in ascending order whatever R is.
#pragma once
#include "backend/cpu/kernels.h"
#include "backend/cpu/x86/simd.h"

namespace sdar::cpu {
namespace {

constexpr int kRow = 128;    // bytes of a panel that feed 32 columns once: 1 k in f32, 2 in bf16, 4 in int8, 8 in int4
constexpr int kNear = 2048;  // prefetch distance while a panel comes from memory

/// What a tile reads: its panel from column `column` on, its rows, and what to prefetch meanwhile.
struct Tile {
  const std::byte* w;
  const float* w_scales;
  int64_t k;
  const std::byte* a;
  size_t stride;
  const float* a_scales;
  const int32_t* offsets;
  int64_t groups;
  const std::byte* ahead;
  int64_t ahead_step;  ///< bytes of `ahead` per kRow bytes of the panel
};

/// Sums of a tile, [R][32] floats in memory.
using Sums = float (*)[kPanel];

SDAR_INLINE void prefetch(const std::byte*& p, int64_t step) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  _mm_prefetch(reinterpret_cast<const char*>(p) + 64, _MM_HINT_T0);
  p += step;
}

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

struct TileF32 {
  template <int R, int C>
  static void run(Tile t, Sums out) {
    F f[R][C];
    clear(f);
    for (int64_t k = 0; k < t.k; k++, t.w += kRow, t.a += sizeof(float)) {
      F w[C];
      SDAR_UNROLL for (int c = 0; c < C; c++) w[c] = load(reinterpret_cast<const float*>(t.w) + c * kLanes);
      prefetch(t.ahead, t.ahead_step);
      SDAR_UNROLL for (int r = 0; r < R; r++) {
        const F a = broadcast_float(t.a + r * t.stride);
        SDAR_UNROLL for (int c = 0; c < C; c++) f[r][c] = fma(a, w[c], f[r][c]);
      }
    }
    keep(f, out);
  }
};

struct TileBf16 {
  template <int R, int C>
  static void run(Tile t, Sums out) {
    F f[R][C];
    clear(f);
#ifdef __AVX512BF16__
    for (int64_t k = 0; k < t.k; k += 2, t.w += kRow, t.a += 4) {
      __m512bh w[C];
      SDAR_UNROLL for (int c = 0; c < C; c++) w[c] = (__m512bh)load_bits(t.w + c * sizeof(I));
      prefetch(t.ahead, t.ahead_step);
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
      prefetch(t.ahead, t.ahead_step);
      SDAR_UNROLL for (int r = 0; r < R; r++) {
        const F a = broadcast_float(t.a + r * t.stride), b = broadcast_float(t.a + r * t.stride + 4);
        SDAR_UNROLL for (int c = 0; c < C; c++) f[r][c] = fma(b, odd[c], fma(a, even[c], f[r][c]));
      }
    }
#endif
    keep(f, out);
  }
};

/// f += Σ of a group · scale of the row's group · scale of the column's group.
template <int R, int C>
SDAR_INLINE void add_group(const Tile& t, int64_t g, const I (&sum)[R][C], F (&f)[R][C]) {
  F w[C];
  SDAR_UNROLL for (int c = 0; c < C; c++) w[c] = load(t.w_scales + g * kPanel + c * kLanes);
  SDAR_UNROLL for (int r = 0; r < R; r++) {
    const F a = set1(t.a_scales[r * t.groups + g]);
    SDAR_UNROLL for (int c = 0; c < C; c++) f[r][c] = fma(to_float(sum[r][c]), mul(a, w[c]), f[r][c]);
  }
}

/// The zero point's part of each row's sum.
template <int R, int C>
SDAR_INLINE void start_group(const Tile& t, int64_t g, I (&sum)[R][C]) {
  SDAR_UNROLL for (int r = 0; r < R; r++) {
    SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = set1(t.offsets[r * t.groups + g]);
  }
}

struct TileInt8 {
  template <int R, int C>
  static void run(Tile t, Sums out) {
    F f[R][C];
    clear(f);
    for (int64_t g = 0; g < t.groups; g++) {
      const int64_t left = t.k - g * group_size(WeightFormat::int8);
      const int64_t n = left < group_size(WeightFormat::int8) ? left : group_size(WeightFormat::int8);
      I sum[R][C];
      start_group(t, g, sum);
      for (int64_t k = 0; k < n; k += 4, t.w += kRow) {
        prefetch(t.ahead, t.ahead_step);
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
      add_group(t, g, sum, f);
    }
    keep(f, out);
  }
};

struct TileInt4 {
  template <int R, int C>
  static void run(Tile t, Sums out) {
    F f[R][C];
    clear(f);
    const I nibble = set1(0x0f0f0f0f);
    for (int64_t g = 0; g < t.groups; g++) {
      I sum[R][C];
      start_group(t, g, sum);
#ifdef SDAR_DOT8
      for (int64_t k = 0; k < group_size(WeightFormat::int4); k += 8, t.w += kRow, t.a += 8) {
        I low[C], high[C];
        SDAR_UNROLL for (int c = 0; c < C; c++) {
          const I w = load_bits(t.w + c * sizeof(I));
          low[c] = bit_and(w, nibble);
          high[c] = bit_and(shift_right16<4>(w), nibble);
        }
        prefetch(t.ahead, t.ahead_step);
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
        for (int i = 0; i < 4; i++, t.w += kRow, t.a += 8) {
          I low[C], high[C];
          SDAR_UNROLL for (int c = 0; c < C; c++) {
            const I w = load_bits(t.w + c * sizeof(I));
            low[c] = bit_and(w, nibble);
            high[c] = bit_and(shift_right16<4>(w), nibble);
          }
          prefetch(t.ahead, t.ahead_step);
          SDAR_UNROLL for (int r = 0; r < R; r++) {
            const I a = broadcast32(t.a + r * t.stride), b = broadcast32(t.a + r * t.stride + 4);
            SDAR_UNROLL for (int c = 0; c < C; c++) {
              part[r][c] = add16(part[r][c], add16(madd8(low[c], a), madd8(high[c], b)));
            }
          }
        }
        SDAR_UNROLL for (int r = 0; r < R; r++) {
          SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = add(sum[r][c], madd16(part[r][c], set1(0x00010001)));
        }
      }
#endif
      add_group(t, g, sum, f);
    }
    keep(f, out);
  }
};

SDAR_INLINE F silu(F v) { return div(v, add(set1(1.0f), exp(sub(zero(), v)))); }

/// n values of y (of 16 gate and 16 up columns with silu_mul) into out.
SDAR_INLINE void finish_row(Epilogue epilogue, const float* y, int n, float* out) {
  for (int i = 0; i < n; i += kLanes) {
    const int left = n - i;
    F v = load(y + i);
    if (epilogue == Epilogue::silu_mul) v = mul(silu(v), load(y + kPanel / 2 + i));
    if (left >= kLanes) {
      store(out + i, epilogue == Epilogue::add ? add(load(out + i), v) : v);
    } else {
      store_first(out + i, left, epilogue == Epilogue::add ? add(load_first(out + i, left), v) : v);
    }
  }
}

#ifdef __AVX512F__
constexpr int kMaxRows = kTileRows;
/// All 32 columns of R rows.
template <class Format, int R>
void run_tile(const Tile& t, Sums out) {
  Format::template run<R, 2>(t, out);
}
#else
constexpr int kMaxRows = 6;
/// Sixteen registers: few rows take the panel in one pass, more rows take its halves.
template <class Format, int R>
void run_tile(const Tile& t, Sums out) {
  if constexpr (R <= 2) {
    Format::template run<R, 4>(t, out);
  } else {
    Format::template run<R, 2>(t, out);
    Tile right = t;
    right.w += kRow / 2;
    right.w_scales += kPanel / 2;
    Format::template run<R, 2>(right, reinterpret_cast<Sums>(&out[0][kPanel / 2]));
  }
}
#endif

template <class Format>
void run_rows(int rows, const Tile& t, Sums out) {
  switch (rows) {
    case 1:
      return run_tile<Format, 1>(t, out);
    case 2:
      return run_tile<Format, 2>(t, out);
    case 3:
      return run_tile<Format, 3>(t, out);
    case 4:
      return run_tile<Format, 4>(t, out);
    case 5:
      return run_tile<Format, 5>(t, out);
    case 6:
      return run_tile<Format, 6>(t, out);
#ifdef __AVX512F__
    case 7:
      return run_tile<Format, 7>(t, out);
    case 8:
      return run_tile<Format, 8>(t, out);
#endif
  }
}

void panel(const PanelJob& job) {
  alignas(64) float y[kTileRows][kPanel];
  const size_t elements = panel_elements_bytes(job.format, job.k);
  const int tiles = (job.m + kMaxRows - 1) / kMaxRows;
  Tile t{};
  t.w = job.panel;
  t.w_scales = reinterpret_cast<const float*>(job.panel + elements);
  t.k = job.k;
  t.stride = job.a.stride;
  t.groups = groups_of(job.format, job.k);
  for (int i = 0, row = 0; i < tiles; i++) {
    const int rows = job.m / tiles + (i < job.m % tiles);
    t.a = job.a.data + row * job.a.stride;
    t.a_scales = job.a.scales + row * t.groups;
    t.offsets = job.a.offsets + row * t.groups;
    // One tile: the panel comes from memory, just ahead. More: each fetches its share of the next panel.
    t.ahead = tiles == 1 ? job.panel + kNear : job.panel + panel_bytes(job.format, job.k) + elements / tiles * i;
    t.ahead_step = kRow / tiles;
    switch (job.format) {
      case WeightFormat::f32:
        run_rows<TileF32>(rows, t, y);
        break;
      case WeightFormat::bf16:
        run_rows<TileBf16>(rows, t, y);
        break;
      case WeightFormat::int8:
        run_rows<TileInt8>(rows, t, y);
        break;
      case WeightFormat::int4:
        run_rows<TileInt4>(rows, t, y);
        break;
    }
    for (int r = 0; r < rows; r++) finish_row(job.epilogue, y[r], job.columns, job.out + (row + r) * job.out_stride);
    row += rows;
  }
}

}  // namespace
}  // namespace sdar::cpu
