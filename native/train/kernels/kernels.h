// The inner loops of training, compiled once for each instruction set that pays (cmake/isa.cmake). Orders of sums depend
// on shapes and the set, never on how work is split over threads.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "train/rows.h"

namespace sdar::train {

/// Of the operands of matrix products: bf16 are rounded to nearest even. Sums are f32 either way, and so is all else.
enum class Format : uint8_t { f32, bf16 };
inline constexpr std::array kFormats{"f32", "bf16"};

/// What a product reads.
struct Operand {
  const void* data;
  Format format;

  Operand(const float* values) : data(values), format(Format::f32) {}
  Operand(const void* values, Format its_format) : data(values), format(its_format) {}
  /// From element `index`.
  Operand at(int64_t index) const {
    return {static_cast<const std::byte*>(data) + index * (format == Format::f32 ? 4 : 2), format};
  }
};
/// Where values that only products read are written.
struct OperandOut {
  void* data;
  Format format;

  OperandOut(float* values) : data(values), format(Format::f32) {}
  OperandOut(void* values, Format its_format) : data(values), format(its_format) {}
  operator Operand() const { return {data, format}; }
  OperandOut at(int64_t index) const {
    return {static_cast<std::byte*>(data) + index * (format == Format::f32 ? 4 : 2), format};
  }
};

/// A matrix in any order: element (i, j) is number i · row + j · column of `data`.
struct View {
  Operand data;
  int64_t row, column;
};

/// Matrix products of one format. A panel is `tile_rows` rows of the left operand, or `tile_columns` columns of the right
/// one, as [steps, width] units of 4 bytes: a float, or a pair of bf16 that follow each other along the sum.
struct Products {
  int32_t tile_rows, tile_columns;
  int32_t step;  ///< elements of a unit: steps = depth / step, rounded up with zeros
  /// Panels of `from` [rows, depth], one after the other; rows past the end are zeros.
  void (*pack_left)(const View& from, int64_t rows, int64_t depth, float* to);
  void (*pack_right)(const View& from, int64_t rows, int64_t depth, float* to);
  /// One output tile: c[tile_rows, tile_columns] = a · b, or onto + a · b where `onto` is not null, summed ascending with
  /// fused multiply-adds where the set has them. Rows of c and onto are `stride` apart.
  void (*tile)(int64_t steps, const float* a, const float* b, const float* onto, float* c, int64_t stride);
};

/// Queries of one KV head's group over the rows of one sample. Rows are numbered in the batch; `rows` are the sample's.
struct HeadGroup {
  Span rows;
  const Sight* sight;  ///< [batch rows]
  Operand q, k, v;     ///< q [row, heads, head_dim] at the group's first head; k, v [row, kv_heads, head_dim]
  float* o;            ///< as q
  float* logsumexp;    ///< [row, heads] at the group's first head: of the scaled scores
  int64_t q_stride, k_stride, lse_stride;  ///< from row to row
  int32_t heads;                           ///< of the group
  int32_t head_dim;
  float scale;  ///< above 0
};

/// Gradients lie as what they are of; all are written.
struct HeadGroupGradients {
  const float* d_o;
  float *dq, *dk, *dv;
};

struct Attention {
  /// Floats of scratch for a sample of `rows` rows.
  int64_t (*scratch)(int64_t rows, int64_t head_dim);
  void (*forward)(const HeadGroup& group, float* scratch);
  void (*backward)(const HeadGroup& group, const HeadGroupGradients& gradients, float* scratch);
};

struct Kernels {
  const char* isa;
  Products products[kFormats.size()];
  Attention attention[kFormats.size()];
  /// x becomes exp(x - its maximum), and stays so; the sum, of 16 partial sums; `maximum` is written.
  float (*exp_row)(float* x, int64_t n, float* maximum);
  void (*scale)(float* x, int64_t n, float factor);
  /// n values in the format of `out`.
  void (*round)(const float* x, int64_t n, const OperandOut& out);
  /// out = silu(gate) · up, n elements.
  void (*silu_mul)(const float* gate, const float* up, const OperandOut& out, int64_t n);
  /// Gradients of silu_mul: d_gate and d_up of d_out; in f32 they may be written over gate and up.
  void (*silu_mul_backward)(const float* gate, const float* up, const float* d_out, const OperandOut& d_gate,
                            const OperandOut& d_up, int64_t n);
  /// y [m, width] = x · factor · weight, factor [m] = 1 / sqrt(mean(x²) + eps).
  void (*rms_norm)(const float* x, int64_t m, int64_t width, const float* weight, float eps, const OperandOut& y,
                   float* factor);
  /// dx is written, or added to where `add`; d_weight [width] is added to.
  void (*rms_norm_backward)(const float* x, const float* factor, const float* dy, int64_t m, int64_t width,
                            const float* weight, const OperandOut& dx, bool add, float* d_weight);
  /// Turns x [heads, head_dim] in place by the row's angles, cos and sin [head_dim / 2], half-split.
  void (*rope)(float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin, bool back);
};

/// The table for an instruction set of the CPU backend (cpu/cpu.h): the one of its family, else portable loops.
const Kernels& kernels_for(const std::string& isa);

}  // namespace sdar::train
