// Device memory that the launches of a step share: one after the other, so each is used again by every layer.
#pragma once
#include <cstdint>

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "backend/ops.h"

namespace sdar::cuda {

struct Workspace {
  uint16_t* tiles = nullptr;       ///< normalised input of GEMMs: tiles [rows, hidden]
  uint16_t* q = nullptr;           ///< [rows, heads, head_dim]
  float* attention = nullptr;      ///< partial results of attention [kMaxPartials, kv_heads, …]
  float* gemm_partials = nullptr;  ///< of the largest split-K GEMM
  uint32_t* gemm_counters = nullptr;
  float* rotations = nullptr;     ///< [context, head_dim / 2] pairs cos, sin
  float* head_numbers = nullptr;  ///< of a chunk of the lm_head
  int32_t* head_ids = nullptr;
  // mixture of experts
  int32_t* experts = nullptr;       ///< [rows, top_k]
  float* expert_weights = nullptr;  ///< [rows, top_k]
  GroupedRows grouped;
  uint16_t* grouped_tiles = nullptr;      ///< tiles [grouped rows, hidden]
  uint16_t* inner_tiles = nullptr;        ///< tiles [grouped rows, moe_intermediate]
  float* grouped_out = nullptr;           ///< [grouped rows, hidden]
  const uint8_t** expert_data = nullptr;  ///< [layers, gate_up and down, experts]

  /// Everything, zeroed, for steps of up to `rows` rows (a multiple of 8); what is returned are its bytes.
  static size_t bytes(const ModelShape& shape, int32_t rows);
  static Workspace make(Arena& arena, Device& device, const ModelShape& shape, int32_t rows);
};

/// Zeroed. Some will hold bf16 tiles, whose columns are a multiple of 128: no more bytes than f32 of 64 columns or more.
StepBuffers make_step_buffers(Arena& arena, Device& device, const ModelShape& shape, int32_t rows);
size_t step_buffer_bytes(const ModelShape& shape, int32_t rows);

}  // namespace sdar::cuda
