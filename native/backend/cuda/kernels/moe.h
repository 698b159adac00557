// Sparse mixture of experts: routing, GEMMs per expert, and the weighted sum. The order of launches: route, group,
// rms_norm with rows = GroupedRows::tokens, gemm_grouped and gemm_grouped_wide (gate_up, silu·mul), the same two (down,
// store), combine.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/device_types.h"
#include "backend/cuda/kernels/gemm.h"

namespace sdar::cuda {

constexpr int32_t kMaxExperts = 256;
constexpr int32_t kMaxExpertsPerToken = 16;

/// Experts and weights [tokens, top_k] of each token, experts ascending: softmax over all experts of rmsnorm(x)·routerᵀ
/// in f32, the top_k of largest probability, ties to the lower expert, renormalised to sum 1 when asked.
struct RouteParams {
  const float* x = nullptr;       ///< [tokens, hidden]
  const float* norm = nullptr;    ///< [hidden]
  const float* router = nullptr;  ///< [experts, hidden] row-major
  int32_t* experts = nullptr;     ///< [tokens, top_k]
  float* weights = nullptr;       ///< [tokens, top_k]
  int32_t tokens = 0, hidden = 0, expert_count = 0, top_k = 0;
  float eps = 0;
  bool renormalise = false;
};
void route(Stream stream, const RouteParams& args);

/// Rows of all experts one after the other, each expert's first at a multiple of 8.
SDAR_HOST_DEVICE constexpr int32_t grouped_rows(int32_t tokens, int32_t expert_count, int32_t top_k) {
  return ceil_div(tokens * top_k + expert_count * (kTileTokens - 1), kTileTokens) * kTileTokens;
}
struct GroupedRows {
  int32_t* begin = nullptr;   ///< [experts] first row
  int32_t* count = nullptr;   ///< [experts]
  int32_t* tokens = nullptr;  ///< [grouped_rows] the token of each row; 0 between the experts and after the last
  int32_t* rows = nullptr;    ///< [tokens, top_k] the row of each choice
};
struct GroupParams {
  const int32_t* experts = nullptr;
  GroupedRows grouped;
  int32_t tokens = 0, expert_count = 0, top_k = 0;
};
void group(Stream stream, const GroupParams& args);

/// GEMM of the rows of each expert that has at most 8 with its own weight; a token's have the bits of `gemm` without
/// split-K.
struct GroupedGemmParams {
  const uint8_t* const* weights = nullptr;  ///< [experts] on the device: weight tiles
  DeviceMatrix shape;                       ///< of each; data is not used
  const uint16_t* activations = nullptr;    ///< tiles [grouped_rows, cols]
  const int32_t* begin = nullptr;
  const int32_t* count = nullptr;
  int32_t expert_count = 0;
  int32_t tokens = 0;  ///< of the step: an expert has no more rows
  int32_t top_k = 0;
  Epilogue epilogue = Epilogue::store;  ///< store or silu_mul
  float* out = nullptr;                 ///< [grouped_rows, rows]
  uint16_t* tiles = nullptr;            ///< [grouped_rows, rows / 2]
};
void gemm_grouped(Stream stream, const GroupedGemmParams& args);
/// Of each expert that has more: its weights are read once for 64 rows. Needed in steps of more than 8 tokens.
void gemm_grouped_wide(Stream stream, const GroupedGemmParams& args);

/// x[token] += Σ weight · out[row], experts in ascending order.
struct CombineParams {
  const float* out = nullptr;  ///< [grouped_rows, hidden]
  const int32_t* rows = nullptr;
  const float* weights = nullptr;
  float* x = nullptr;
  int32_t tokens = 0, hidden = 0, top_k = 0;
};
void combine(Stream stream, const CombineParams& args);

}  // namespace sdar::cuda
