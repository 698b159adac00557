// The vectors of AVX-512: F and I of 16 lanes for panels and rows, and what attention_pass.h works with.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backend/cpu/kernels/kernels.h"

namespace sdar::cpu {
namespace {

constexpr int kLanes = 16;
using F = __m512;
using I = __m512i;
SDAR_INLINE F zero() { return _mm512_setzero_ps(); }
SDAR_INLINE F set1(float v) { return _mm512_set1_ps(v); }
SDAR_INLINE I set1(int32_t v) { return _mm512_set1_epi32(v); }
SDAR_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
SDAR_INLINE void store(float* p, F v) { _mm512_storeu_ps(p, v); }
SDAR_INLINE I load_bits(const void* p) { return _mm512_loadu_si512(p); }
SDAR_INLINE void store_bits(void* p, I v) { _mm512_storeu_si512(p, v); }
SDAR_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
/// The first n lanes, n < kLanes; the others are 0 and not touched in memory.
SDAR_INLINE F load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
SDAR_INLINE void store_first(float* p, int n, F v) { _mm512_mask_storeu_ps(p, first(n), v); }
/// The first n lanes of a, the others of b.
SDAR_INLINE F select_first(int n, F a, F b) { return _mm512_mask_blend_ps(first(n), b, a); }
SDAR_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
SDAR_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
SDAR_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
/// a / b to about a unit in the last place, b from 1 to 2^127: a division would take as long as ten multiplications.
SDAR_INLINE F quotient(F a, F b) {
  const F r = _mm512_rcp14_ps(b);
  const F inverse = _mm512_fmadd_ps(_mm512_fnmadd_ps(b, r, _mm512_set1_ps(1.0f)), r, r);
  return _mm512_mul_ps(a, inverse);
}
SDAR_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
SDAR_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
SDAR_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
SDAR_INLINE F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
SDAR_INLINE F round(F v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SDAR_INLINE I to_int(F v) { return _mm512_cvtps_epi32(v); }
SDAR_INLINE F to_float(I v) { return _mm512_cvtepi32_ps(v); }
SDAR_INLINE I bits(F v) { return _mm512_castps_si512(v); }
SDAR_INLINE F from_bits(I v) { return _mm512_castsi512_ps(v); }
SDAR_INLINE I bit_and(I a, I b) { return _mm512_and_si512(a, b); }
SDAR_INLINE I add(I a, I b) { return _mm512_add_epi32(a, b); }
SDAR_INLINE I max(I a, I b) { return _mm512_max_epi32(a, b); }
template <int N>
SDAR_INLINE I shift_left(I v) {
  return _mm512_slli_epi32(v, N);
}
template <int N>
SDAR_INLINE I shift_right(I v) {
  return _mm512_srli_epi32(v, N);
}
template <int N>
SDAR_INLINE I shift_right16(I v) {
  return _mm512_srli_epi16(v, N);
}
SDAR_INLINE I add16(I a, I b) { return _mm512_add_epi16(a, b); }
/// Products of int16 pairs summed to int32; of u8 × s8 pairs summed to int16 (saturating).
SDAR_INLINE I madd16(I a, I b) { return _mm512_madd_epi16(a, b); }
SDAR_INLINE I madd8(I u8, I s8) { return _mm512_maddubs_epi16(u8, s8); }
/// Lanes of equal floats, as bits of an integer.
SDAR_INLINE uint32_t equal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
/// v · 2^n for integral n; flushes to 0 below the normal range.
SDAR_INLINE F scale_by_power(F v, F n) { return _mm512_scalef_ps(v, n); }
SDAR_INLINE void store_lanes(float* p, F v) { _mm512_store_ps(p, v); }
#define SDAR_LANE_SUMS 1  // what vectors.h makes of lanes in memory
SDAR_INLINE float sum_lanes(F v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
SDAR_INLINE int32_t sum_of_lanes(I v) { return _mm512_reduce_add_epi32(v); }
SDAR_INLINE int32_t max_lane(I v) { return _mm512_reduce_max_epi32(v); }
SDAR_INLINE void store_as_int8(std::byte* p, I v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}
#ifdef __AVX512BF16__
#define SDAR_BF16 1
SDAR_INLINE void store_bf16(void* p, F v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v));
}
#endif
#ifdef __AVX512VNNI__
#define SDAR_DOT8 1
/// In assembly, since gcc 12 copies every sum of a loop of the intrinsic to another register and back.
SDAR_INLINE I dot8(I sum, I u8, I s8) {
  asm("vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+v"(sum) : "v"(u8), "v"(s8));
  return sum;
}
#endif

/// For attention: 16 f32 lanes, f32 operands whatever the format of the pages.
struct Avx512 {
  using Vec = __m512;
  static constexpr int kAccumulators = 16;
  static SDAR_INLINE Vec zero() { return _mm512_setzero_ps(); }
  static SDAR_INLINE Vec set1(float x) { return _mm512_set1_ps(x); }
  static SDAR_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static SDAR_INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
  static SDAR_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static SDAR_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static SDAR_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static SDAR_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static SDAR_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static SDAR_INLINE float max_lane(Vec x) { return _mm512_reduce_max_ps(x); }
  /// The first n lanes of x, `other` in the rest.
  static SDAR_INLINE Vec keep(Vec x, int n, float other) {
    return _mm512_mask_mov_ps(_mm512_set1_ps(other), static_cast<__mmask16>((1u << n) - 1), x);
  }
  static SDAR_INLINE Vec exp2(Vec x) {
    const Vec n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vec r = _mm512_sub_ps(x, n);
    Vec y = _mm512_set1_ps(kExp2[0]);
#pragma GCC unroll 6
    for (int i = 1; i < 7; i++) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(kExp2[i]));
    const __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExp2Least), _CMP_NLT_UQ);  // a NaN counts
    return _mm512_maskz_scalef_ps(counts, y, n);
  }
  template <KvFormat F>
  static SDAR_INLINE void load_pair(const std::byte* p, Vec& even, Vec& odd) {
    if constexpr (F == KvFormat::f32) {
      even = _mm512_loadu_ps(p);
      odd = _mm512_loadu_ps(p + 64);
    } else if constexpr (F == KvFormat::bf16) {
      const __m512i both = _mm512_loadu_si512(p);
      even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
      odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    } else {
      const __m512i both = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
      even = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(both, 16), 16));
      odd = _mm512_cvtepi32_ps(_mm512_srai_epi32(both, 16));
    }
  }
};

#ifdef __AVX512BF16__
/// For attention with bf16 dot products: pages of bf16 and int8.
struct Bf16Operands : Avx512 {
  using Operand = uint16_t;
  static Operand* weights(const PagePass& p) { return static_cast<uint16_t*>(p.weights); }
  static SDAR_INLINE void store_operand(uint16_t* to, Vec x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  }

  /// A pair of elements per lane in bf16; int8 is exact in it.
  template <KvFormat F, bool Both>
  static SDAR_INLINE __m512bh load_pairs(const std::byte* p) {
    __m512i pairs;
    if constexpr (F == KvFormat::bf16) {
      pairs = _mm512_loadu_si512(p);
    } else {
      const __m128i* q = reinterpret_cast<const __m128i*>(p);
      const Vec low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(q)));
      const Vec high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(q + 1)));
      pairs = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    }
    // the other element of an unpaired one was never written
    if constexpr (!Both) pairs = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff));
    return reinterpret_cast<__m512bh>(pairs);
  }

  template <KvFormat F, int R, int T, bool Both>
  static SDAR_INLINE void multiply_pair(Vec (&acc)[R][T], const uint16_t* x, int stride, const std::byte* b,
                                        size_t panel_bytes) {
    __m512bh pairs[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) pairs[t] = load_pairs<F, Both>(b + t * panel_bytes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      int32_t pair;
      __builtin_memcpy(&pair, x + r * stride, sizeof pair);
      const __m512bh a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) acc[r][t] = _mm512_dpbf16_ps(acc[r][t], pairs[t], a);
    }
  }
};
#endif

}  // namespace
}  // namespace sdar::cpu
