// Matrix products of a layer. M rows; every row's result is independent of M and of the other rows, bit for bit.
#pragma once
#include <cstdint>

#include "backend/weights.h"

namespace sdar {

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

/// x[M, W.rows] += in[M, W.cols]·Wᵀ, `in` rounded as above.
struct LinearAddArgs {
  const float* in = nullptr;
  int32_t m = 0;
  const Weight* weight = nullptr;
  float* x = nullptr;
};

}  // namespace sdar
