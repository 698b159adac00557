// The vectors of AVX2 and FMA: F and I of 8 lanes for panels and rows, and what attention_pass.h works with.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backend/cpu/kernels/kernels.h"

namespace sdar::cpu {
namespace {

constexpr int kLanes = 8;
using F = __m256;
using I = __m256i;
SDAR_INLINE F zero() { return _mm256_setzero_ps(); }
SDAR_INLINE F set1(float v) { return _mm256_set1_ps(v); }
SDAR_INLINE I set1(int32_t v) { return _mm256_set1_epi32(v); }
SDAR_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
SDAR_INLINE void store(float* p, F v) { _mm256_storeu_ps(p, v); }
SDAR_INLINE I load_bits(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
SDAR_INLINE void store_bits(void* p, I v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
SDAR_INLINE I first(int n) { return _mm256_cmpgt_epi32(set1(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
SDAR_INLINE F load_first(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
SDAR_INLINE void store_first(float* p, int n, F v) { _mm256_maskstore_ps(p, first(n), v); }
SDAR_INLINE F select_first(int n, F a, F b) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(first(n))); }
SDAR_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
SDAR_INLINE F sub(F a, F b) { return _mm256_sub_ps(a, b); }
SDAR_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
SDAR_INLINE F quotient(F a, F b) { return _mm256_div_ps(a, b); }
SDAR_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }
SDAR_INLINE F min(F a, F b) { return _mm256_min_ps(a, b); }
SDAR_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
SDAR_INLINE F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
SDAR_INLINE F round(F v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SDAR_INLINE I to_int(F v) { return _mm256_cvtps_epi32(v); }
SDAR_INLINE F to_float(I v) { return _mm256_cvtepi32_ps(v); }
SDAR_INLINE I bits(F v) { return _mm256_castps_si256(v); }
SDAR_INLINE F from_bits(I v) { return _mm256_castsi256_ps(v); }
SDAR_INLINE I bit_and(I a, I b) { return _mm256_and_si256(a, b); }
SDAR_INLINE I add(I a, I b) { return _mm256_add_epi32(a, b); }
SDAR_INLINE I max(I a, I b) { return _mm256_max_epi32(a, b); }
template <int N>
SDAR_INLINE I shift_left(I v) {
  return _mm256_slli_epi32(v, N);
}
template <int N>
SDAR_INLINE I shift_right(I v) {
  return _mm256_srli_epi32(v, N);
}
template <int N>
SDAR_INLINE I shift_right16(I v) {
  return _mm256_srli_epi16(v, N);
}
SDAR_INLINE I add16(I a, I b) { return _mm256_add_epi16(a, b); }
SDAR_INLINE I madd16(I a, I b) { return _mm256_madd_epi16(a, b); }
SDAR_INLINE I madd8(I u8, I s8) { return _mm256_maddubs_epi16(u8, s8); }
SDAR_INLINE uint32_t equal(F a, F b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)));
}
SDAR_INLINE F scale_by_power(F v, F n) {
  const F tiny = _mm256_cmp_ps(n, set1(-126.0f), _CMP_LT_OQ);
  const I exponent = shift_left<23>(add(to_int(n), set1(127)));
  return _mm256_andnot_ps(tiny, mul(v, from_bits(exponent)));
}
SDAR_INLINE void store_lanes(float* p, F v) { _mm256_store_ps(p, v); }
#if defined(__AVXVNNI__)
#define SDAR_DOT8 1
SDAR_INLINE I dot8(I sum, I u8, I s8) { return _mm256_dpbusd_avx_epi32(sum, u8, s8); }
#elif defined(SDAR_DOT8_EVEX)  // tests run the AVX-VNNI kernels on AVX-512 VNNI machines
#define SDAR_DOT8 1
SDAR_INLINE I dot8(I sum, I u8, I s8) { return _mm256_dpbusd_epi32(sum, u8, s8); }
#endif

/// For attention: 16 lanes in two registers, f32 operands whatever the format of the pages.
struct Avx2 {
  struct Vec {
    __m256 lo, hi;
  };
  static constexpr int kAccumulators = 4;
  static SDAR_INLINE Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static SDAR_INLINE Vec set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static SDAR_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static SDAR_INLINE void store(float* p, Vec x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
  }
  static SDAR_INLINE Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static SDAR_INLINE Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static SDAR_INLINE Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static SDAR_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static SDAR_INLINE Vec fma(Vec a, Vec b, Vec c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static SDAR_INLINE float max_lane(Vec x) {
    const __m256 eight = _mm256_max_ps(x.lo, x.hi);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  /// The first n lanes of x, `other` in the rest.
  static SDAR_INLINE Vec keep(Vec x, int n, float other) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 rest = _mm256_set1_ps(other);
    const __m256i low = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes);
    const __m256i high = _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lanes);
    return {_mm256_blendv_ps(rest, x.lo, _mm256_castsi256_ps(low)),
            _mm256_blendv_ps(rest, x.hi, _mm256_castsi256_ps(high))};
  }
  static SDAR_INLINE __m256 exp2(__m256 x) {
    const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 r = _mm256_sub_ps(x, n);
    __m256 y = _mm256_set1_ps(kExp2[0]);
#pragma GCC unroll 6
    for (int i = 1; i < 7; i++) y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(kExp2[i]));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const __m256 counts = _mm256_cmp_ps(x, _mm256_set1_ps(kExp2Least), _CMP_NLT_UQ);
    return _mm256_and_ps(counts, _mm256_mul_ps(y, _mm256_castsi256_ps(power)));
  }
  static SDAR_INLINE Vec exp2(Vec x) { return {exp2(x.lo), exp2(x.hi)}; }

  template <KvFormat F>
  static SDAR_INLINE void load_pair(const std::byte* p, Vec& even, Vec& odd) {
    if constexpr (F == KvFormat::f32) {
      even = load(reinterpret_cast<const float*>(p));
      odd = load(reinterpret_cast<const float*>(p + 64));
    } else if constexpr (F == KvFormat::bf16) {
      const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
      const __m256i lo = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
      const __m256i hi = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32));
      even = {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
      odd = {_mm256_castsi256_ps(_mm256_and_si256(lo, high)), _mm256_castsi256_ps(_mm256_and_si256(hi, high))};
    } else {
      const __m256i lo = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      const __m256i hi = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)));
      even = {to_f32(_mm256_slli_epi32(lo, 16)), to_f32(_mm256_slli_epi32(hi, 16))};
      odd = {to_f32(lo), to_f32(hi)};
    }
  }
  /// The upper 16 bits of each lane, an integer.
  static SDAR_INLINE __m256 to_f32(__m256i x) { return _mm256_cvtepi32_ps(_mm256_srai_epi32(x, 16)); }
};

}  // namespace
}  // namespace sdar::cpu
