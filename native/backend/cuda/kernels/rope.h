// q/k-norm, RoPE and page write of one layer.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/step.h"
#include "backend/cuda/kernels/stream.h"

namespace sdar::cuda {

/// qkv [rows, (heads + 2·kv_heads)·head_dim] f32. q and k: RMSNorm per head, then half-split RoPE at the row's absolute
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
};
void rope(Stream stream, const RopeParams& args);

}  // namespace sdar::cuda
