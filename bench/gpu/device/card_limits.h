// What the card itself can do, measured: memory by copying and by reading, tensor cores by mma.sync on registers.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/device_types.h"

namespace gpu_bench {

/// 16 bytes per thread and turn; bytes is a multiple of 16 KiB.
void copy_memory(sdar::cuda::Stream stream, const void* from, void* to, int64_t bytes);
void read_memory(sdar::cuda::Stream stream, const void* from, uint32_t* out, int64_t bytes);
/// Each warp issues `rounds` · kMmaPerRound of mma.m16n8k16.
constexpr int kMmaPerRound = 16, kMmaWarps = 8;
constexpr double kMmaOperations = 2.0 * 16 * 8 * 16;
void multiply_registers(sdar::cuda::Stream stream, float* out, int blocks, int rounds);

}  // namespace gpu_bench
