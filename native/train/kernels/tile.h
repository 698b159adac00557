// Vectors of an instruction set, and a tile of a matrix product in registers.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace sdar::train {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 12, kVectors = 2, kLanes = 16;
using Vector = __m512;
inline Vector fused(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Vector broadcast(float x) { return _mm512_set1_ps(x); }
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kVectors = 2, kLanes = 8;
using Vector = __m256;
inline Vector fused(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector broadcast(float x) { return _mm256_set1_ps(x); }
#else
constexpr int kTileRows = 4, kVectors = 2, kLanes = 4;
typedef float Vector __attribute__((vector_size(16)));
inline Vector fused(Vector a, Vector b, Vector c) { return a * b + c; }
inline Vector broadcast(float x) { return Vector{x, x, x, x}; }
#endif
constexpr int64_t kColumns = kVectors * kLanes;

inline Vector load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }

struct MultiplyAdd {
  static Vector apply(Vector left, Vector right, Vector sum) { return fused(left, right, sum); }
};

/// kFar: what the sums go to is seldom in a near cache; it comes while they are made.
template <class Multiply, bool kFar>
void tile(int64_t steps, const float* a, const float* b, const float* onto, float* c, int64_t stride) {
  Vector sums[kTileRows][kVectors] = {};
  for (int r = 0; kFar && r < kTileRows; r++) {
    __builtin_prefetch(c + r * stride, 1);
    __builtin_prefetch(c + r * stride + kColumns - 1, 1);
    if (onto && onto != c) {
      __builtin_prefetch(onto + r * stride);
      __builtin_prefetch(onto + r * stride + kColumns - 1);
    }
  }
  for (int64_t p = 0; p < steps; p++, a += kTileRows, b += kColumns) {
    Vector right[kVectors];
    for (int v = 0; v < kVectors; v++) right[v] = load(b + v * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; r++) {
      const Vector left = broadcast(a[r]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v++) sums[r][v] = Multiply::apply(left, right[v], sums[r][v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kTileRows; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) {
      const int64_t at = r * stride + v * kLanes;
      store(c + at, onto ? load(onto + at) + sums[r][v] : sums[r][v]);
    }
  }
}

}  // namespace
}  // namespace sdar::train
