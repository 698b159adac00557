// Kernels that pass over rows once: embedding, RMSNorm, a bias, RoPE with the page write.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/device_types.h"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/step.h"

namespace sdar::cuda {

/// x [rows, hidden] f32 = table[ids], the table packed as a weight (bf16 or int8) [vocabulary, hidden]; hidden % 8 == 0;
/// ids on the device, each in [0, vocabulary).
struct EmbedParams {
  DeviceMatrix table;
  const int32_t* ids = nullptr;
  float* x = nullptr;
  int32_t rows = 0;
};
void embed(Stream stream, const EmbedParams& args);

/// tiles [tokens, padded_k(hidden)] bf16: token i = x[row] · rsqrt(mean(x[row]²) + eps) · norm with row = rows[i], or i
/// without `rows`. x [·, hidden] f32, hidden % 8 == 0; columns of the tiles past hidden are left alone.
struct NormParams {
  const float* x = nullptr;
  const float* norm = nullptr;    ///< [hidden]
  const int32_t* rows = nullptr;  ///< [tokens] on the device, or null
  uint16_t* tiles = nullptr;
  int32_t tokens = 0;
  int32_t hidden = 0;
  float eps = 0;
};
void rms_norm(Stream stream, const NormParams& args);

/// x [rows, hidden] f32 += bias [hidden] in every row; hidden % 4 == 0.
struct AddBiasParams {
  const float* bias = nullptr;
  float* x = nullptr;
  int32_t rows = 0;
  int32_t hidden = 0;
};
void add_bias(Stream stream, const AddBiasParams& args);

/// qkv [rows, (heads + 2·kv_heads)·head_dim] f32, to which the biases are added. q and k: then RMSNorm per head, then half-split RoPE at the row's absolute
/// position. q goes to `q` [rows, heads, head_dim] bf16, k and v to their slots in the pages, all rounded to bf16.
/// head_dim 64 or 128.
struct RopeParams {
  StepTables tables;
  DevicePages pages;
  const float* qkv = nullptr;
  const float* q_norm = nullptr;  ///< [head_dim]
  const float* k_norm = nullptr;
  const float* rotations = nullptr;  ///< [positions, head_dim / 2] pairs cos, sin
  uint16_t* q = nullptr;
  int32_t rows = 0, layer = 0, heads = 0;
  float eps = 0;
  const float* q_bias = nullptr;  ///< [heads · head_dim], of k and v [kv_heads · head_dim]; all three or null
  const float* k_bias = nullptr;
  const float* v_bias = nullptr;
};
void rope(Stream stream, const RopeParams& args);

}  // namespace sdar::cuda
