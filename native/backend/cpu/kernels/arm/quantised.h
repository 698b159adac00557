// Tiles of int8 and int4 weights, by what the including file is compiled for: base: widening multiplies; dotprod: sdot
// of a lane; i8mm: usmmla on two columns × two rows, a single row by usdot. Integer sums are exact.
#pragma once
#include <type_traits>

#include "backend/cpu/kernels/arm/tile.h"

namespace sdar::cpu {
namespace {

#ifdef __ARM_FEATURE_MATMUL_INT8
constexpr bool kUnsigned = true;  // weights enter products as they are, and Activations::offsets the sums
using Weights = uint8x16_t;
#else
constexpr bool kUnsigned = false;  // weights enter products less their zero point
using Weights = int8x16_t;
#endif

/// Bytes of the panel per 8 k.
template <WeightFormat format>
constexpr int kStep = format == WeightFormat::int8 ? 2 * kRow : kRow;

/// k…k+3 and k+4…k+7 of four columns.
template <WeightFormat format>
SDAR_INLINE void load_weights(const std::byte* w, Weights& low, Weights& high) {
  const uint8_t* p = reinterpret_cast<const uint8_t*>(w);
  const uint8x16_t x = vld1q_u8(p);
  uint8x16_t a, b;
  if constexpr (format == WeightFormat::int8) {
    a = x;
    b = vld1q_u8(p + kRow);
  } else {
    a = vandq_u8(x, vdupq_n_u8(15));
    b = vshrq_n_u8(x, 4);
  }
  if constexpr (kUnsigned) {
    low = a;
    high = b;
  } else {
    const uint8x16_t zero_point = vdupq_n_u8(format == WeightFormat::int8 ? 128 : 8);
    low = vreinterpretq_s8_u8(vsubq_u8(a, zero_point));
    high = vreinterpretq_s8_u8(vsubq_u8(b, zero_point));
  }
}

template <WeightFormat format, int C>
SDAR_INLINE void fetch_step(const std::byte* w) {
  fetch<C>(w);
  if constexpr (format == WeightFormat::int8) fetch<C>(w + kRow);
}

// Products of a group in integers. begin: sums before the group; step: 16 more k; total: the sums of four columns.

#ifdef __ARM_FEATURE_DOTPROD
template <WeightFormat format, int R, int C>
struct Dots {
  using Sum = I[R][C];

  static SDAR_INLINE void begin(const Tile& t, Sum& sum) {
    SDAR_UNROLL for (int r = 0; r < R; r++) {
      SDAR_UNROLL for (int c = 0; c < C; c++) sum[r][c] = set1(kUnsigned ? t.offsets[r] : 0);
    }
  }

  template <int Lane>
  static SDAR_INLINE I dot(I sum, Weights w, int8x16_t a) {
#ifdef __ARM_FEATURE_MATMUL_INT8
    return vusdotq_laneq_s32(sum, w, a, Lane);
#else
    return vdotq_laneq_s32(sum, w, a, Lane);
#endif
  }

  template <int Lane>
  static SDAR_INLINE void half(Tile& t, const int8x16_t (&a)[R], Sum& sum) {
    fetch_step<format, C>(t.w);
    SDAR_UNROLL for (int c = 0; c < C; c++) {
      Weights low, high;
      load_weights<format>(t.w + 16 * c, low, high);
      SDAR_UNROLL for (int r = 0; r < R; r++) sum[r][c] = dot<Lane>(sum[r][c], low, a[r]);
      SDAR_UNROLL for (int r = 0; r < R; r++) sum[r][c] = dot<Lane + 1>(sum[r][c], high, a[r]);
    }
    t.w += kStep<format>;
  }

  static SDAR_INLINE void step(Tile& t, Sum& sum) {
    int8x16_t a[R];
    SDAR_UNROLL for (int r = 0; r < R; r++) a[r] = vld1q_s8(reinterpret_cast<const int8_t*>(t.a + r * t.stride));
    half<0>(t, a, sum);
    half<2>(t, a, sum);
  }

  static SDAR_INLINE I total(const Sum& sum, int r, int c) { return sum[r][c]; }
};
#endif

#ifdef __ARM_FEATURE_MATMUL_INT8
/// Sums of two columns × two rows.
template <WeightFormat format, int R, int C>
struct Squares {
  static constexpr int P = (R + 1) / 2;
  using Sum = I[P][2 * C];

  static SDAR_INLINE void begin(const Tile& t, Sum& sum) {
    SDAR_UNROLL for (int p = 0; p < P; p++) {
      const int32_t x = t.offsets[2 * p], y = 2 * p + 1 < R ? t.offsets[2 * p + 1] : x;
      SDAR_UNROLL for (int c = 0; c < 2 * C; c++) sum[p][c] = I{x, y, x, y};
    }
  }

  static SDAR_INLINE void half(Tile& t, const int64x2_t (&a)[P], Sum& sum) {
    fetch_step<format, C>(t.w);
    SDAR_UNROLL for (int c = 0; c < C; c++) {
      Weights low, high;
      load_weights<format>(t.w + 16 * c, low, high);
      const uint32x4_t x = vreinterpretq_u32_u8(low), y = vreinterpretq_u32_u8(high);
      const uint8x16_t left = vreinterpretq_u8_u32(vzip1q_u32(x, y)), right = vreinterpretq_u8_u32(vzip2q_u32(x, y));
      SDAR_UNROLL for (int p = 0; p < P; p++) {
        sum[p][2 * c] = vusmmlaq_s32(sum[p][2 * c], left, vreinterpretq_s8_s64(a[p]));
        sum[p][2 * c + 1] = vusmmlaq_s32(sum[p][2 * c + 1], right, vreinterpretq_s8_s64(a[p]));
      }
    }
    t.w += kStep<format>;
  }

  static SDAR_INLINE void step(Tile& t, Sum& sum) {
    int64x2_t first[P], second[P];
    load_pairs<R>(t, first, second);
    half(t, first, sum);
    half(t, second, sum);
  }

  static SDAR_INLINE I total(const Sum& sum, int r, int c) {
    const I left = sum[r / 2][2 * c], right = sum[r / 2][2 * c + 1];
    return r % 2 ? vuzp2q_s32(left, right) : vuzp1q_s32(left, right);
  }
};
#endif

#ifndef __ARM_FEATURE_DOTPROD
/// Two sums per column, to be added. An int16 holds two products of int8, 2 · 128 · 127, or all of an int4 group that
/// fall on it, 16 · 8 · 127.
template <WeightFormat format, int R, int C>
struct Wide {
  static constexpr bool kShort = format == WeightFormat::int4;
  using Element = std::conditional_t<kShort, int16x8_t, I>;
  using Sum = Element[R][2 * C];

  static SDAR_INLINE void begin(const Tile&, Sum& sum) { clear(sum); }

  static SDAR_INLINE Element multiply_add(Element sum, int8x8_t low, int8x8_t high, int8x8_t a, int8x8_t b) {
    if constexpr (kShort) {
      return vmlal_s8(vmlal_s8(sum, low, a), high, b);
    } else {
      return vpadalq_s16(sum, vmlal_s8(vmull_s8(low, a), high, b));
    }
  }

  static SDAR_INLINE void step(Tile& t, Sum& sum) {
    SDAR_UNROLL for (int i = 0; i < 16; i += 8) {
      fetch_step<format, C>(t.w);
      int8x8_t a[R], b[R];
      SDAR_UNROLL for (int r = 0; r < R; r++) {
        const int32_t* p = reinterpret_cast<const int32_t*>(t.a + r * t.stride + i);
        a[r] = vreinterpret_s8_s32(vld1_dup_s32(p));
        b[r] = vreinterpret_s8_s32(vld1_dup_s32(p + 1));
      }
      SDAR_UNROLL for (int c = 0; c < C; c++) {
        Weights low, high;
        load_weights<format>(t.w + 16 * c, low, high);
        SDAR_UNROLL for (int r = 0; r < R; r++) {
          sum[r][2 * c] = multiply_add(sum[r][2 * c], vget_low_s8(low), vget_low_s8(high), a[r], b[r]);
          sum[r][2 * c + 1] = multiply_add(sum[r][2 * c + 1], vget_high_s8(low), vget_high_s8(high), a[r], b[r]);
        }
      }
      t.w += kStep<format>;
    }
  }

  static SDAR_INLINE I total(const Sum& sum, int r, int c) {
    const auto widen = [](Element x) {
      if constexpr (kShort) {
        return vpaddlq_s16(x);
      } else {
        return x;
      }
    };
    return vpaddq_s32(widen(sum[r][2 * c]), widen(sum[r][2 * c + 1]));
  }
};
#endif

template <WeightFormat format>
struct TileQuantised {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  static constexpr Shape kShape{6, 2, 2};
  template <int R, int C>
  using Products = std::conditional_t<R == 1, Dots<format, R, C>, Squares<format, R, C>>;
#elif defined(__ARM_FEATURE_DOTPROD)
  static constexpr Shape kShape{5, 1, 2};
  template <int R, int C>
  using Products = Dots<format, R, C>;
#else
  static constexpr Shape kShape{2, 1, 1};
  template <int R, int C>
  using Products = Wide<format, R, C>;
#endif

  /// The f32 sums stay in memory: the integers take the registers.
  template <int R, int C>
  static void run(Tile t, Sums out) {
    SDAR_UNROLL for (int r = 0; r < R; r++) std::memset(out[r], 0, C * sizeof(F));
    for (int64_t g = 0; g < t.groups; g++) {
      const int64_t left = t.k - g * group_size(format), n = left < group_size(format) ? left : group_size(format);
      typename Products<R, C>::Sum sum;
      Products<R, C>::begin(t, sum);
      for (int64_t k = 0; k < n; k += 16, t.a += 16) Products<R, C>::step(t, sum);
      SDAR_UNROLL for (int c = 0; c < C; c++) {
        const F w = load(reinterpret_cast<const float*>(t.w) + c * kLanes);
        SDAR_UNROLL for (int r = 0; r < R; r++) {
          float* f = out[r] + c * kLanes;
          store(f, fma(to_float(Products<R, C>::total(sum, r, c)), mul(set1(t.a_scales[r]), w), load(f)));
        }
      }
      t.w += kRow;
      t.a_scales += t.scale_stride;
      t.offsets += t.scale_stride;
    }
  }
};

}  // namespace
}  // namespace sdar::cpu
