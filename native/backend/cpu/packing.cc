#include "backend/cpu/packing.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "util/half.h"

namespace sdar::cpu {
namespace {

constexpr int32_t kZeroPoint8 = 128, kZeroPoint4 = 8;
static_assert(group_size(WeightFormat::int8) == quantised_group(WeightFormat::int8));
static_assert(group_size(WeightFormat::int4) == quantised_group(WeightFormat::int4));
static_assert(kPanel % kQuantisedRows == 0);

using Column = float[kPanel];

/// Source row behind column `column` of panel `panel`, −1 past the last.
int64_t source_row(const WeightSpec& spec, int64_t panel, int64_t column) {
  if (spec.kind != WeightKind::gate_up) {
    const int64_t row = panel * kPanel + column;
    return row < spec.rows ? row : -1;
  }
  const int64_t half = spec.rows / 2, row = panel * (kPanel / 2) + column % (kPanel / 2);
  if (row >= half) return -1;
  return column < kPanel / 2 ? row : half + row;
}

/// The integers 0 … 255 or 0 … 15 of a group, [n][32], and the group's 32 scales.
void quantise(WeightFormat format, const Column* w, int64_t n, uint8_t (*q)[kPanel], float* scales) {
  const int32_t zero_point = format == WeightFormat::int8 ? kZeroPoint8 : kZeroPoint4;
  int8_t integers[128][kQuantisedRows];
  for (int c = 0; c < kPanel; c += kQuantisedRows) {
    quantise_group(format, &w[0][c], kPanel, n, integers, scales + c);
    for (int64_t k = 0; k < n; k++) {
      for (int i = 0; i < kQuantisedRows; i++) q[k][c + i] = static_cast<uint8_t>(integers[k][i] + zero_point);
    }
  }
}

/// One panel from its columns w[k][32], k padded.
void write_panel(WeightFormat format, const Column* w, int64_t padded, std::byte* out) {
  if (format == WeightFormat::f32) {
    std::memcpy(out, w, static_cast<size_t>(padded) * sizeof(Column));
    return;
  }
  if (format == WeightFormat::bf16) {
    auto* bits = reinterpret_cast<uint16_t*>(out);
    for (int64_t k = 0; k < padded; k++) {
      for (int c = 0; c < kPanel; c++) bits[(k / 2 * kPanel + c) * 2 + k % 2] = f32_to_bf16(w[k][c]);
    }
    return;
  }
  const int64_t group = group_size(format);
  uint8_t q[128][kPanel];
  Column scales;
  for (int64_t begin = 0; begin < padded; begin += group) {
    const int64_t n = std::min(group, padded - begin);
    auto* bytes = reinterpret_cast<uint8_t*>(out);
    quantise(format, w + begin, n, q, scales);
    if (format == WeightFormat::int8) {
      for (int64_t k = 0; k < n; k++) {
        for (int c = 0; c < kPanel; c++) bytes[(k / 4 * kPanel + c) * 4 + k % 4] = q[k][c];
      }
    } else {
      for (int64_t k = 0; k < n; k += 8) {
        for (int c = 0; c < kPanel; c++) {
          for (int i = 0; i < 4; i++) {
            bytes[(k / 8 * kPanel + c) * 4 + i] = static_cast<uint8_t>(q[k + i][c] | q[k + 4 + i][c] << 4);
          }
        }
      }
    }
    out += panel_bytes(format, n) - sizeof scales;
    std::memcpy(out, scales, sizeof scales);
    out += sizeof scales;
  }
}

}  // namespace

PackedWeight describe(const WeightSpec& spec, const std::byte* data) {
  PackedWeight weight;
  weight.spec = spec;
  weight.data = data;
  weight.format = held_format(spec);
  weight.bytes_per_panel = panel_bytes(weight.format, spec.cols);
  return weight;
}

size_t packed_bytes(const WeightSpec& spec) {
  if (spec.kind == WeightKind::vector) return (static_cast<size_t>(spec.cols) * sizeof(float) + 63) / 64 * 64;
  const PackedWeight weight = describe(spec, nullptr);
  return static_cast<size_t>(weight.panels()) * weight.bytes_per_panel;
}

int64_t pack_units(const WeightSpec& spec) {
  return spec.kind == WeightKind::vector ? 1 : describe(spec, nullptr).panels();
}

void pack_panels(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end,
                 std::byte* packed) {
  check_parts(spec, parts);
  if (spec.kind == WeightKind::vector) {
    std::memset(packed, 0, packed_bytes(spec));
    read_row(parts, 0, reinterpret_cast<float*>(packed));
    return;
  }
  const PackedWeight weight = describe(spec, packed);
  const int64_t padded = padded_k(weight.format, spec.cols);
  std::vector<float> row(static_cast<size_t>(spec.cols));
  std::vector<float> storage(static_cast<size_t>(padded) * kPanel);
  auto* columns = reinterpret_cast<Column*>(storage.data());
  for (int64_t p = begin; p < end; p++) {
    std::fill(storage.begin(), storage.end(), 0.0f);
    for (int c = 0; c < kPanel; c++) {
      const int64_t source = source_row(spec, p, c);
      if (source < 0) continue;
      read_row(parts, source, row.data());
      for (int64_t k = 0; k < spec.cols; k++) columns[k][c] = row[k];
    }
    write_panel(weight.format, columns, padded, packed + static_cast<size_t>(p) * weight.bytes_per_panel);
  }
}

void unpack_row(const PackedWeight& table, int64_t row, float* values) {
  const std::byte* panel = table.panel(row / kPanel);
  const int64_t c = row % kPanel, cols = table.spec.cols;
  if (table.format == WeightFormat::f32) {
    const auto* w = reinterpret_cast<const float*>(panel);
    for (int64_t k = 0; k < cols; k++) values[k] = w[k * kPanel + c];
  } else if (table.format == WeightFormat::bf16) {
    const auto* w = reinterpret_cast<const uint16_t*>(panel);
    for (int64_t k = 0; k < cols; k++) values[k] = bf16_to_f32(w[(k / 2 * kPanel + c) * 2 + k % 2]);
  } else {
    const int64_t group = group_size(table.format);  // a table is never held as int4
    for (int64_t begin = 0; begin < cols; begin += group, panel += group_bytes(table.format)) {
      const int64_t n = std::min(group, padded_k(table.format, cols) - begin);
      const auto* w = reinterpret_cast<const uint8_t*>(panel);
      const float scale = reinterpret_cast<const float*>(panel + n * kPanel)[c];
      for (int64_t k = 0; k < std::min(n, cols - begin); k++) {
        values[begin + k] = static_cast<float>(w[(k / 4 * kPanel + c) * 4 + k % 4] - kZeroPoint8) * scale;
      }
    }
  }
}

}  // namespace sdar::cpu
