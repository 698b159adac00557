// Page kernels for AVX2 and FMA: 16 lanes in two registers, f32 operands whatever the format of the pages.
#include <immintrin.h>

#include "backend/cpu/kernels/attention_pass.h"

namespace sdar::cpu {
namespace {

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

const AttentionKernels kAttentionAvx2 = {
    {{page_pass<FloatOperands<Avx2>, KvFormat::f32>, false},
     {page_pass<FloatOperands<Avx2>, KvFormat::bf16>, false},
     {page_pass<FloatOperands<Avx2>, KvFormat::int8>, false}},
    norm_and_rotate,
    divide,
};

}  // namespace sdar::cpu
