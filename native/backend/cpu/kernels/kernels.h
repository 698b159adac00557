// What one instruction set offers to the CPU backend: a table of functions. kernels.cc is compiled once for each set
// (cmake/isa.cmake) and defines `kKernels_<isa>`; kernels_for() hands it out when this machine can run it. It
// instantiates no template of the standard library: the linker may keep its copy for everyone.
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

#define SDAR_INLINE inline __attribute__((always_inline))

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

/// A slab is what one page holds of one KV head of one layer: keys, values and, for int8, the f32 scales of the 64 keys
/// and of the 64 values. Keys and values lie in panels of 16 columns, [panel][pair][16 columns][2] elements, so that
/// one vector holds a pair of summands for 16 sums: keys have a panel per 16 slots and pairs of dimensions, values a
/// panel per 16 dimensions and pairs of slots. f32 is not paired: [panel][slot or dimension][16 columns]. `dim` is
/// head_dim rounded up to 16; the added dimensions are zero.
///
/// A pass multiplies q with the first `keys` keys, and updates the running softmax of each row:
///   max' = max(max, s), w = 2^(s - max'), sum' = sum · 2^(max - max') + Σ w, acc' = acc · 2^(max - max') + Σ w · v.
/// Every row goes through the same operations in the same order whatever `rows`; slots from `keys` on are never used.
struct PagePass {
  int rows = 0;
  int dim = 0;
  int keys = 0;        ///< 1 … 64
  bool first = false;  ///< the row's first page: max, sum and acc are set, not updated

  const void* q = nullptr;          ///< [rows, dim], scaled by log2(e) / sqrt(head_dim); f32 or bf16, see PageKernel
  const std::byte* slab = nullptr;  ///< 64-byte aligned
  const std::byte* next = nullptr;  ///< the slab to fetch meanwhile, or null

  float* max = nullptr;  ///< [rows]; as all that follows, padded to 16 rows and 64-byte aligned
  float* sum = nullptr;  ///< [rows, 16]: 16 partial sums of a row
  float* acc = nullptr;  ///< [rows, dim]

  float* scores = nullptr;      ///< scratch [rows, 64]
  float* correction = nullptr;  ///< scratch [rows]
  void* weights = nullptr;      ///< scratch [rows, 64] bf16, for kernels with bf16 operands
};

/// With bf16 operands q comes, and the softmax weights are multiplied, in bf16 (sums stay f32); else they are f32.
struct PageKernel {
  void (*pass)(const PagePass&) = nullptr;
  bool bf16_operands = false;
};

/// out = rope(rmsnorm(x) · norm) · scale, element i with element i + dim / 2.
struct HeadRow {
  const float* x = nullptr;                    ///< [dim]
  const float* norm = nullptr;                 ///< [dim]
  const float *cos = nullptr, *sin = nullptr;  ///< [dim / 2]
  int dim = 0;
  float eps = 0;
  float scale = 1;
  float* out = nullptr;  ///< [dim]
};

struct AttentionKernels {
  PageKernel formats[3];  ///< indexed by KvFormat
  void (*norm_and_rotate)(const HeadRow&) = nullptr;
  /// out[n] = acc[n] / Σ of the 16 partial sums.
  void (*divide)(const float* acc, const float* sums, int n, float* out) = nullptr;
};

// 2^x on [-1/2, 1/2], relative error 8e-8 with f32 coefficients (Chebyshev fit); highest power first.
constexpr float kExp2[7] = {1.54614449e-4f, 1.3400428e-3f, 9.61805694e-3f, 5.55032715e-2f, 2.40226507e-1f,
                            6.93147182e-1f, 1.0f};
constexpr float kExp2Least = -126.0f;  // below, 2^x is taken as 0: no subnormal numbers

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
  /// Ascending indices of logits >= least whose bit of `mask` is set (null: of all), n <= 256; returns their number.
  int (*at_least)(const float* logits, int64_t n, float least, const uint64_t* mask, uint8_t* indices);
  /// Jobs of many rows are best given so many bytes of consecutive panels: these stay in a cache while blocks of rows
  /// pass. 0: jobs are single panels.
  int64_t panel_group_bytes = 0;
  AttentionKernels attention = {};
};

/// The table of an instruction set by name, null when it is not built or this machine cannot run it.
const Kernels* kernels_for(const char* isa);
/// Its attention; for "portable" vectors in the compiler's portable terms, as 64-bit Arm has them.
const AttentionKernels& attention_kernels(const char* isa);

}  // namespace sdar::cpu
