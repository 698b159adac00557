// One vocabulary of vectors for AVX2 (8 floats) and AVX-512 (16 floats), chosen by the flags of the including file.
// Everything in x86/ has internal linkage, so that each instruction set keeps its own copy.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sdar::cpu {
namespace {

#define SDAR_INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__) && !defined(SDAR_DOT8_EVEX)

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
#if defined(__AVX512BF16__) && !defined(SDAR_DOT8_EVEX)
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

#else

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

#endif

/// The four bytes (two halves, one word) at p in every 32-bit lane.
SDAR_INLINE I broadcast32(const std::byte* p) {
  int32_t v;
  std::memcpy(&v, p, sizeof v);
  return set1(v);
}
SDAR_INLINE F broadcast_float(const std::byte* p) {
  float v;
  std::memcpy(&v, p, sizeof v);
  return set1(v);
}

}  // namespace
}  // namespace sdar::cpu
