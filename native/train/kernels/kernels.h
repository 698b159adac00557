// The inner loops of training, compiled once for each instruction set that pays (cmake/isa.cmake). All is f32. Orders of
// sums depend on shapes and the set, never on how work is split over threads.
#pragma once
#include <cstdint>
#include <string>

#include "train/rows.h"

namespace sdar::train {

/// Queries of one KV head's group over the rows of one sample. Rows are numbered in the batch; `rows` are the sample's.
struct HeadGroup {
  Span rows;
  const Sight* sight;      ///< [batch rows]
  const float *q, *k, *v;  ///< q [row, heads, head_dim] at the group's first head; k, v [row, kv_heads, head_dim]
  float* o;                ///< as q
  float* logsumexp;        ///< [row, heads] at the group's first head: of the scaled scores
  int64_t q_stride, k_stride, lse_stride;  ///< from row to row
  int32_t heads;                           ///< of the group
  int32_t head_dim;
  float scale;
};

/// What the backward pass adds to it. Gradients lie as what they are of; dk and dv are added to, dq is written.
struct HeadGroupGradients {
  const float* d_o;
  float *dq, *dk, *dv;
};

struct Kernels {
  const char* isa;
  /// One output tile: c[tile_rows, tile_columns] (+)= a · b, summed over p ascending with fused multiply-adds where the
  /// set has them. a is [k, tile_rows], b is [k, tile_columns].
  int32_t tile_rows, tile_columns;
  void (*tile)(int64_t k, const float* a, const float* b, float* c, int64_t c_stride, bool add);
  /// x becomes exp(x - its maximum), and stays so; the sum, of 16 partial sums; `maximum` is written.
  float (*exp_row)(float* x, int64_t n, float* maximum);
  /// out = silu(gate) · up, n elements.
  void (*silu_mul)(const float* gate, const float* up, float* out, int64_t n);
  /// Gradients of silu_mul: d_gate and d_up of d_out; may be written over gate and up.
  void (*silu_mul_backward)(const float* gate, const float* up, const float* d_out, float* d_gate, float* d_up,
                            int64_t n);
  /// Floats of scratch that attention needs for a sample of `rows` rows.
  int64_t (*attention_scratch)(int64_t rows, int64_t head_dim);
  void (*attention)(const HeadGroup& group, float* scratch);
  void (*attention_backward)(const HeadGroup& group, const HeadGroupGradients& gradients, float* scratch);
};

/// The table for an instruction set of the CPU backend (cpu/cpu.h): the one of its family, else portable loops.
const Kernels& kernels_for(const std::string& isa);

}  // namespace sdar::train
