// Loops over a row that the compiler turns into vectors without being allowed to reorder a sum.
#pragma once
#include <bit>
#include <cstdint>

namespace sdar::train {
namespace {

constexpr int kPartial = 16;  ///< partial sums of a reduction: element i goes to sum i mod 16

/// e^x to about 2 units in the last place; below -87 it stays at e^-87. A NaN stays one. 2^n is added to the exponent's
/// bits, n taken from the bits of a float large enough to have no fraction. Polynomial: Taylor on |r| ≤ ln2 / 2.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float y = 1.0f / 5040;
  y = y * r + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(y) + (std::bit_cast<uint32_t>(shifted) << 23));
}

/// The partial sums, in ascending pairs.
inline float total(float* sums) {
  for (int step = kPartial / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) sums[i] += sums[i + step];
  return sums[0];
}

inline float dot(const float* a, const float* b, int64_t n) {
  float sums[kPartial] = {};
  int64_t i = 0;
  for (; i + kPartial <= n; i += kPartial)
    for (int j = 0; j < kPartial; j++) sums[j] += a[i + j] * b[i + j];
  for (; i < n; i++) sums[i % kPartial] += a[i] * b[i];
  return total(sums);
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

/// x becomes exp(x - maximum); the sum.
inline float exp_below(float* x, int64_t n, float maximum) {
  float sums[kPartial] = {};
  int64_t i = 0;
  for (; i + kPartial <= n; i += kPartial) {
    for (int j = 0; j < kPartial; j++) {
      x[i + j] = exponential(x[i + j] - maximum);
      sums[j] += x[i + j];
    }
  }
  for (; i < n; i++) {
    x[i] = exponential(x[i] - maximum);
    sums[i % kPartial] += x[i];
  }
  return total(sums);
}

/// A NaN in x is one in the sum, whatever the maximum is.
float exp_row(float* x, int64_t n, float* maximum) {
  *maximum = row_maximum(x, n);
  return exp_below(x, n, *maximum);
}

void silu_mul(const float* __restrict gate, const float* __restrict up, float* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; i++) out[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
}

void silu_mul_backward(const float* gate, const float* up, const float* d_out, float* d_gate, float* d_up, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    const float g = gate[i], u = up[i], sigmoid = 1.0f / (1.0f + exponential(-g));
    d_up[i] = d_out[i] * g * sigmoid;
    d_gate[i] = d_out[i] * u * sigmoid * (1.0f + g * (1.0f - sigmoid));
  }
}

}  // namespace
}  // namespace sdar::train
