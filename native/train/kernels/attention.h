// Attention of one KV head's group, forward and backward. Scores of a query are sums over head_dim ascending, outputs
// and gradients sums over rows ascending, so nothing depends on how groups are given to threads.
#pragma once
#include <cmath>
#include <cstring>

#include "train/kernels/kernels.h"
#include "train/kernels/vectors.h"

namespace sdar::train {
namespace {

/// to[j] += Σ_i factor[i] · from[i · stride + j] for j < n, i ascending, four at a time so that `to` is touched seldom.
inline void add_rows(float* __restrict to, const float* factor, const float* from, int64_t stride, int64_t rows,
                     int64_t n) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const float a = factor[i], b = factor[i + 1], c = factor[i + 2], d = factor[i + 3];
    const float *x = from + i * stride, *y = x + stride, *z = y + stride, *w = z + stride;
    for (int64_t j = 0; j < n; j++) to[j] = to[j] + a * x[j] + b * y[j] + c * z[j] + d * w[j];
  }
  for (; i < rows; i++) {
    const float a = factor[i];
    const float* x = from + i * stride;
    for (int64_t j = 0; j < n; j++) to[j] += a * x[j];
  }
}

/// [rows, head_dim] with a stride to [head_dim, rows], so that scores of neighbouring rows are computed together.
inline void transpose(const float* from, int64_t stride, int64_t rows, int32_t head_dim, float* to) {
  for (int64_t i = 0; i < rows; i++)
    for (int32_t d = 0; d < head_dim; d++) to[d * rows + i] = from[i * stride + d];
}

/// s[j] = Σ_d x[d] · transposed[d, j] for the rows that `sight` sees, packed one part after the other; their number.
inline int64_t products(const HeadGroup& g, const Sight& sight, const float* x, const float* transposed, float* s) {
  const int64_t rows = g.rows.end - g.rows.begin;
  int64_t n = 0;
  for (const Span& part : sight.parts) {
    const int64_t count = part.end - part.begin;
    std::memset(s + n, 0, static_cast<size_t>(count) * sizeof *s);
    add_rows(s + n, x, transposed + (part.begin - g.rows.begin), rows, g.head_dim, count);
    n += count;
  }
  return n;
}

void attention(const HeadGroup& g, float* scratch) {
  const int64_t rows = g.rows.end - g.rows.begin;
  float *keys = scratch, *s = scratch + 2 * rows * g.head_dim;
  transpose(g.k + g.rows.begin * g.k_stride, g.k_stride, rows, g.head_dim, keys);
  for (int64_t row = g.rows.begin; row < g.rows.end; row++) {
    const Sight& sight = g.sight[row];
    for (int32_t head = 0; head < g.heads; head++) {
      const float* q = g.q + row * g.q_stride + head * g.head_dim;
      float* o = g.o + row * g.q_stride + head * g.head_dim;
      const int64_t n = products(g, sight, q, keys, s);
      for (int64_t j = 0; j < n; j++) s[j] *= g.scale;
      float maximum = 0;
      const float sum = exp_row(s, n, &maximum);
      g.logsumexp[row * g.lse_stride + head] = maximum + std::log(sum);
      std::memset(o, 0, static_cast<size_t>(g.head_dim) * sizeof *o);
      const float* p = s;
      for (const Span& part : sight.parts) {
        add_rows(o, p, g.v + part.begin * g.k_stride, g.k_stride, part.end - part.begin, g.head_dim);
        p += part.end - part.begin;
      }
      for (int32_t d = 0; d < g.head_dim; d++) o[d] /= sum;
    }
  }
}

void attention_backward(const HeadGroup& g, const HeadGroupGradients& to, float* scratch) {
  const int64_t rows = g.rows.end - g.rows.begin;
  float *keys = scratch, *values = keys + rows * g.head_dim, *p = values + rows * g.head_dim, *ds = p + rows;
  transpose(g.k + g.rows.begin * g.k_stride, g.k_stride, rows, g.head_dim, keys);
  transpose(g.v + g.rows.begin * g.k_stride, g.k_stride, rows, g.head_dim, values);
  for (int64_t row = g.rows.begin; row < g.rows.end; row++) {
    const Sight& sight = g.sight[row];
    for (int32_t head = 0; head < g.heads; head++) {
      const int64_t at = row * g.q_stride + head * g.head_dim;
      const float *q = g.q + at, *d_o = to.d_o + at;
      float* dq = to.dq + at;
      const int64_t n = products(g, sight, q, keys, p);
      products(g, sight, d_o, values, ds);
      const float logsumexp = g.logsumexp[row * g.lse_stride + head];
      const float mean = dot(d_o, g.o + at, g.head_dim);  // Σ_j p_j · dp_j
      for (int64_t j = 0; j < n; j++) {
        p[j] = exponential(p[j] * g.scale - logsumexp);
        ds[j] = p[j] * (ds[j] - mean) * g.scale;
      }
      std::memset(dq, 0, static_cast<size_t>(g.head_dim) * sizeof *dq);
      int64_t j = 0;
      for (const Span& part : sight.parts) {
        add_rows(dq, ds + j, g.k + part.begin * g.k_stride, g.k_stride, part.end - part.begin, g.head_dim);
        for (int64_t key = part.begin; key < part.end; key++, j++) {
          float* __restrict dk = to.dk + key * g.k_stride;
          float* __restrict dv = to.dv + key * g.k_stride;
          const float a = ds[j], b = p[j];
          for (int32_t d = 0; d < g.head_dim; d++) {
            dk[d] += a * q[d];
            dv[d] += b * d_o[d];
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace sdar::train
