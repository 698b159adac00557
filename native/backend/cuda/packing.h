// Packed weights of the CUDA backend: sizes and packing, on the host. The layout is in layout.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/cuda/kernels/layout.h"
#include "backend/quantize.h"

namespace sdar::cuda {

size_t packed_bytes(const WeightSpec& spec);
/// Tiles of 16 rows; a vector or an f32 matrix is one unit.
int64_t pack_units(const WeightSpec& spec);
/// Packs tiles [begin, end). Throws Error(INTERNAL) if parts and spec disagree, or for f32 matrices other than linear.
void pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end, std::byte* packed);

}  // namespace sdar::cuda
