// Vectors in the compiler's portable terms (four registers of 4 lanes), for attention_pass.h on 64-bit Arm and elsewhere.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cpu/kernels/kernels.h"

#ifdef __aarch64__
#include <arm_neon.h>
#endif

namespace sdar::cpu {
namespace {

struct Generic {
  typedef float Four __attribute__((vector_size(16)));
  typedef int32_t FourInts __attribute__((vector_size(16)));
  typedef int16_t FourShorts __attribute__((vector_size(8)));
  struct Vec {
    Four v[4];
  };
#if defined(__aarch64__)
  static constexpr int kAccumulators = 4;  // 32 registers
#else
  static constexpr int kAccumulators = 2;
#endif
  template <class Function>
  static SDAR_INLINE Vec each(Function f) {
    return {{f(0), f(1), f(2), f(3)}};
  }
  static SDAR_INLINE Four four(float x) { return Four{x, x, x, x}; }
  static SDAR_INLINE Vec zero() { return set1(0.0f); }
  static SDAR_INLINE Vec set1(float x) {
    return each([&](int) { return four(x); });
  }
  static SDAR_INLINE Vec load(const void* p) {
    Vec x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
  static SDAR_INLINE void store(float* p, const Vec& x) { __builtin_memcpy(p, &x, sizeof x); }
  static SDAR_INLINE Vec add(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  static SDAR_INLINE Vec sub(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  static SDAR_INLINE Vec mul(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  static SDAR_INLINE Vec fma(const Vec& a, const Vec& b, const Vec& c) {
#ifdef __aarch64__
    return each([&](int i) { return (Four)vfmaq_f32((float32x4_t)c.v[i], (float32x4_t)a.v[i], (float32x4_t)b.v[i]); });
#else
    return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
#endif
  }
  static SDAR_INLINE Four select(FourInts mask, Four a, Four b) {
    return reinterpret_cast<Four>((mask & reinterpret_cast<FourInts>(a)) | (~mask & reinterpret_cast<FourInts>(b)));
  }
  static SDAR_INLINE Vec max(const Vec& a, const Vec& b) {
    return each([&](int i) { return select(a.v[i] > b.v[i], a.v[i], b.v[i]); });
  }
  static SDAR_INLINE float max_lane(const Vec& x) {
    const Four a = select(x.v[0] > x.v[1], x.v[0], x.v[1]), b = select(x.v[2] > x.v[3], x.v[2], x.v[3]);
    const Four c = select(a > b, a, b);
    const float left = c[0] > c[1] ? c[0] : c[1], right = c[2] > c[3] ? c[2] : c[3];
    return left > right ? left : right;
  }
  /// The first n lanes of x, `other` in the rest.
  static SDAR_INLINE Vec keep(const Vec& x, int n, float other) {
    return each([&](int i) {
      const FourInts lanes = FourInts{0, 1, 2, 3} + 4 * i;
      return select(lanes < FourInts{n, n, n, n}, x.v[i], four(other));
    });
  }
  static SDAR_INLINE Four exp2(Four x) {
    const FourInts counts = ~(x < four(kExp2Least));  // a NaN counts
    const Four limited = select(counts, x, four(kExp2Least));
    const Four nearest = four(12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer
    const Four n = (limited + nearest) - nearest;
    const Four r = limited - n;
    Four y = four(kExp2[0]);
    for (int i = 1; i < 7; i++) y = y * r + kExp2[i];
    const FourInts power = (__builtin_convertvector(n, FourInts) + 127) << 23;
    return select(counts, y * reinterpret_cast<Four>(power), four(0.0f));
  }
  static SDAR_INLINE Vec exp2(const Vec& x) {
    return each([&](int i) { return exp2(x.v[i]); });
  }
  template <KvFormat F>
  static SDAR_INLINE void load_pair(const std::byte* p, Vec& even, Vec& odd) {
    // A pair is one little-endian word, the even element in its low half.
    if constexpr (F == KvFormat::f32) {
      even = load(p);
      odd = load(p + 64);
    } else if constexpr (F == KvFormat::bf16) {
      const Vec both = load(p);
      even = each([&](int i) { return reinterpret_cast<Four>(reinterpret_cast<FourInts>(both.v[i]) << 16); });
      odd = each([&](int i) { return reinterpret_cast<Four>(reinterpret_cast<FourInts>(both.v[i]) & -65536); });
    } else {
      const auto words = [&](int i) {
        FourShorts four;
        __builtin_memcpy(&four, p + 8 * i, sizeof four);
        return __builtin_convertvector(four, FourInts);
      };
      even = each([&](int i) { return __builtin_convertvector((words(i) << 24) >> 24, Four); });
      odd = each([&](int i) { return __builtin_convertvector(words(i) >> 8, Four); });
    }
  }
};

}  // namespace
}  // namespace sdar::cpu
