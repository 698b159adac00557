// RMSNorm into the input of a matrix product.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/layout.h"
#include "backend/cuda/kernels/stream.h"

namespace sdar::cuda {

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

}  // namespace sdar::cuda
