#include "train/moe.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "train/ops.h"

namespace sdar::train {
namespace {

constexpr int64_t kRowChunk = 32;

/// Softmax of the router's logits and each row's best experts, the lower one on a tie; then slots and their weights.
void route(Compute& compute, const ModelShape& shape, bool renormalise, int64_t m, MoeState& s) {
  const int64_t experts = shape.experts, chosen = shape.experts_per_token;
  std::vector<int32_t> best(static_cast<size_t>(m * chosen));
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> order(static_cast<size_t>(experts));
    for (int64_t i = begin; i < end; i++) {
      float* p = s.probabilities.data() + i * experts;
      float maximum = 0;
      const float sum = compute.kernels().exp_row(p, experts, &maximum);
      for (int64_t e = 0; e < experts; e++) p[e] /= sum;
      std::iota(order.begin(), order.end(), 0);
      // A NaN is less than nothing here: an order has to be one.
      const auto key = [&](int32_t e) { return p[e] == p[e] ? p[e] : -1.0f; };
      std::partial_sort(order.begin(), order.begin() + chosen, order.end(),
                        [&](int32_t a, int32_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
      std::copy_n(order.begin(), chosen, best.begin() + i * chosen);
    }
  });
  s.begin.assign(static_cast<size_t>(experts) + 1, 0);
  for (const int32_t e : best) s.begin[static_cast<size_t>(e) + 1]++;
  std::partial_sum(s.begin.begin(), s.begin.end(), s.begin.begin());
  std::vector<int64_t> next(s.begin.begin(), s.begin.end() - 1);
  s.slot_row.resize(best.size()), s.slot_expert.resize(best.size()), s.row_slots.resize(best.size());
  s.weight.resize(best.size());
  for (int64_t i = 0; i < m; i++) {
    const int32_t* experts_of = best.data() + i * chosen;
    const float* p = s.probabilities.data() + i * experts;
    float sum = 0;
    for (int64_t c = 0; c < chosen; c++) sum += p[experts_of[c]];
    for (int64_t c = 0; c < chosen; c++) {
      const auto slot = static_cast<size_t>(next[static_cast<size_t>(experts_of[c])]++);
      s.slot_row[slot] = static_cast<int32_t>(i);
      s.slot_expert[slot] = experts_of[c];
      s.row_slots[static_cast<size_t>(i * chosen + c)] = static_cast<int32_t>(slot);
      s.weight[slot] = p[experts_of[c]] / (renormalise ? sum : 1.0f);
    }
  }
}

}  // namespace

void moe(Compute& compute, const ModelShape& shape, bool renormalise, const MoeOffsets& at, const float* weights,
         const Operand& n, int64_t m, MoeState& s, const float* onto, float* x) {
  const int64_t hidden = shape.hidden, inner = shape.moe_intermediate, chosen = shape.experts_per_token;
  const int64_t slots = m * chosen;
  s.probabilities.resize(static_cast<size_t>(m * shape.experts));
  linear(compute, n, m, hidden, shape.experts, weights + at.router, s.probabilities.data());
  route(compute, shape, renormalise, m, s);
  const auto row_bytes = static_cast<size_t>(hidden * (n.format == Format::f32 ? 4 : 2));
  const OperandOut in{grown(s.in, slots * hidden), n.format}, act = compute.operands(s.act, slots * inner);
  float *gate = grown(s.gate, slots * inner), *up = grown(s.up, slots * inner), *out = grown(s.out, slots * hidden);
  compute.split(slots, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      std::memcpy(in.at(i * hidden).data, n.at(s.slot_row[static_cast<size_t>(i)] * hidden).data, row_bytes);
  });
  for (size_t e = 0; e < at.experts.size(); e++) {
    const int64_t first = s.begin[e], count = s.begin[e + 1] - first, wide = first * hidden, narrow = first * inner;
    linear(compute, in.at(wide), count, hidden, inner, weights + at.experts[e].gate, gate + narrow);
    linear(compute, in.at(wide), count, hidden, inner, weights + at.experts[e].up, up + narrow);
    silu_mul(compute, gate + narrow, up + narrow, act.at(narrow), count * inner);
    linear(compute, act.at(narrow), count, inner, hidden, weights + at.experts[e].down, out + wide);
  }
  if (!x) return;
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      std::copy_n(onto + i * hidden, hidden, x + i * hidden);
      for (int64_t c = 0; c < chosen; c++) {
        const auto slot = static_cast<size_t>(s.row_slots[static_cast<size_t>(i * chosen + c)]);
        const float* out = s.out.data() + slot * static_cast<size_t>(hidden);
        for (int64_t j = 0; j < hidden; j++) x[i * hidden + j] += s.weight[slot] * out[j];
      }
    }
  });
}

void moe_backward(Compute& compute, const ModelShape& shape, bool renormalise, const MoeOffsets& at,
                  const float* weights, const Operand& n, int64_t m, MoeState& s, const float* dx, float* dn,
                  float* gradients) {
  const int64_t hidden = shape.hidden, inner = shape.moe_intermediate, chosen = shape.experts_per_token;
  const int64_t experts = shape.experts, slots = m * chosen;
  const auto gradient = [&](int64_t offset) { return gradients ? gradients + offset : nullptr; };
  std::vector<float> d_weight(static_cast<size_t>(slots)), d_slot(static_cast<size_t>(slots * hidden));
  std::vector<float> d_in(static_cast<size_t>(slots * hidden)), d_act(static_cast<size_t>(slots * inner));
  compute.split(slots, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* d_out = dx + s.slot_row[static_cast<size_t>(i)] * hidden;
      double sum = 0;
      for (int64_t j = 0; j < hidden; j++) {
        sum += static_cast<double>(d_out[j]) * s.out[static_cast<size_t>(i * hidden + j)];
        d_slot[static_cast<size_t>(i * hidden + j)] = s.weight[static_cast<size_t>(i)] * d_out[j];
      }
      d_weight[static_cast<size_t>(i)] = static_cast<float>(sum);
    }
  });
  for (size_t e = 0; e < at.experts.size(); e++) {
    const int64_t first = s.begin[e], count = s.begin[e + 1] - first;
    const MlpOffsets& mlp = at.experts[e];
    const Operand in = Operand(s.in.data(), n.format).at(first * hidden);
    const Operand act = Operand(s.act.data(), compute.format()).at(first * inner);
    float *gate = s.gate.data() + first * inner, *up = s.up.data() + first * inner,
          *d_rows = d_in.data() + first * hidden;
    linear_backward(compute, act, d_slot.data() + first * hidden, count, inner, hidden, weights + mlp.down,
                    d_act.data() + first * inner, false, gradient(mlp.down));
    silu_mul_backward(compute, gate, up, d_act.data() + first * inner, gate, up, count * inner);
    linear_backward(compute, in, gate, count, hidden, inner, weights + mlp.gate, d_rows, false, gradient(mlp.gate));
    linear_backward(compute, in, up, count, hidden, inner, weights + mlp.up, d_rows, true, gradient(mlp.up));
  }
  std::vector<float> d_logits(static_cast<size_t>(m * experts));
  compute.split(m, kRowChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float* row = dn + i * hidden;
      std::fill_n(row, hidden, 0.0f);
      const float* p = s.probabilities.data() + i * experts;
      float* d = d_logits.data() + i * experts;  // of the probabilities first
      float sum = 0, along = 0;
      for (int64_t c = 0; c < chosen; c++) {
        const auto slot = static_cast<size_t>(s.row_slots[static_cast<size_t>(i * chosen + c)]);
        const float* from = d_in.data() + slot * static_cast<size_t>(hidden);
        for (int64_t j = 0; j < hidden; j++) row[j] += from[j];
        d[s.slot_expert[slot]] = d_weight[slot];
        sum += p[s.slot_expert[slot]];
        along += d_weight[slot] * s.weight[slot];
      }
      if (renormalise) {
        for (int64_t c = 0; c < chosen; c++) {
          const auto slot = static_cast<size_t>(s.row_slots[static_cast<size_t>(i * chosen + c)]);
          d[s.slot_expert[slot]] = (d_weight[slot] - along) / sum;
        }
      }
      float mean = 0;
      for (int64_t e = 0; e < experts; e++) mean += d[e] * p[e];
      for (int64_t e = 0; e < experts; e++) d[e] = p[e] * (d[e] - mean);
    }
  });
  linear_backward(compute, n, d_logits.data(), m, hidden, experts, weights + at.router, dn, true, gradient(at.router));
}

}  // namespace sdar::train
