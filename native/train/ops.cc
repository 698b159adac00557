#include "train/ops.h"

#include <cmath>
#include <cstring>

#include "util/half.h"

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

void rms_norm(Compute& compute, const float* x, int64_t m, int64_t width, const float* weight, float eps,
              const OperandOut& y, float* factor) {
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    compute.kernels().rms_norm(x + begin * width, end - begin, width, weight, eps, y.at(begin * width), factor + begin);
  });
}

namespace {

/// body(first row, last row, its own sums [width], zeros) for chunks of rows; d_weight, if any, += those of all, in order.
template <class Body>
void sum_over_rows(Compute& compute, int64_t m, int64_t width, float* d_weight, Body&& body) {
  const int64_t chunks = (m + kRowChunk - 1) / kRowChunk;
  float* sums = compute.shared(chunks * width);
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    float* own = sums + begin / kRowChunk * width;
    std::fill_n(own, width, 0.0f);
    body(begin, end, own);
  });
  if (!d_weight) return;
  for (int64_t j = 0; j < width; j++) {
    double sum = 0;
    for (int64_t i = 0; i < chunks; i++) sum += sums[i * width + j];
    d_weight[j] += static_cast<float>(sum);
  }
}

}  // namespace

void rms_norm_backward(Compute& compute, const float* x, const float* factor, const float* dy, int64_t m, int64_t width,
                       const float* weight, float* dx, bool add, float* d_weight) {
  sum_over_rows(compute, m, width, d_weight, [&](int64_t begin, int64_t end, float* sums) {
    const int64_t at = begin * width;
    compute.kernels().rms_norm_backward(x + at, factor + begin, dy + at, end - begin, width, weight, dx + at, add,
                                        sums);
  });
}

void linear(Compute& compute, const Operand& x, int64_t m, int64_t in, int64_t out, const Operand& weight, float* y,
            const float* onto) {
  multiply(compute, m, out, in, {x, in, 1}, {weight, 1, in}, y, out, onto);
}

void linear_backward(Compute& compute, const Operand& x, const Operand& dy, int64_t m, int64_t in, int64_t out,
                     const Operand& weight, float* dx, bool add, float* d_weight) {
  multiply(compute, m, in, out, {dy, out, 1}, {weight, in, 1}, dx, in, add ? dx : nullptr);
  if (d_weight) multiply(compute, out, in, m, {dy, 1, out}, {x, in, 1}, d_weight, in, d_weight);
}

namespace {

float value_of(const Operand& x, int64_t index) {
  return x.format == Format::f32 ? static_cast<const float*>(x.data)[index]
                                 : bf16_to_f32(static_cast<const uint16_t*>(x.data)[index]);
}

}  // namespace

void add_bias(Compute& compute, const float* bias, int64_t m, int64_t width, float* y) {
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t j = 0; j < width; j++) y[i * width + j] += bias[j];
  });
}

void add_bias_backward(Compute& compute, const Operand& dy, int64_t m, int64_t width, float* d_bias) {
  sum_over_rows(compute, m, width, d_bias, [&](int64_t begin, int64_t end, float* sums) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t j = 0; j < width; j++) sums[j] += value_of(dy, i * width + j);
  });
}

void norm_rope(Compute& compute, const float* x, int64_t m, int64_t heads, int64_t head_dim, const float* weight,
               float eps, Angles angles, const OperandOut& y, float* factor) {
  const Kernels& kernels = compute.kernels();
  const int64_t width = heads * head_dim, half = head_dim / 2;
  compute.with_scratch((m + kRowChunk - 1) / kRowChunk, width, [&](int64_t chunk, float* row) {
    for (int64_t i = chunk * kRowChunk; i < std::min(m, (chunk + 1) * kRowChunk); i++) {
      kernels.rms_norm(x + i * width, heads, head_dim, weight, eps, row, factor + i * heads);
      kernels.rope(row, heads, head_dim, angles.cos + i * half, angles.sin + i * half, false);
      kernels.round(row, width, y.at(i * width));
    }
  });
}

void norm_rope_backward(Compute& compute, const float* x, const float* factor, float* dy, int64_t m, int64_t heads,
                        int64_t head_dim, const float* weight, Angles angles, const OperandOut& dx, float* d_weight) {
  const Kernels& kernels = compute.kernels();
  const int64_t width = heads * head_dim, half = head_dim / 2;
  sum_over_rows(compute, m, head_dim, d_weight, [&](int64_t begin, int64_t end, float* sums) {
    for (int64_t i = begin; i < end; i++) {
      kernels.rope(dy + i * width, heads, head_dim, angles.cos + i * half, angles.sin + i * half, true);
      kernels.rms_norm_backward(x + i * width, factor + i * heads, dy + i * width, heads, head_dim, weight,
                                dx.at(i * width), false, sums);
    }
  });
}

namespace {

struct AttentionTensors {
  const Operand &q, &k, &v;
  float *o, *logsumexp;
};

/// visit(group, first query element, first key element, scratch) for each sample and KV head, over the threads.
template <class Visit>
void for_groups(Compute& compute, const TrainingRows& rows, const AttentionShape& s, const AttentionTensors& t,
                Visit&& visit) {
  int64_t longest = 0;
  for (const Span& sample : rows.samples) longest = std::max<int64_t>(longest, sample.end - sample.begin);
  const int64_t groups = static_cast<int64_t>(rows.samples.size()) * s.kv_heads;
  const int64_t floats = compute.attention().scratch(longest, s.head_dim);
  compute.with_scratch(groups, floats, [&](int64_t index, float* scratch) {
    const int64_t kv_head = index % s.kv_heads, per_group = s.heads / s.kv_heads;
    const int64_t query = kv_head * per_group * s.head_dim, key = kv_head * s.head_dim;
    const HeadGroup group{.rows = rows.samples[static_cast<size_t>(index / s.kv_heads)],
                          .sight = rows.sight.data(),
                          .q = t.q.at(query),
                          .k = t.k.at(key),
                          .v = t.v.at(key),
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

void attention(Compute& compute, const TrainingRows& rows, const AttentionShape& shape, const Operand& q,
               const Operand& k, const Operand& v, float* o, float* logsumexp) {
  for_groups(
      compute, rows, shape, {q, k, v, o, logsumexp},
      [&](const HeadGroup& group, int64_t, int64_t, float* scratch) { compute.attention().forward(group, scratch); });
}

void attention_backward(Compute& compute, const TrainingRows& rows, const AttentionShape& shape, const Operand& q,
                        const Operand& k, const Operand& v, const float* o, const float* logsumexp, const float* d_o,
                        float* dq, float* dk, float* dv) {
  // What the backward pass only reads has no const in a group, which both passes share.
  const AttentionTensors tensors{q, k, v, const_cast<float*>(o), const_cast<float*>(logsumexp)};
  for_groups(compute, rows, shape, tensors, [&](const HeadGroup& group, int64_t query, int64_t key, float* scratch) {
    compute.attention().backward(group, {d_o + query, dq + query, dk + key, dv + key}, scratch);
  });
}

void silu_mul(Compute& compute, const float* gate, const float* up, const OperandOut& out, int64_t n) {
  compute.split(n, kElementChunk, [&](int64_t begin, int64_t end) {
    compute.kernels().silu_mul(gate + begin, up + begin, out.at(begin), end - begin);
  });
}

void silu_mul_backward(Compute& compute, const float* gate, const float* up, const float* d_out,
                       const OperandOut& d_gate, const OperandOut& d_up, int64_t n) {
  compute.split(n, kElementChunk, [&](int64_t begin, int64_t end) {
    compute.kernels().silu_mul_backward(gate + begin, up + begin, d_out + begin, d_gate.at(begin), d_up.at(begin),
                                        end - begin);
  });
}

}  // namespace sdar::train
