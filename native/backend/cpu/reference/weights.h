// Packed weights of the portable backend, row-major. Format f32 and bf16: the elements. int8 and int4: first the scales
// [rows, groups] f32, then the rows, int4 with two columns per byte (even column in the low nibble). Symmetric, per row
// and group of 128 columns: w ≈ q · scale, |q| <= 127 or 7.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/weights.h"

namespace sdar::cpu::reference {

constexpr int64_t kGroupColumns = 128;
constexpr int64_t groups_of(int64_t cols) { return (cols + kGroupColumns - 1) / kGroupColumns; }
constexpr bool is_quantised(WeightFormat format) {
  return format == WeightFormat::int8 || format == WeightFormat::int4;
}
/// Vectors are f32 whatever is asked.
constexpr WeightFormat held_format(const WeightSpec& spec) {
  return spec.kind == WeightKind::vector ? WeightFormat::f32 : spec.format;
}

struct PackedWeight final : Weight {
  const std::byte* data = nullptr;

  const float* vector() const { return reinterpret_cast<const float*>(data); }
  /// Scales [groups] of a row of an int8 or int4 weight.
  const float* scales(int64_t row) const;
  /// The row's integers [cols].
  void load_integers(int64_t row, int8_t* q) const;
  /// The row's values [cols], whatever the format.
  void load_row(int64_t row, float* values) const;
};

inline const PackedWeight& packed(const Weight& weight) { return static_cast<const PackedWeight&>(weight); }

size_t packed_bytes(const WeightSpec& spec);

/// Packs rows [begin, end) of the parts stacked one below the other. Throws Error(INTERNAL) if parts and spec disagree.
void pack_rows(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end,
               std::byte* packed);

/// q[i] = x[i] / scale to the nearest integer (even on a tie), scale = max|x| / limit, which is returned. When x holds
/// a NaN or infinity the scale is NaN, so that everything computed from it shows it.
float quantise(const float* x, int64_t n, int limit, int8_t* q);

}  // namespace sdar::cpu::reference
