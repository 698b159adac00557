// Ops of the network, forward and backward. Matrices are row-major; weights [out, in] as checkpoints have them. Values are
// f32; an Operand, which only products read, is of the format of `compute` or f32. A backward op writes the gradient of its
// input and adds to those of its weights, unless it says otherwise; a weight whose gradient is null is frozen.
#pragma once
#include <cstdint>
#include <span>

#include "train/compute.h"
#include "train/rows.h"

namespace sdar::train {

/// x [m, width] = table [vocabulary, width] at `ids` [m].
void embed(Compute& compute, const int32_t* ids, int64_t m, int64_t width, const float* table, float* x);
void embed_backward(Compute& compute, const int32_t* ids, int64_t m, int64_t width, const float* dx, float* d_table);
/// Of the table's row `id` alone: [width].
void embed_backward_row(const int32_t* ids, int64_t m, int64_t width, const float* dx, int32_t id, float* d_row);

/// y [m, width] = x · factor · weight [width], factor [m] = 1 / sqrt(mean(x²) + eps), which the backward pass needs.
void rms_norm(Compute& compute, const float* x, int64_t m, int64_t width, const float* weight, float eps,
              const OperandOut& y, float* factor);
/// dx is written, or added to where `add`.
void rms_norm_backward(Compute& compute, const float* x, const float* factor, const float* dy, int64_t m, int64_t width,
                       const float* weight, float* dx, bool add, float* d_weight);

/// y [m, out] = x [m, in] · weight [out, in]ᵀ, or onto + x · weightᵀ, where `onto` [m, out] may be y.
void linear(Compute& compute, const Operand& x, int64_t m, int64_t in, int64_t out, const Operand& weight, float* y,
            const float* onto = nullptr);
/// dx is written, or added to where `add`.
void linear_backward(Compute& compute, const Operand& x, const Operand& dy, int64_t m, int64_t in, int64_t out,
                     const Operand& weight, float* dx, bool add, float* d_weight);

/// y [m, width] += bias [width] in each row.
void add_bias(Compute& compute, const float* bias, int64_t m, int64_t width, float* y);
void add_bias_backward(Compute& compute, const Operand& dy, int64_t m, int64_t width, float* d_bias);

/// Cosines and sines of the rows' positions: [m, head_dim / 2] each.
struct Angles {
  const float *cos, *sin;
};
/// y [m, heads, head_dim] = rms_norm of each head of x, turned by the row's angles, half-split; factor is [m, heads].
void norm_rope(Compute& compute, const float* x, int64_t m, int64_t heads, int64_t head_dim, const float* weight,
               float eps, Angles angles, const OperandOut& y, float* factor);
/// dy is turned back in place.
void norm_rope_backward(Compute& compute, const float* x, const float* factor, float* dy, int64_t m, int64_t heads,
                        int64_t head_dim, const float* weight, Angles angles, const OperandOut& dx, float* d_weight);

struct AttentionShape {
  int32_t heads, kv_heads, head_dim;
};
/// o [m, heads, head_dim] and logsumexp [m, heads] of q (as o) and k, v [m, kv_heads, head_dim].
void attention(Compute& compute, const TrainingRows& rows, const AttentionShape& shape, const Operand& q,
               const Operand& k, const Operand& v, float* o, float* logsumexp);
/// dq, dk and dv are written.
void attention_backward(Compute& compute, const TrainingRows& rows, const AttentionShape& shape, const Operand& q,
                        const Operand& k, const Operand& v, const float* o, const float* logsumexp, const float* d_o,
                        float* dq, float* dk, float* dv);

/// out = silu(gate) · up, n elements; the gradients may be written over gate and up in f32.
void silu_mul(Compute& compute, const float* gate, const float* up, const OperandOut& out, int64_t n);
void silu_mul_backward(Compute& compute, const float* gate, const float* up, const float* d_out,
                       const OperandOut& d_gate, const OperandOut& d_up, int64_t n);

/// Of a head [vocabulary, width]: all of it, or rows `ids` of it.
struct HeadGradients {
  float* all = nullptr;  ///< [vocabulary, width]
  std::span<const int32_t> ids = {};
  float* rows = nullptr;  ///< [ids, width]

  HeadGradients() = default;
  HeadGradients(float* of_all) : all(of_all) {}
  HeadGradients(std::span<const int32_t> of_ids, float* of_rows) : ids(of_ids), rows(of_rows) {}
};

/// The head and its loss: Σ weights[i] · cross-entropy of softmax(x[i] · headᵀ) with targets[i], over rows of non-zero
/// weight. Logits exist for `head_tile(vocabulary)` rows at a time. With `dx` [m, width], which is written, the backward
/// pass is done in the same go; gradients of the head are added to.
double head_loss(Compute& compute, const TrainingRows& rows, const Operand& x, int64_t width, const float* head,
                 int64_t vocabulary, float* dx = nullptr, const HeadGradients& gradients = {});
/// Rows whose logits are in memory at once: about 4 million logits, whatever the machine, since sums depend on it.
int64_t head_tile(int64_t vocabulary);

}  // namespace sdar::train
