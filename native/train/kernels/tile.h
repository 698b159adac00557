// A tile of a matrix product in registers.
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
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kVectors = 2, kLanes = 8;
using Vector = __m256;
inline Vector fused(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
#else
constexpr int kTileRows = 4, kVectors = 2, kLanes = 4;
typedef float Vector __attribute__((vector_size(16)));
inline Vector fused(Vector a, Vector b, Vector c) { return a * b + c; }
#endif

inline Vector load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }

void tile(int64_t k, const float* a, const float* b, float* c, int64_t c_stride, bool add) {
  Vector sums[kTileRows][kVectors] = {};
  for (int64_t p = 0; p < k; p++, a += kTileRows, b += kVectors * kLanes) {
    Vector right[kVectors];
    for (int v = 0; v < kVectors; v++) right[v] = load(b + v * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; r++) {
      const Vector left = Vector{} + a[r];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v++) sums[r][v] = fused(left, right[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kTileRows; r++) {
    for (int v = 0; v < kVectors; v++) {
      float* to = c + r * c_stride + v * kLanes;
      store(to, add ? load(to) + sums[r][v] : sums[r][v]);
    }
  }
}

}  // namespace
}  // namespace sdar::train
