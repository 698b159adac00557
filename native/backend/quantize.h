// What every backend's packer shares: the format that a weight is held in, its rows as f32, and the one quantiser of
// int8 and int4 weights. Packers lay the integers and scales out; the values are the same on every backend.
#pragma once
#include <cstdint>
#include <span>

#include "backend/weights.h"

namespace sdar {

/// Vectors are held as f32, tables asked for as int4 as int8: embedding and lm_head stay at 8 bits. (An untied lm_head
/// is also best packed as a table.)
constexpr WeightFormat held_format(const WeightSpec& spec) {
  if (spec.kind == WeightKind::vector) return WeightFormat::f32;
  if (spec.kind == WeightKind::table && spec.format == WeightFormat::int4) return WeightFormat::int8;
  return spec.format;
}

/// Consecutive columns of a row that share a scale, of int8 and int4 weights.
constexpr int64_t quantised_group(WeightFormat format) { return format == WeightFormat::int4 ? 64 : 128; }

/// Throws Error(INTERNAL) when the parts, one below the other, do not make the weight that `spec` says.
void check_parts(const WeightSpec& spec, std::span<const SourceTensor> parts);

/// values[cols] = row `row` of the parts, one below the other.
void read_row(std::span<const SourceTensor> parts, int64_t row, float* values);

/// Rows that are quantised side by side.
constexpr int kQuantisedRows = 16;

/// Up to a group of columns of 16 rows: w ≈ q · scale, int8 with |q| <= 127, int4 with q = −8 … 7. Column k of row r is
/// w[k · stride + r], its integer q[k][r]. Columns of zeros behind the last change nothing. A NaN or infinity in a group
/// makes its scale NaN and its integers 0.
void quantise_group(WeightFormat format, const float* w, int64_t stride, int64_t columns, int8_t (*q)[kQuantisedRows],
                    float* scales);

}  // namespace sdar
