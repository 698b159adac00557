// The inner pass of block attention: query rows against one KV page of one head, and what happens to single heads
// before and after it. One implementation per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sdar::cpu {

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

/// The kernels for an instruction set named as in cpu.h, or for the nearest one below it.
const AttentionKernels& attention_kernels(std::string_view isa);

extern const AttentionKernels kAttentionGeneric;
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
extern const AttentionKernels kAttentionAvx512Bf16;

}  // namespace sdar::cpu
