// What attention does with single heads before and after the pages: plain loops that the compiler turns into vectors of
// the including file's instruction set, with the same result in all of them. Included by one translation unit per set,
// hence the unnamed namespace.
#pragma once
#include "backend/cpu/kernels/kernels.h"

namespace sdar::cpu {
namespace {

/// 1 / sqrt(mean(x²) + eps), NaN where that overflows.
float rms_factor(const float* x, int n, float eps) {
  float squares[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int j = 0; j < 16; j++) squares[j] += x[i + j] * x[i + j];
  }
  for (int j = 0; i + j < n; j++) squares[j] += x[i + j] * x[i + j];
  float sum = 0;
  for (float s : squares) sum += s;
  const float mean = sum / static_cast<float>(n);
  return mean <= __FLT_MAX__ ? 1 / __builtin_sqrtf(mean + eps) : __builtin_nanf("");
}

/// The second halves of x, norm and out start at `half`; nothing overlaps.
void rotate(const float* __restrict x, const float* __restrict norm, const float* __restrict cos,
            const float* __restrict sin, int half, float factor, float scale, float* __restrict low,
            float* __restrict high) {
  for (int i = 0; i < half; i++) {
    const float a = x[i] * factor * norm[i], b = x[i + half] * factor * norm[i + half];
    low[i] = (a * cos[i] - b * sin[i]) * scale;
    high[i] = (b * cos[i] + a * sin[i]) * scale;
  }
}

void norm_and_rotate(const HeadRow& row) {
  const int half = row.dim / 2;
  rotate(row.x, row.norm, row.cos, row.sin, half, rms_factor(row.x, row.dim, row.eps), row.scale, row.out,
         row.out + half);
}

void divide(const float* __restrict acc, const float* __restrict sums, int n, float* __restrict out) {
  float sum = 0;
  for (int i = 0; i < 16; i++) sum += sums[i];
  const float factor = 1 / sum;
  for (int i = 0; i < n; i++) out[i] = acc[i] * factor;
}

}  // namespace
}  // namespace sdar::cpu
