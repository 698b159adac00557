// Random numbers made on the card.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/device_types.h"
#include "backend/cuda/kernels/layout.h"

namespace gpu_bench {

/// bf16 of random sign with magnitudes 1/64 … 2.
void fill_bf16(sdar::cuda::Stream stream, uint16_t* values, int64_t count, uint32_t seed);
void fill_f32(sdar::cuda::Stream stream, float* values, int64_t count, float low, float high, uint32_t seed);
/// Packed weights: weight tiles of the layout, their scales 1/1024.
void fill_weight_tiles(sdar::cuda::Stream stream, uint8_t* tiles, int64_t count, sdar::WeightFormat format,
                       uint32_t seed);

}  // namespace gpu_bench
