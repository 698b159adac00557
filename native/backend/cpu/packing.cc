#include "backend/cpu/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "util/error.h"
#include "util/half.h"

namespace sdar::cpu {
namespace {

constexpr int64_t kZeroPoint8 = 128, kZeroPoint4 = 8;
// Adding and subtracting it rounds a float of magnitude below 2^22 to the nearest integer, even on a tie.
constexpr float kRounder = 12582912.0f;

/// A row of the stacked parts as f32, zeros past the last column.
void read_row(std::span<const SourceTensor> parts, int64_t row, float* values) {
  for (const SourceTensor& part : parts) {
    if (row >= part.rows) {
      row -= part.rows;
      continue;
    }
    const std::byte* source = part.data + static_cast<size_t>(row * part.cols) * bytes_of(part.dtype);
    for (int64_t i = 0; i < part.cols; i++) {
      if (part.dtype == DType::f32) {
        std::memcpy(values + i, source + 4 * i, sizeof(float));
      } else {
        uint16_t bits;
        std::memcpy(&bits, source + 2 * i, sizeof bits);
        values[i] = part.dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
      }
    }
    return;
  }
}

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

/// The integers 0 … 255 or 0 … 15 of a group, [n][32], and the group's 32 scales. Loops run over columns, so that the
/// compiler can use vectors; the arithmetic is the same on every machine.
using Column = float[kPanel];

void magnitudes(const Column* w, int64_t n, Column& largest, bool (&finite)[kPanel]) {
  for (int c = 0; c < kPanel; c++) largest[c] = 0;
  for (int64_t k = 0; k < n; k++) {
    for (int c = 0; c < kPanel; c++) largest[c] = std::max(std::abs(w[k][c]), largest[c]);
  }
  for (int c = 0; c < kPanel; c++) {
    float probe = 0;  // a NaN is lost in max
    for (int64_t k = 0; k < n; k++) probe += w[k][c] * 0.0f;
    finite[c] = probe == 0;
  }
}

void quantise_int8(const Column* w, int64_t n, uint8_t (*q)[kPanel], float* scales) {
  Column largest, divisor;
  bool finite[kPanel];
  magnitudes(w, n, largest, finite);
  for (int c = 0; c < kPanel; c++) {
    const bool usable = finite[c] && largest[c] > 1e-30f;
    scales[c] = finite[c] ? (usable ? largest[c] / 127.0f : 0.0f) : std::numeric_limits<float>::quiet_NaN();
    divisor[c] = usable ? scales[c] : std::numeric_limits<float>::infinity();
  }
  for (int64_t k = 0; k < n; k++) {
    for (int c = 0; c < kPanel; c++) {
      const float value = finite[c] ? w[k][c] / divisor[c] : 0.0f;
      q[k][c] = static_cast<uint8_t>(static_cast<int32_t>(value + kRounder - kRounder) + kZeroPoint8);
    }
  }
}

/// Integers −8 … 7: the scale that maps the largest weight to −8, and others about it, are tried; each is then fitted
/// by least squares (Σ w·q / Σ q²). The one of least squared error is kept.
void quantise_int4(const Column* w, int64_t n, uint8_t (*q)[kPanel], float* scales) {
  static constexpr float kCandidates[] = {-8.0f, -7.0f, -7.3f, -7.6f, -8.4f, -8.8f, -9.2f, 7.0f, 7.5f, 8.0f};
  Column largest, extreme, best, inverse;
  bool finite[kPanel];
  magnitudes(w, n, largest, finite);
  for (int c = 0; c < kPanel; c++) {
    extreme[c] = largest[c], scales[c] = 0, inverse[c] = 0;
    best[c] = std::numeric_limits<float>::infinity();
  }
  for (int64_t k = 0; k < n; k++) {
    for (int c = 0; c < kPanel; c++) extreme[c] = -w[k][c] == largest[c] ? -largest[c] : extreme[c];
  }
  for (float candidate : kCandidates) {
    Column factor, wq, qq, ww;
    for (int c = 0; c < kPanel; c++) {
      factor[c] = largest[c] > 1e-30f ? candidate / extreme[c] : 0.0f;
      wq[c] = qq[c] = ww[c] = 0;
    }
    for (int64_t k = 0; k < n; k++) {
      for (int c = 0; c < kPanel; c++) {
        float v = w[k][c] * factor[c] + kRounder - kRounder;
        v = std::min(std::max(v, -8.0f), 7.0f);
        wq[c] += w[k][c] * v;
        qq[c] += v * v;
        ww[c] += w[k][c] * w[k][c];
      }
    }
    for (int c = 0; c < kPanel; c++) {
      const float scale = qq[c] > 0 ? wq[c] / qq[c] : 0.0f;
      const float error = ww[c] - scale * wq[c];
      if (error < best[c]) best[c] = error, scales[c] = scale, inverse[c] = factor[c];
    }
  }
  for (int c = 0; c < kPanel; c++) {
    if (!finite[c]) scales[c] = std::numeric_limits<float>::quiet_NaN(), inverse[c] = 0;
  }
  for (int64_t k = 0; k < n; k++) {
    for (int c = 0; c < kPanel; c++) {
      const float v = inverse[c] != 0 ? w[k][c] * inverse[c] + kRounder - kRounder : 0.0f;
      q[k][c] = static_cast<uint8_t>(static_cast<int32_t>(std::min(std::max(v, -8.0f), 7.0f)) + kZeroPoint4);
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
    if (format == WeightFormat::int8) {
      quantise_int8(w + begin, n, q, scales);
      for (int64_t k = 0; k < n; k++) {
        for (int c = 0; c < kPanel; c++) bytes[(k / 4 * kPanel + c) * 4 + k % 4] = q[k][c];
      }
    } else {
      quantise_int4(w + begin, n, q, scales);
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
  int64_t rows = 0;
  bool fits = true;
  for (const SourceTensor& part : parts) rows += part.rows, fits = fits && part.cols == spec.cols;
  if (spec.kind == WeightKind::gate_up) fits = fits && parts.size() == 2 && parts[0].rows == parts[1].rows;
  if (!fits || rows != spec.rows) {
    throw Error(code::kInternal, "pack: the parts do not make a [" + std::to_string(spec.rows) + ", " +
                                     std::to_string(spec.cols) + "] weight");
  }
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

void look_up(const PackedWeight& table, int64_t row, float* values) {
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
