// The ops that a forward pass is made of. model/forward.cc calls them in order; a backend computes them at once or
// records launches of them. M is the rows of the step; every row's result is independent of M and of the other rows,
// bit for bit. What a row is (its token, position, pages, how it is sampled) the implementation knows from the step.
#pragma once
#include <cstdint>
#include <span>

#include "backend/weights.h"

namespace sdar {

/// f32 workspaces of a step, [M, …] each, in the backend's memory.
struct StepBuffers {
  float* x = nullptr;         ///< [M, hidden], the residual stream
  float* qkv = nullptr;       ///< [M, (heads + 2·kv_heads)·head_dim]
  float* attended = nullptr;  ///< [M, heads·head_dim]
  float* mlp = nullptr;       ///< [M, intermediate]
};

/// x[M, hidden] = table[ids of the step].
struct EmbedArgs {
  const Weight* table = nullptr;
  float* x = nullptr;
};

/// out[M, n] = f(rmsnorm(x)·Wᵀ). RMSNorm: y = x · rsqrt(mean(x²) + eps) · norm, statistics in f32.
/// W.kind linear: f is the identity, n = W.rows. W.kind gate_up: f = silu(gate)·up, n = W.rows / 2.
/// With bf16 weights the normalised input is rounded to bf16 (to nearest even); with int8 and int4 weights to int8 with
/// a scale per row and group of columns; with f32 weights it stays f32. Sums are f32 (int32 within a group).
struct NormLinearArgs {
  const float* x = nullptr;  ///< [M, W.cols]
  int32_t m = 0;
  const Weight* norm = nullptr;
  const Weight* weight = nullptr;
  float* out = nullptr;
};

/// x[M, W.rows] += in[M, W.cols]·Wᵀ, `in` rounded as above; then += bias.
struct LinearAddArgs {
  const float* in = nullptr;
  int32_t m = 0;
  const Weight* weight = nullptr;
  const Weight* bias = nullptr;  ///< vector [W.rows], or null
  float* x = nullptr;
};

/// q/k-norm + RoPE + page write + paged block attention, one layer.
/// qkv [M, (heads + 2·kv_heads)·head_dim] f32: q heads, then k heads, then v heads; overwritten freely.
/// out [M, heads·head_dim] f32.
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
  // Added to q, k and v before all else; vectors of their heads · head_dim, or null.
  const Weight* q_bias = nullptr;
  const Weight* k_bias = nullptr;
  const Weight* v_bias = nullptr;
};

/// h = rmsnorm(x, norm); p = softmax(h·routerᵀ) over all experts in f32; the top_k of largest p (ties to the lower
/// expert), renormalised to sum 1 when `renormalise`; x += Σ p_e · down_e(silu(gate_e·h) · (up_e·h)), experts added in
/// ascending order. The router is held as f32 whatever the weight format. Source: Qwen3-MoE, sdar_moe.
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

/// Final norm + lm_head at the sampled rows of the step, reduced to a token and its numbers for each (step.h). The
/// order of sums over the vocabulary depends on the shape alone.
struct LmHeadArgs {
  const float* x = nullptr;  ///< [M, hidden]
  const Weight* norm = nullptr;
  const Weight* weight = nullptr;  ///< linear or table [vocabulary, hidden]
};

class Ops {
 public:
  virtual ~Ops() = default;

  virtual const StepBuffers& buffers() const = 0;
  virtual void embed(const EmbedArgs& args) = 0;
  virtual void norm_linear(const NormLinearArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void linear_add(const LinearAddArgs& args) = 0;
  virtual void moe(const MoeArgs& args) = 0;
  virtual void lm_head(const LmHeadArgs& args) = 0;
};

}  // namespace sdar
