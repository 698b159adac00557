#include "train/ops.h"

#include <cmath>
#include <cstring>

namespace sdar::train {
namespace {

constexpr int64_t kRowChunk = 64, kColumnChunk = 16, kElementChunk = 16384;

}  // namespace

void embed(Compute& compute, const int32_t* ids, int64_t m, int64_t width, const float* table, float* x) {
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      std::memcpy(x + i * width, table + ids[i] * width, static_cast<size_t>(width) * sizeof *x);
  });
}

void embed_backward_row(const int32_t* ids, int64_t m, int64_t width, const float* dx, int32_t id, float* d_row) {
  for (int64_t i = 0; i < m; i++)
    if (ids[i] == id)
      for (int64_t j = 0; j < width; j++) d_row[j] += dx[i * width + j];
}

void embed_backward(Compute& compute, const int32_t* ids, int64_t m, int64_t width, const float* dx, float* d_table) {
  // By columns: an id may come in many rows.
  compute.split(width, kColumnChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = begin; j < end; j++) d_table[ids[i] * width + j] += dx[i * width + j];
  });
}

void rms_norm(Compute& compute, const float* x, int64_t m, int64_t width, const float* weight, float eps, float* y,
              float* factor) {
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = x + i * width;
      double squares = 0;
      for (int64_t j = 0; j < width; j++) squares += static_cast<double>(row[j]) * row[j];
      factor[i] = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(width) + eps));
      for (int64_t j = 0; j < width; j++) y[i * width + j] = row[j] * factor[i] * weight[j];
    }
  });
}

void rms_norm_backward(Compute& compute, const float* x, const float* factor, const float* dy, int64_t m, int64_t width,
                       const float* weight, float* dx, float* d_weight) {
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float *row = x + i * width, *d_row = dy + i * width;
      double along = 0;  // of dy · weight and x
      for (int64_t j = 0; j < width; j++) along += static_cast<double>(d_row[j] * weight[j]) * row[j];
      const float f = factor[i], back = static_cast<float>(along / static_cast<double>(width)) * f * f * f;
      for (int64_t j = 0; j < width; j++) dx[i * width + j] += d_row[j] * weight[j] * f - row[j] * back;
    }
  });
  if (!d_weight) return;
  compute.split(width, kColumnChunk, [&](int64_t begin, int64_t end) {
    double sums[kColumnChunk] = {};
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = begin; j < end; j++) sums[j - begin] += dy[i * width + j] * x[i * width + j] * factor[i];
    for (int64_t j = begin; j < end; j++) d_weight[j] += static_cast<float>(sums[j - begin]);
  });
}

void linear(Compute& compute, const float* x, int64_t m, int64_t in, int64_t out, const float* weight, float* y,
            bool add) {
  multiply(compute, m, out, in, {x, in, 1}, {weight, 1, in}, y, out, add);
}

void linear_backward(Compute& compute, const float* x, const float* dy, int64_t m, int64_t in, int64_t out,
                     const float* weight, float* dx, bool add, float* d_weight) {
  multiply(compute, m, in, out, {dy, out, 1}, {weight, in, 1}, dx, in, add);
  if (d_weight) multiply(compute, out, in, m, {dy, 1, out}, {x, in, 1}, d_weight, in, true);
}

void add_bias(Compute& compute, const float* bias, int64_t m, int64_t width, float* y) {
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t j = 0; j < width; j++) y[i * width + j] += bias[j];
  });
}

void add_bias_backward(Compute& compute, const float* dy, int64_t m, int64_t width, float* d_bias) {
  compute.split(width, kColumnChunk, [&](int64_t begin, int64_t end) {
    double sums[kColumnChunk] = {};
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = begin; j < end; j++) sums[j - begin] += dy[i * width + j];
    for (int64_t j = begin; j < end; j++) d_bias[j] += static_cast<float>(sums[j - begin]);
  });
}

void rope(Compute& compute, float* x, int64_t m, int32_t heads, int32_t head_dim, Angles angles, bool back) {
  const int32_t half = head_dim / 2;
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float *cos = angles.cos + i * half, *sin = angles.sin + i * half;
      for (int32_t head = 0; head < heads; head++) {
        float *low = x + (i * heads + head) * head_dim, *high = low + half;
        for (int32_t d = 0; d < half; d++) {
          const float a = low[d], b = high[d], s = back ? -sin[d] : sin[d];
          low[d] = a * cos[d] - b * s;
          high[d] = b * cos[d] + a * s;
        }
      }
    }
  });
}

namespace {

struct AttentionTensors {
  const float *q, *k, *v;
  float *o, *logsumexp;
};

/// visit(group, first query element, first key element, scratch) for each sample and KV head, over the threads.
template <class Visit>
void for_groups(Compute& compute, const TrainingRows& rows, const AttentionShape& s, const AttentionTensors& t,
                Visit&& visit) {
  int64_t longest = 0;
  for (const Span& sample : rows.samples) longest = std::max<int64_t>(longest, sample.end - sample.begin);
  const int64_t groups = static_cast<int64_t>(rows.samples.size()) * s.kv_heads;
  const int64_t floats = compute.kernels().attention_scratch(longest, s.head_dim);
  compute.with_scratch(groups, floats, [&](int64_t index, float* scratch) {
    const int64_t kv_head = index % s.kv_heads, per_group = s.heads / s.kv_heads;
    const int64_t query = kv_head * per_group * s.head_dim, key = kv_head * s.head_dim;
    const HeadGroup group{.rows = rows.samples[static_cast<size_t>(index / s.kv_heads)],
                          .sight = rows.sight.data(),
                          .q = t.q + query,
                          .k = t.k + key,
                          .v = t.v + key,
                          .o = t.o + query,
                          .logsumexp = t.logsumexp + kv_head * per_group,
                          .q_stride = int64_t{s.heads} * s.head_dim,
                          .k_stride = int64_t{s.kv_heads} * s.head_dim,
                          .lse_stride = s.heads,
                          .heads = static_cast<int32_t>(per_group),
                          .head_dim = s.head_dim,
                          .scale = 1 / std::sqrt(static_cast<float>(s.head_dim))};
    visit(group, query, key, scratch);
  });
}

}  // namespace

void attention(Compute& compute, const TrainingRows& rows, const AttentionShape& shape, const float* q, const float* k,
               const float* v, float* o, float* logsumexp) {
  for_groups(
      compute, rows, shape, {q, k, v, o, logsumexp},
      [&](const HeadGroup& group, int64_t, int64_t, float* scratch) { compute.kernels().attention(group, scratch); });
}

void attention_backward(Compute& compute, const TrainingRows& rows, const AttentionShape& shape, const float* q,
                        const float* k, const float* v, const float* o, const float* logsumexp, const float* d_o,
                        float* dq, float* dk, float* dv) {
  const int64_t keys = rows.size() * shape.kv_heads * shape.head_dim;
  std::fill_n(dk, keys, 0.0f);
  std::fill_n(dv, keys, 0.0f);
  // What the backward pass only reads has no const in a group, which both passes share.
  const AttentionTensors tensors{q, k, v, const_cast<float*>(o), const_cast<float*>(logsumexp)};
  for_groups(compute, rows, shape, tensors, [&](const HeadGroup& group, int64_t query, int64_t key, float* scratch) {
    compute.kernels().attention_backward(group, {d_o + query, dq + query, dk + key, dv + key}, scratch);
  });
}

void silu_mul(Compute& compute, const float* gate, const float* up, float* out, int64_t n) {
  compute.split(n, kElementChunk, [&](int64_t begin, int64_t end) {
    compute.kernels().silu_mul(gate + begin, up + begin, out + begin, end - begin);
  });
}

void silu_mul_backward(Compute& compute, const float* gate, const float* up, const float* d_out, float* d_gate,
                       float* d_up, int64_t n) {
  compute.split(n, kElementChunk, [&](int64_t begin, int64_t end) {
    compute.kernels().silu_mul_backward(gate + begin, up + begin, d_out + begin, d_gate + begin, d_up + begin,
                                        end - begin);
  });
}

}  // namespace sdar::train
