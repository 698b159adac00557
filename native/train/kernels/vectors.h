// Loops over a row that the compiler turns into vectors without being allowed to reorder a sum.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "train/kernels/formats.h"

namespace sdar::train {
namespace {

constexpr int kPartial = 16;  ///< partial sums of a reduction: element i goes to sum i mod 16

/// a · b + c, with one rounding where the set has it.
inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

/// e^x to about 2 units in the last place; below -87 it stays at e^-87. A NaN stays one. 2^n is added to the exponent's
/// bits, n taken from the bits of a float large enough to have no fraction. Polynomial: Taylor on |r| ≤ ln2 / 2.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = multiply_add(x, 1.44269504f, 12582912.0f);
  const float n = shifted - 12582912.0f;
  const float r = multiply_add(n, 2.12194440e-4f, multiply_add(n, -0.693359375f, x));
  float y = multiply_add(1.0f / 5040, r, 1.0f / 720);
  y = multiply_add(y, r, 1.0f / 120);
  y = multiply_add(y, r, 1.0f / 24);
  y = multiply_add(y, r, 1.0f / 6);
  y = multiply_add(y, r, 0.5f);
  y = multiply_add(y, r, 1.0f);
  y = multiply_add(y, r, 1.0f);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(y) + (std::bit_cast<uint32_t>(shifted) << 23));
}

/// The partial sums, in ascending pairs.
inline float total(float* sums) {
  for (int step = kPartial / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) sums[i] += sums[i + step];
  return sums[0];
}

/// Σ term(i), i in [0, n).
template <class Term>
inline float sum_of(int64_t n, Term&& term) {
  float sums[kPartial] = {};
  int64_t i = 0;
  for (; i + kPartial <= n; i += kPartial)
    for (int j = 0; j < kPartial; j++) sums[j] += term(i + j);
  for (; i < n; i++) sums[i % kPartial] += term(i);
  return total(sums);
}

inline float dot(const float* a, const float* b, int64_t n) {
  return sum_of(n, [&](int64_t i) { return a[i] * b[i]; });
}

/// A NaN may be passed over.
inline float row_maximum(const float* x, int64_t n) {
  float most[kPartial];
  for (float& m : most) m = x[0];
  int64_t i = 0;
  for (; i + kPartial <= n; i += kPartial)
    for (int j = 0; j < kPartial; j++) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
  for (; i < n; i++) most[0] = x[i] > most[0] ? x[i] : most[0];
  for (const float m : most) most[0] = m > most[0] ? m : most[0];
  return most[0];
}

/// x becomes exp(x · scale - maximum); the sum.
inline float exp_below(float* x, int64_t n, float scale, float maximum) {
  return sum_of(n, [&](int64_t i) { return x[i] = exponential(x[i] * scale - maximum); });
}

/// A NaN in x is one in the sum, whatever the maximum is.
float exp_row(float* x, int64_t n, float* maximum) {
  *maximum = row_maximum(x, n);
  return exp_below(x, n, 1, *maximum);
}

void scale_row(float* x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

void round_row(const float* x, int64_t n, const OperandOut& out) { put(x, n, out, 0); }

constexpr int64_t kChunk = 512;  ///< values between a loop and the rounding of what it gives

void silu_mul(const float* gate, const float* up, const OperandOut& out, int64_t n) {
  alignas(64) float values[kChunk];
  for (int64_t first = 0; first < n; first += kChunk) {
    const int64_t count = std::min(kChunk, n - first);
    for (int64_t i = 0; i < count; i++) {
      const float g = gate[first + i];
      values[i] = g / (1.0f + exponential(-g)) * up[first + i];
    }
    put(values, count, out, first);
  }
}

void silu_mul_backward(const float* gate, const float* up, const float* d_out, const OperandOut& d_gate,
                       const OperandOut& d_up, int64_t n) {
  alignas(64) float of_gate[kChunk], of_up[kChunk];
  for (int64_t first = 0; first < n; first += kChunk) {
    const int64_t count = std::min(kChunk, n - first);
    for (int64_t i = 0; i < count; i++) {
      const float g = gate[first + i], d = d_out[first + i], sigmoid = 1.0f / (1.0f + exponential(-g));
      of_up[i] = d * g * sigmoid;
      of_gate[i] = d * up[first + i] * sigmoid * (1.0f + g * (1.0f - sigmoid));
    }
    put(of_gate, count, d_gate, first);
    put(of_up, count, d_up, first);
  }
}

void rms_norm(const float* x, int64_t m, int64_t width, const float* weight, float eps, const OperandOut& y,
              float* factor) {
  alignas(64) float values[kChunk];
  for (int64_t i = 0; i < m; i++, x += width) {
    const float f = 1 / std::sqrt(dot(x, x, width) / static_cast<float>(width) + eps);
    factor[i] = f;
    for (int64_t first = 0; first < width; first += kChunk) {
      const int64_t count = std::min(kChunk, width - first);
      for (int64_t j = 0; j < count; j++) values[j] = x[first + j] * f * weight[first + j];
      put(values, count, y, i * width + first);
    }
  }
}

void rms_norm_backward(const float* x, const float* factor, const float* dy, int64_t m, int64_t width,
                       const float* weight, const OperandOut& dx, bool add, float* d_weight) {
  alignas(64) float values[kChunk];
  for (int64_t i = 0; i < m; i++, x += width, dy += width) {
    const float along = sum_of(width, [&](int64_t j) { return dy[j] * weight[j] * x[j]; });
    const float f = factor[i], back = along / static_cast<float>(width) * f * f * f;
    for (int64_t first = 0; first < width; first += kChunk) {
      const int64_t count = std::min(kChunk, width - first);
      const float *row = x + first, *d_row = dy + first;
      float* sums = d_weight + first;
      for (int64_t j = 0; j < count; j++) values[j] = d_row[j] * weight[first + j] * f - row[j] * back;
      for (int64_t j = 0; j < count; j++) sums[j] += d_row[j] * row[j] * f;
      if (add)
        for (int64_t j = 0; j < count; j++) static_cast<float*>(dx.data)[i * width + first + j] += values[j];
      else
        put(values, count, dx, i * width + first);
    }
  }
}

void rope(float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin, bool back) {
  const int64_t half = head_dim / 2;
  const float sign = back ? -1.0f : 1.0f;
  for (int64_t head = 0; head < heads; head++) {
    float *low = x + head * head_dim, *high = low + half;
#pragma GCC ivdep
    for (int64_t d = 0; d < half; d++) {
      const float a = low[d], b = high[d], s = sign * sin[d];
      low[d] = a * cos[d] - b * s;
      high[d] = b * cos[d] + a * s;
    }
  }
}

}  // namespace
}  // namespace sdar::train
