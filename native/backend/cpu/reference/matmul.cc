#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/reference/loops.h"
#include "util/half.h"

namespace sdar::cpu::reference {
namespace {

int32_t dot_integers(const int8_t* a, const int8_t* b, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

void matmul_float(const float* in, int32_t m, const PackedWeight& weight, float* out) {
  const int64_t n = weight.spec.rows, k = weight.spec.cols;
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t j = 0; j < n; j++) {
    weight.load_row(j, row.data());
    for (int64_t i = 0; i < m; i++) out[i * n + j] = static_cast<float>(dot(in + i * k, row.data(), k));
  }
}

/// q[n] = x / scale to the nearest integer, scale = max|x| / 127, which is returned: by the reciprocal, as the kernels
/// do it, so that ties fall the same way. When x holds a NaN or infinity the scale is NaN.
float quantise_activations(const float* x, int64_t n, int8_t* q) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    finite = finite && std::isfinite(x[i]);
    largest = std::max(largest, std::abs(x[i]));
  }
  if (!finite || largest < 1e-30f) {
    std::fill_n(q, n, int8_t{0});
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  const float inverse = 127.0f / largest;
  for (int64_t i = 0; i < n; i++) q[i] = static_cast<int8_t>(std::lrint(x[i] * inverse));
  return largest / 127.0f;
}

void matmul_quantised(const float* in, int32_t m, const PackedWeight& weight, float* out) {
  const int64_t n = weight.spec.rows, k = weight.spec.cols, group = quantised_group(weight.format());
  const int64_t groups = groups_of(weight.format(), k);
  std::vector<int8_t> a(static_cast<size_t>(m * k)), b(static_cast<size_t>(k));
  std::vector<float> a_scale(static_cast<size_t>(m * groups));
  const auto width = [&](int64_t g) { return std::min(group, k - g * group); };
  for (int64_t i = 0; i < m; i++) {
    for (int64_t g = 0; g < groups; g++) {
      const int64_t at = i * k + g * group;
      a_scale[i * groups + g] = quantise_activations(in + at, width(g), &a[at]);
    }
  }
  for (int64_t j = 0; j < n; j++) {
    weight.load_integers(j, b.data());
    const float* b_scale = weight.scales(j);
    for (int64_t i = 0; i < m; i++) {
      double sum = 0;
      for (int64_t g = 0; g < groups; g++) {
        const int32_t dot = dot_integers(&a[i * k + g * group], &b[g * group], width(g));
        sum += static_cast<double>(a_scale[i * groups + g]) * b_scale[g] * dot;
      }
      out[i * n + j] = static_cast<float>(sum);
    }
  }
}

}  // namespace

double dot(const float* a, const float* b, int64_t n) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; j++) sums[j] += static_cast<double>(a[i + j]) * b[i + j];
  }
  for (; i < n; i++) sums[i % 8] += static_cast<double>(a[i]) * b[i];
  double sum = 0;
  for (double s : sums) sum += s;
  return sum;
}

void rms_norm(const float* x, const float* norm, int64_t n, float eps, float* y) {
  const float mean = static_cast<float>(dot(x, x, n) / static_cast<double>(n));
  const float scale = std::isfinite(mean) ? 1.0f / std::sqrt(mean + eps) : std::numeric_limits<float>::quiet_NaN();
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale * norm[i];
}

void matmul(const float* in, int32_t m, const PackedWeight& weight, float* out) {
  const WeightFormat format = weight.format();
  if (is_quantised(format)) return matmul_quantised(in, m, weight, out);
  if (format == WeightFormat::f32) return matmul_float(in, m, weight, out);
  std::vector<float> rounded(in, in + m * weight.spec.cols);
  for (float& v : rounded) v = round_to_bf16(v);
  matmul_float(rounded.data(), m, weight, out);
}

void silu_multiply(const float* both, int32_t m, int64_t n, float* out) {
  for (int64_t i = 0; i < m; i++) {
    const float *gate = both + i * 2 * n, *up = gate + n;
    for (int64_t j = 0; j < n; j++) out[i * n + j] = gate[j] / (1.0f + std::exp(-gate[j])) * up[j];
  }
}

}  // namespace sdar::cpu::reference
