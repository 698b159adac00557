// The vectors F (floats) and I (32-bit integers) of the including file's instruction set, kLanes wide, and functions
// over them that all sets share. Internal linkage, so that each set keeps its own copy.
#pragma once
#include "backend/cpu/kernels/kernels.h"
#if defined(__aarch64__)
#include "backend/cpu/kernels/simd/neon.h"
#elif defined(__AVX512F__) && !defined(SDAR_DOT8_EVEX)
#include "backend/cpu/kernels/simd/avx512.h"
#else
#include "backend/cpu/kernels/simd/avx2.h"
#endif

namespace sdar::cpu {
namespace {

#ifndef __aarch64__
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
#endif

#ifndef SDAR_LANE_SUMS
/// Sum of the lanes in ascending order of pairs: ((0+8)+(4+12))… ; the order is fixed.
SDAR_INLINE float sum_lanes(F v) {
  alignas(64) float lane[kLanes];
  store_lanes(lane, v);
  for (int half = kLanes / 2; half; half /= 2) {
    for (int i = 0; i < half; i++) lane[i] += lane[i + half];
  }
  return lane[0];
}
SDAR_INLINE int32_t sum_of_lanes(I v) {
  alignas(64) int32_t lane[kLanes];
  store_bits(lane, v);
  int32_t sum = 0;
  for (int32_t x : lane) sum += x;
  return sum;
}
SDAR_INLINE int32_t max_lane(I v) {
  alignas(64) int32_t lane[kLanes];
  store_bits(lane, v);
  int32_t top = lane[0];
  for (int32_t x : lane) top = x > top ? x : top;
  return top;
}
/// Lanes that int8 holds, as bytes.
SDAR_INLINE void store_as_int8(std::byte* p, I v) {
  alignas(64) int32_t lane[kLanes];
  store_bits(lane, v);
  auto* to = reinterpret_cast<int8_t*>(p);
  for (int i = 0; i < kLanes; i++) to[i] = static_cast<int8_t>(lane[i]);
}
#endif
/// Lanes that int16 holds, each four in the order 0, 2, 1, 3.
SDAR_INLINE void store_as_int16(std::byte* p, I v) {
  alignas(64) int32_t lane[kLanes];
  store_bits(lane, v);
  auto* to = reinterpret_cast<int16_t*>(p);
  for (int i = 0; i < kLanes; i += 4) {
    to[i] = static_cast<int16_t>(lane[i]);
    to[i + 1] = static_cast<int16_t>(lane[i + 2]);
    to[i + 2] = static_cast<int16_t>(lane[i + 1]);
    to[i + 3] = static_cast<int16_t>(lane[i + 3]);
  }
}

/// e^x for x <= 88, relative error below 2e-7; 0 below about −87. Cody-Waite reduction, polynomial of Cephes' expf.
SDAR_INLINE F exp(F x) {
  x = max(min(x, set1(88.0f)), set1(-104.0f));
  const F n = round(mul(x, set1(1.44269504f)));
  F r = fnma(n, set1(0.693359375f), x);
  r = fnma(n, set1(-2.12194440e-4f), r);
  F p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  return scale_by_power(add(fma(p, mul(r, r), r), set1(1.0f)), n);
}

SDAR_INLINE F silu(F v) { return quotient(v, add(set1(1.0f), exp(sub(zero(), v)))); }

/// n values of y (of 16 gate and 16 up columns with silu_mul) into out.
SDAR_INLINE void finish_row(Epilogue epilogue, const float* y, int n, float* out) {
  for (int i = 0; i < n; i += kLanes) {
    const int left = n - i;
    F v = load(y + i);
    if (epilogue == Epilogue::silu_mul) v = mul(silu(v), load(y + kPanel / 2 + i));
    if (left >= kLanes) {
      store(out + i, epilogue == Epilogue::add ? add(load(out + i), v) : v);
    } else {
      store_first(out + i, left, epilogue == Epilogue::add ? add(load_first(out + i, left), v) : v);
    }
  }
}

}  // namespace
}  // namespace sdar::cpu
