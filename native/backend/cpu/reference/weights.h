// Packed weights of the portable backend (layout portable-2), row-major. Format f32 and bf16: the elements. int8 and
// int4: first the scales [rows, groups] f32, then the rows' integers as quantize.h makes them, int4 with two columns per
// byte (even column in the low nibble).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/quantize.h"

namespace sdar::cpu::reference {

constexpr bool is_quantised(WeightFormat format) {
  return format == WeightFormat::int8 || format == WeightFormat::int4;
}
/// Groups of a row of so many columns; 0 for formats without scales.
constexpr int64_t groups_of(WeightFormat format, int64_t cols) {
  const int64_t group = quantised_group(format);
  return is_quantised(format) ? (cols + group - 1) / group : 0;
}

struct PackedWeight final : Weight {
  const std::byte* data = nullptr;

  WeightFormat format() const { return held_format(spec); }
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

}  // namespace sdar::cpu::reference
