// Sparse mixture of experts, one layer. Source: Qwen3-MoE, sdar_moe.
#pragma once
#include <cstdint>
#include <span>

#include "backend/weights.h"

namespace sdar {

/// h = rmsnorm(x, norm); p = softmax(h·routerᵀ) over all experts in f32; the top_k of largest p (ties to the lower
/// expert), renormalised to sum 1 when `renormalise`; x += Σ p_e · down_e(silu(gate_e·h) · (up_e·h)), experts added in
/// ascending order. The router is held as f32 whatever the weight format.
struct MoeArgs {
  float* x = nullptr;  ///< [M, hidden]
  int32_t m = 0;
  const Weight* norm = nullptr;
  const Weight* router = nullptr;            ///< linear [experts, hidden], f32
  std::span<const Weight* const> gate_up{};  ///< per expert: gate_up [2·moe_intermediate, hidden]
  std::span<const Weight* const> down{};     ///< per expert: linear [hidden, moe_intermediate]
  int32_t top_k = 0;
  bool renormalise = false;
};

}  // namespace sdar
