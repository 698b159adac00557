// The vocabulary of vectors for 64-bit Arm: four lanes. What is not in the base set is chosen by the flags of the
// including file. Internal linkage, so that each instruction set keeps its own copy.
#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backend/cpu/kernels/kernels.h"

namespace sdar::cpu {
namespace {

constexpr int kLanes = 4;
using F = float32x4_t;
using I = int32x4_t;
SDAR_INLINE F zero() { return vdupq_n_f32(0.0f); }
SDAR_INLINE F set1(float v) { return vdupq_n_f32(v); }
SDAR_INLINE I set1(int32_t v) { return vdupq_n_s32(v); }
SDAR_INLINE F load(const float* p) { return vld1q_f32(p); }
SDAR_INLINE void store(float* p, F v) { vst1q_f32(p, v); }
SDAR_INLINE void store_lanes(float* p, F v) { vst1q_f32(p, v); }
SDAR_INLINE void store_bits(int32_t* p, I v) { vst1q_s32(p, v); }
/// The first n lanes, n < kLanes; the others are 0 and not touched in memory.
SDAR_INLINE F load_first(const float* p, int n) {
  float lane[kLanes] = {};
  std::memcpy(lane, p, static_cast<size_t>(n) * sizeof(float));
  return load(lane);
}
SDAR_INLINE void store_first(float* p, int n, F v) {
  float lane[kLanes];
  store(lane, v);
  std::memcpy(p, lane, static_cast<size_t>(n) * sizeof(float));
}
/// The first n lanes of a, the others of b.
SDAR_INLINE F select_first(int n, F a, F b) { return vbslq_f32(vcltq_s32(I{0, 1, 2, 3}, set1(n)), a, b); }
SDAR_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
SDAR_INLINE F sub(F a, F b) { return vsubq_f32(a, b); }
SDAR_INLINE F mul(F a, F b) { return vmulq_f32(a, b); }
SDAR_INLINE F quotient(F a, F b) { return vdivq_f32(a, b); }
SDAR_INLINE F max(F a, F b) { return vmaxq_f32(a, b); }
SDAR_INLINE F min(F a, F b) { return vminq_f32(a, b); }
SDAR_INLINE F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
SDAR_INLINE F fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }
SDAR_INLINE F round(F v) { return vrndnq_f32(v); }
SDAR_INLINE I to_int(F v) { return vcvtnq_s32_f32(v); }
SDAR_INLINE F to_float(I v) { return vcvtq_f32_s32(v); }
SDAR_INLINE I bits(F v) { return vreinterpretq_s32_f32(v); }
SDAR_INLINE F from_bits(I v) { return vreinterpretq_f32_s32(v); }
SDAR_INLINE I bit_and(I a, I b) { return vandq_s32(a, b); }
SDAR_INLINE I add(I a, I b) { return vaddq_s32(a, b); }
SDAR_INLINE I max(I a, I b) { return vmaxq_s32(a, b); }
template <int N>
SDAR_INLINE I shift_left(I v) {
  return vshlq_n_s32(v, N);
}
template <int N>
SDAR_INLINE I shift_right(I v) {
  return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(v), N));
}
/// Lanes of equal floats, as bits of an integer.
SDAR_INLINE uint32_t equal(F a, F b) { return vaddvq_u32(vandq_u32(vceqq_f32(a, b), uint32x4_t{1, 2, 4, 8})); }
/// v · 2^n for integral n; flushes to 0 below the normal range.
SDAR_INLINE F scale_by_power(F v, F n) {
  const F power = from_bits(shift_left<23>(add(to_int(n), set1(127))));
  return vbslq_f32(vcltq_f32(n, set1(-126.0f)), zero(), mul(v, power));
}
#define SDAR_DOT8 1  // int8 activations stay bytes
#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
#define SDAR_BF16 1
SDAR_INLINE void store_bf16(void* p, F v) { vst1_bf16(static_cast<bfloat16_t*>(p), vcvt_bf16_f32(v)); }
#endif

}  // namespace
}  // namespace sdar::cpu
