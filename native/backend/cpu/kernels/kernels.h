// What one instruction set offers to the CPU backend: a table of functions. A file NAME_<isa>.cc is compiled for that
// set (cmake/isa.cmake) and defines `const Kernels kKernels_<isa>`; kernels_for() hands it out when this machine can
// run it. Those files instantiate no template of the standard library: the linker may keep their copy for everyone.
//
// Packed weights (layout panel32-2, the same for all sets) are panels of 32 output columns, one after the other, each
// 64-byte aligned. A panel of gate_up holds 16 gate columns, then the same 16 up columns. Columns past the last are
// zero.
//   f32   [k][32] f32
//   bf16  [k/2][32][2] bf16
//   int8  per group of 128 k: [k/4][32][4] u8 with zero point 128, then the scales [32] f32
//   int4  per group of 64 k: [k/8][32][4] u8, low nibbles k…k+3, high nibbles k+4…k+7, zero point 8, then the scales
// with k = padded_k(format, cols), columns past the last zero (the zero point); the last int8 group may have 64 k.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/formats.h"

namespace sdar::cpu {

constexpr int32_t kPanel = 32;
/// Rows of activations that a register tile takes at most.
constexpr int32_t kTileRows = 8;

/// Always inlined, or a copy compiled for a better instruction set may be the one the linker keeps.
#define SDAR_LAYOUT [[gnu::always_inline]] constexpr

SDAR_LAYOUT bool is_quantised(WeightFormat f) { return f == WeightFormat::int8 || f == WeightFormat::int4; }
/// Consecutive k that share a scale, of the weights and of the activations.
SDAR_LAYOUT int64_t group_size(WeightFormat f) { return f == WeightFormat::int8 ? 128 : 64; }
SDAR_LAYOUT int64_t padded_k(WeightFormat f, int64_t k) {
  const int64_t multiple = is_quantised(f) ? 64 : f == WeightFormat::bf16 ? 32 : 1;
  return (k + multiple - 1) / multiple * multiple;
}
/// Groups of a row; 0 for formats without scales.
SDAR_LAYOUT int64_t groups_of(WeightFormat f, int64_t k) {
  return is_quantised(f) ? (padded_k(f, k) + group_size(f) - 1) / group_size(f) : 0;
}
/// Bytes of a panel, and of a whole group in it with its scales.
SDAR_LAYOUT size_t panel_bytes(WeightFormat f, int64_t k) {
  const size_t n = static_cast<size_t>(padded_k(f, k)) * kPanel;
  const size_t elements = f == WeightFormat::f32    ? 4 * n
                          : f == WeightFormat::bf16 ? 2 * n
                          : f == WeightFormat::int8 ? n
                                                    : n / 2;
  return elements + static_cast<size_t>(groups_of(f, k)) * kPanel * sizeof(float);
}
SDAR_LAYOUT size_t group_bytes(WeightFormat f) { return panel_bytes(f, group_size(f)); }

#undef SDAR_LAYOUT

/// Rows ready to be multiplied with weights of one format. Row i starts at data + i · stride and holds padded_k
/// elements of Kernels::activation_bytes each (f32; bf16, or f32 that was rounded to bf16; int8, or int16 holding int8,
/// in the order the set's panel kernel reads them), zero past k.
struct Activations {
  std::byte* data = nullptr;
  size_t stride = 0;        ///< bytes, a multiple of 64
  float* scales = nullptr;  ///< [groups, scale_stride], of a row in its column; NaN for a NaN or infinity in the group
  int32_t* offsets = nullptr;  ///< like scales: −zero point · Σ of the group
  int64_t scale_stride = 0;
};

enum class Epilogue : uint8_t {
  store,     ///< out = y
  add,       ///< out += y
  silu_mul,  ///< out = silu(y[0…15]) · y[16…31], 16 columns
};

/// One panel times m rows. Each y is a sum over k in ascending order, whatever m is.
struct PanelJob {
  WeightFormat format = WeightFormat::f32;
  const std::byte* panel = nullptr;
  int32_t panels = 1;  ///< consecutive ones, where Kernels::panel_group_bytes allows more
  int64_t k = 0;       ///< padded
  int32_t m = 0;
  Activations a;
  Epilogue epilogue = Epilogue::store;
  float* out = nullptr;    ///< first row, first column of this panel
  int64_t out_stride = 0;  ///< floats
  int32_t columns = 0;     ///< outputs of these panels that exist
};

/// A row's activations from f32: rmsnorm(x)·norm, or x itself when norm is null; rounded for `format`.
struct PrepareJob {
  WeightFormat format = WeightFormat::f32;
  const float* x = nullptr;     ///< [k]
  const float* norm = nullptr;  ///< [k]
  float eps = 0;
  int64_t k = 0;
  Activations to;  ///< whose first row it is
};

/// Reduction of some logits of one row, to be merged in ascending order of ids.
struct LogitStats {
  float max = 0;
  int32_t argmax = 0;  ///< index of the first maximum
  float sum = 0;       ///< Σ exp((l − max) · scale)
  float weighted = 0;  ///< Σ exp((l − max) · scale) · (l − max) · scale
  bool finite = true;
};

struct Kernels {
  const char* isa;
  /// Bytes of an activation element, by WeightFormat.
  uint8_t activation_bytes[4];
  void (*prepare)(const PrepareJob& job);
  void (*panel)(const PanelJob& job);
  /// n >= 1 logits.
  LogitStats (*logit_stats)(const float* logits, int64_t n, float scale);
  /// out[i] = exp((x[i] − max) · scale), relative error about 1e-7; out may be x.
  void (*exp_shifted)(const float* x, int64_t n, float max, float scale, float* out);
  /// Jobs of many rows are best given so many bytes of consecutive panels: these stay in a cache while blocks of rows
  /// pass. 0: jobs are single panels.
  int64_t panel_group_bytes = 0;
};

/// The table of an instruction set by name, null when it is not built or this machine cannot run it.
const Kernels* kernels_for(const char* isa);

}  // namespace sdar::cpu
