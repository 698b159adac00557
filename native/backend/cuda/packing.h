// Packed weights of the CUDA backend: sizes and packing, on the host. The layout is in layout.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/cuda/kernels/layout.h"
#include "backend/weights.h"

namespace sdar::cuda {

/// Vectors are held as f32, tables asked for as int4 as int8 (as on the CPU: embedding and head stay at 8 bits).
constexpr WeightFormat held_format(const WeightSpec& spec) {
  if (spec.kind == WeightKind::vector) return WeightFormat::f32;
  if (spec.kind == WeightKind::table && spec.format == WeightFormat::int4) return WeightFormat::int8;
  return spec.format;
}

size_t packed_bytes(const WeightSpec& spec);
/// Tiles of 16 rows; a vector or an f32 matrix is one unit.
int64_t pack_units(const WeightSpec& spec);
/// Packs tiles [begin, end). int8 and int4 weights have the values that the CPU backend gives them (same groups, same
/// search for the scale). A NaN or infinity in a group makes its scale NaN. Throws Error(INTERNAL) if parts and spec
/// disagree, or for f32 matrices other than linear.
void pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end, std::byte* packed);

}  // namespace sdar::cuda
