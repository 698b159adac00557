// Work on single rows: activations for the panels, and reductions of logits.
#pragma once
#include "backend/cpu/kernels/vectors.h"

namespace sdar::cpu {
namespace {

constexpr int32_t kNonFinite = 0x7f800000;  // |bits| of an infinity; those of a NaN are above

/// The vector at x[i…] of n values; lanes past n are 0.
SDAR_INLINE F load_part(const float* x, int64_t i, int64_t n) {
  return n - i >= kLanes ? load(x + i) : load_first(x + i, static_cast<int>(n - i));
}

/// Σ x² in four interleaved sums.
float sum_of_squares(const float* x, int64_t n) {
  F sum[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; n - i >= 4 * kLanes; i += 4 * kLanes) {
    for (int j = 0; j < 4; j++) {
      const F v = load(x + i + j * kLanes);
      sum[j] = fma(v, v, sum[j]);
    }
  }
  for (; i < n; i += kLanes) {
    const F v = load_part(x, i, n);
    sum[0] = fma(v, v, sum[0]);
  }
  return sum_lanes(add(add(sum[0], sum[1]), add(sum[2], sum[3])));
}

/// x·scale·norm, or x; 0 past k.
SDAR_INLINE F normalised(const PrepareJob& job, F scale, int64_t i) {
  if (i >= job.k) return zero();
  const F x = load_part(job.x, i, job.k);
  return job.norm ? mul(mul(x, scale), load_part(job.norm, i, job.k)) : x;
}

#ifndef SDAR_BF16
/// To the nearest bf16, even on a tie; a NaN stays one.
SDAR_INLINE F round_to_bf16(F v) {
  const I b = bits(v);
  const I rounded = add(add(b, set1(0x7fff)), bit_and(shift_right<16>(b), set1(1)));
  const F result = from_bits(bit_and(rounded, set1(static_cast<int32_t>(0xffff0000))));
  // Rounding may carry a NaN into other numbers; v·0 + result is a NaN for a NaN, and for an infinity, which ends the
  // request as well.
  return fma(v, zero(), result);
}
#endif

/// One group of int8 values from `width` floats: scale = max|x| / 127.
SDAR_INLINE void quantise_group(const float* y, int64_t width, bool widened, std::byte* out, float* scale,
                                int32_t* sum) {
  I largest = set1(0);
  for (int64_t i = 0; i < width; i += kLanes) {
    largest = max(largest, bit_and(bits(load(y + i)), set1(0x7fffffff)));
  }
  const int32_t top = max_lane(largest);
  float magnitude;
  std::memcpy(&magnitude, &top, sizeof magnitude);
  *sum = 0;
  if (top >= kNonFinite || magnitude < 1e-30f) {
    *scale = top >= kNonFinite ? __builtin_nanf("") : 0.0f;
    std::memset(out, 0, static_cast<size_t>(width) << widened);
    return;
  }
  *scale = magnitude / 127.0f;
  const F inverse = set1(127.0f / magnitude);
  I total = set1(0);
  for (int64_t i = 0; i < width; i += kLanes) {
    const I v = to_int(mul(load(y + i), inverse));
    total = add(total, v);
    if (widened) {
      store_as_int16(out + 2 * i, v);
    } else {
      store_as_int8(out + i, v);
    }
  }
  *sum = sum_of_lanes(total);
}

#ifdef SDAR_DOT8
constexpr bool kWidenInt8 = false;
#else
constexpr bool kWidenInt8 = true;
#endif

void prepare_quantised(const PrepareJob& job, F scale) {
  const int64_t group = group_size(job.format), padded = padded_k(job.format, job.k);
  const bool widened = kWidenInt8 && job.format == WeightFormat::int8;
  const int32_t zero_point = job.format == WeightFormat::int8 ? 128 : 8;
  alignas(64) float y[128];
  for (int64_t begin = 0, g = 0; begin < padded; begin += group, g++) {
    const int64_t width = padded - begin < group ? padded - begin : group;
    for (int64_t i = 0; i < width; i += kLanes) store(y + i, normalised(job, scale, begin + i));
    int32_t sum = 0;
    quantise_group(y, width, widened, job.to.data + (begin << widened), job.to.scales + g * job.to.scale_stride, &sum);
    job.to.offsets[g * job.to.scale_stride] = -zero_point * sum;
  }
}

void prepare(const PrepareJob& job) {
  F scale = zero();
  if (job.norm) {
    const float mean = sum_of_squares(job.x, job.k) / static_cast<float>(job.k);
    // Squares beyond f32 would make a factor of 0, and plausible zeros of what went wrong.
    scale = set1(mean <= __FLT_MAX__ ? 1.0f / __builtin_sqrtf(mean + job.eps) : __builtin_nanf(""));
  }
  if (is_quantised(job.format)) return prepare_quantised(job, scale);
  const int64_t padded = padded_k(job.format, job.k);
  for (int64_t i = 0; i < padded; i += kLanes) {
    F y = normalised(job, scale, i);
    if (job.format == WeightFormat::bf16) {  // padded to whole vectors
#ifdef SDAR_BF16
      store_bf16(job.to.data + 2 * i, y);
      continue;
#else
      y = round_to_bf16(y);
#endif
    }
    float* out = reinterpret_cast<float*>(job.to.data) + i;
    if (padded - i >= kLanes) {
      store(out, y);
    } else {
      store_first(out, static_cast<int>(padded - i), y);
    }
  }
}

LogitStats logit_stats(const float* logits, int64_t n, float scale) {
  LogitStats stats;
  const F lowest = set1(-__builtin_inff());
  F top = lowest;
  I largest = set1(0);
  for (int64_t i = 0; i < n; i += kLanes) {
    F v = load_part(logits, i, n);
    largest = max(largest, bit_and(bits(v), set1(0x7fffffff)));
    if (n - i < kLanes) v = select_first(static_cast<int>(n - i), v, lowest);
    top = max(top, v);
  }
  alignas(64) float lane[kLanes];
  alignas(64) int32_t magnitude[kLanes];
  store_lanes(lane, top);
  store_bits(magnitude, largest);
  stats.max = lane[0];
  for (int i = 0; i < kLanes; i++) {
    stats.max = lane[i] > stats.max ? lane[i] : stats.max;
    stats.finite = stats.finite && magnitude[i] < kNonFinite;
  }
  const F shift = set1(stats.max), factor = set1(scale);
  F sum = zero(), weighted = zero();
  stats.argmax = -1;
  for (int64_t i = 0; i < n; i += kLanes) {
    const F v = load_part(logits, i, n);
    // Bounds: nothing is lost below e^-104 = 0, and 0 · x stays 0 for huge x and for lanes past n.
    const F x = max(min(mul(sub(v, shift), factor), zero()), set1(-104.0f));
    F e = exp(x);
    if (n - i < kLanes) e = select_first(static_cast<int>(n - i), e, zero());
    sum = add(sum, e);
    weighted = fma(e, x, weighted);
    const uint32_t same = equal(v, shift);
    if (stats.argmax < 0 && same) stats.argmax = static_cast<int32_t>(i) + __builtin_ctz(same);
  }
  stats.sum = sum_lanes(sum);
  stats.weighted = sum_lanes(weighted);
  return stats;
}

void exp_shifted(const float* x, int64_t n, float max, float scale, float* out) {
  const F shift = set1(max), factor = set1(scale);
  for (int64_t i = 0; i < n; i += kLanes) {
    const F e = exp(mul(sub(load_part(x, i, n), shift), factor));
    if (n - i >= kLanes) {
      store(out + i, e);
    } else {
      store_first(out + i, static_cast<int>(n - i), e);
    }
  }
}

int at_least(const float* logits, int64_t n, float least, const uint64_t* mask, uint8_t* indices) {
  const F bound = set1(least);
  int count = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const F v = load_part(logits, i, n);
    uint32_t hits = equal(max(v, bound), v);
    if (n - i < kLanes) hits &= (1u << (n - i)) - 1;
    if (mask) hits &= static_cast<uint32_t>(mask[i / 64] >> i % 64);
    for (; hits; hits &= hits - 1) indices[count++] = static_cast<uint8_t>(i + __builtin_ctz(hits));
  }
  return count;
}

}  // namespace
}  // namespace sdar::cpu
