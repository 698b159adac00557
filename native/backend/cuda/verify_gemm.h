// Whether a GPU's warpgroup GEMM can stand in for gemm.
#pragma once
#include "backend/cuda/device.h"

namespace sdar::cuda {

/// Runs gemm and gemm_warpgroup on the same matrices, of all formats, epilogues and tiles. True when every bit of the
/// results is equal: only then may the number of tokens decide which of the two computes. False also when the library
/// has no warpgroup code for this GPU or the GPU refuses it. Throws Error: OUT_OF_MEMORY, DEVICE_FAILED.
bool warpgroup_gemm_is_bit_exact(Device& device);

}  // namespace sdar::cuda
