// Packed weights of the fast CPU backend: sizes, packing, and rows of tables. The layout is in kernels.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/cpu/kernels/kernels.h"
#include "backend/quantize.h"

namespace sdar::cpu {

struct PackedWeight final : Weight {
  const std::byte* data = nullptr;
  WeightFormat format = WeightFormat::f32;  ///< as held

  const float* vector() const { return reinterpret_cast<const float*>(data); }
  const std::byte* panel(int64_t index) const { return data + static_cast<size_t>(index) * bytes_per_panel; }
  /// Output columns of a panel (16 for gate_up), and how many of panel `index` exist.
  int32_t panel_columns() const { return spec.kind == WeightKind::gate_up ? kPanel / 2 : kPanel; }
  int64_t outputs() const { return spec.kind == WeightKind::gate_up ? spec.rows / 2 : spec.rows; }
  int64_t panels() const { return (outputs() + panel_columns() - 1) / panel_columns(); }

  size_t bytes_per_panel = 0;
};

inline const PackedWeight& packed(const Weight& weight) { return static_cast<const PackedWeight&>(weight); }

/// A handle on packed bytes.
PackedWeight describe(const WeightSpec& spec, const std::byte* data);

size_t packed_bytes(const WeightSpec& spec);
/// Panels; a vector is one unit.
int64_t pack_units(const WeightSpec& spec);
/// Throws Error(INTERNAL) if parts and spec disagree.
void pack_panels(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end,
                 std::byte* packed);

/// values[cols] = row `row` of a table.
void unpack_row(const PackedWeight& table, int64_t row, float* values);

}  // namespace sdar::cpu
