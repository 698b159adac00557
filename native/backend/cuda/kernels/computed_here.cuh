// Keeping addresses out of registers.
#pragma once
#include "backend/cuda/kernels/device.cuh"

namespace sdar::cuda {

/// x, in a way that keeps the compiler from preparing all addresses that depend on it before the main loop, where
/// registers are needed for sums.
SDAR_DEVICE int computed_here(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

}  // namespace sdar::cuda
