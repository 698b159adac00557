// RMSNorm, matmul and sampling in plain loops.
#pragma once
#include <cstdint>
#include <span>

#include "backend/cpu/reference/weights.h"
#include "backend/host_step.h"

namespace sdar::cpu::reference {

/// Σ a·b in double, in eight interleaved sums that are added in ascending order: the result depends on n alone.
double dot(const float* a, const float* b, int64_t n);

/// y = x · rsqrt(mean(x²) + eps) · norm, each [n]; y may be x.
void rms_norm(const float* x, const float* norm, int64_t n, float eps, float* y);

/// out[m, W.rows] = in[m, W.cols]·Wᵀ, `in` first rounded as backend/ops.h says for W's format.
void matmul(const float* in, int32_t m, const PackedWeight& weight, float* out);

/// out[m, n] = silu(g)·u for both[m, 2n] = g (first n columns), u.
void silu_multiply(const float* both, int32_t m, int64_t n, float* out);

/// Adds the request's bias to `logits` [vocabulary], penalises them, then chooses as backend/step.h says. Probabilities are computed in
/// double, sums run over ids in ascending order. Also not finite: every id is suppressed.
SampledToken choose_token(std::span<float> logits, const SampledRow& request);

}  // namespace sdar::cpu::reference
