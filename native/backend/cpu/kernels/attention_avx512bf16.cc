// Page kernels for AVX-512 with bf16 dot products: f32 pages as in AVX-512, the others with bf16 operands.
#include "backend/cpu/kernels/attention_avx512_ops.h"

namespace sdar::cpu {
namespace {

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

}  // namespace

const AttentionKernels kAttentionAvx512Bf16 = {
    {{page_pass<FloatOperands<Avx512>, KvFormat::f32>, false},
     {page_pass<Bf16Operands, KvFormat::bf16>, true},
     {page_pass<Bf16Operands, KvFormat::int8>, true}},
    norm_and_rotate,
    divide,
};

}  // namespace sdar::cpu
