// 16 lanes in one AVX-512 register, for attention_pass.h.
#pragma once
#include <immintrin.h>

#include "backend/cpu/kernels/attention_pass.h"

namespace sdar::cpu {
namespace {

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

}  // namespace
}  // namespace sdar::cpu
