// q/k-norm + RoPE + page write + paged block attention, one layer.
#pragma once
#include <cstdint>

#include "backend/segment.h"
#include "backend/weights.h"

namespace sdar {

/// qkv [M, (heads + 2·kv_heads)·head_dim] f32: q heads, then k heads, then v heads; overwritten freely.
/// out [M, heads·head_dim] f32. Segments are those given to Backend::begin_step.
/// q and k: per-head RMSNorm (eps, weights [head_dim]), then half-split RoPE at the row's absolute position; scale
/// head_dim^-0.5; softmax in f32; query head h reads KV head h / (heads / kv_heads). Source: Qwen3, SDAR.
/// K and V are rounded to the page format before any query reads them. Sums over keys are split at page boundaries (of
/// tokens_per_page(block_length) positions) or multiples of them, and merged in ascending order: a row's result depends
/// only on its position, block length and the keys, not on the rest of the step or on the thread count.
struct AttentionArgs {
  int32_t layer = 0;
  float* qkv = nullptr;
  float* out = nullptr;
  const Weight* q_norm = nullptr;
  const Weight* k_norm = nullptr;
};

}  // namespace sdar
