#include "backend/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "util/error.h"
#include "util/half.h"

namespace sdar {
namespace {

// Adding and subtracting it rounds a float of magnitude below 2^22 to the nearest integer, even on a tie.
constexpr float kRounder = 12582912.0f;
constexpr float kTooSmall = 1e-30f;  // largest weight of a group that counts as zero

// Loops run over rows, so that the compiler can use vectors; the arithmetic is the same on every machine.
constexpr int kRows = kQuantisedRows;
using Rows = float[kRows];

struct Group {
  const float* w;
  int64_t stride, columns;
  Rows largest;  ///< magnitudes
  bool finite[kRows];

  Group(const float* w, int64_t stride, int64_t columns) : w(w), stride(stride), columns(columns) {
    Rows probe;  // a NaN is lost in max
    for (int r = 0; r < kRows; r++) largest[r] = probe[r] = 0;
    for (int64_t k = 0; k < columns; k++) {
      for (int r = 0; r < kRows; r++) {
        largest[r] = std::max(std::abs(column(k)[r]), largest[r]);
        probe[r] += column(k)[r] * 0.0f;
      }
    }
    for (int r = 0; r < kRows; r++) finite[r] = probe[r] == 0;
  }
  const float* column(int64_t k) const { return w + k * stride; }
};

void quantise_int8(const Group& group, int8_t (*q)[kRows], float* scales) {
  Rows divisor;
  for (int r = 0; r < kRows; r++) {
    const bool usable = group.finite[r] && group.largest[r] > kTooSmall;
    scales[r] = group.finite[r] ? (usable ? group.largest[r] / 127.0f : 0.0f) : std::numeric_limits<float>::quiet_NaN();
    divisor[r] = usable ? scales[r] : std::numeric_limits<float>::infinity();
  }
  for (int64_t k = 0; k < group.columns; k++) {
    for (int r = 0; r < kRows; r++) {
      const float value = group.finite[r] ? group.column(k)[r] / divisor[r] : 0.0f;
      q[k][r] = static_cast<int8_t>(static_cast<int32_t>(value + kRounder - kRounder));
    }
  }
}

float nearest_int4(float v) { return std::min(std::max(v + kRounder - kRounder, -8.0f), 7.0f); }

/// Integers −8 … 7: the scale that maps the largest weight to −8, and others about it, are tried; each is then fitted
/// by least squares (Σ w·q / Σ q²). The one of least squared error is kept.
void quantise_int4(const Group& group, int8_t (*q)[kRows], float* scales) {
  static constexpr float kCandidates[] = {-8.0f, -7.0f, -7.3f, -7.6f, -8.4f, -8.8f, -9.2f, 7.0f, 7.5f, 8.0f};
  Rows extreme, best, inverse;
  for (int r = 0; r < kRows; r++) {
    extreme[r] = group.largest[r], scales[r] = 0, inverse[r] = 0;
    best[r] = std::numeric_limits<float>::infinity();
  }
  for (int64_t k = 0; k < group.columns; k++) {
    for (int r = 0; r < kRows; r++) {
      extreme[r] = -group.column(k)[r] == group.largest[r] ? -group.largest[r] : extreme[r];
    }
  }
  for (float candidate : kCandidates) {
    Rows factor, wq, qq, ww;
    for (int r = 0; r < kRows; r++) {
      factor[r] = group.largest[r] > kTooSmall ? candidate / extreme[r] : 0.0f;
      wq[r] = qq[r] = ww[r] = 0;
    }
    for (int64_t k = 0; k < group.columns; k++) {
      for (int r = 0; r < kRows; r++) {
        const float w = group.column(k)[r], v = nearest_int4(w * factor[r]);
        wq[r] += w * v;
        qq[r] += v * v;
        ww[r] += w * w;
      }
    }
    for (int r = 0; r < kRows; r++) {
      const float scale = qq[r] > 0 ? wq[r] / qq[r] : 0.0f;
      const float error = ww[r] - scale * wq[r];
      if (error < best[r]) best[r] = error, scales[r] = scale, inverse[r] = factor[r];
    }
  }
  for (int r = 0; r < kRows; r++) {
    const bool overflow = best[r] == std::numeric_limits<float>::infinity();  // the squares: no scale fits
    if (!group.finite[r] || overflow) scales[r] = std::numeric_limits<float>::quiet_NaN(), inverse[r] = 0;
  }
  for (int64_t k = 0; k < group.columns; k++) {
    for (int r = 0; r < kRows; r++) {
      const float v = inverse[r] != 0 ? nearest_int4(group.column(k)[r] * inverse[r]) : 0.0f;
      q[k][r] = static_cast<int8_t>(static_cast<int32_t>(v));
    }
  }
}

}  // namespace

void check_parts(const WeightSpec& spec, std::span<const SourceTensor> parts) {
  int64_t rows = 0;
  bool fits = true;
  for (const SourceTensor& part : parts) rows += part.rows, fits = fits && part.cols == spec.cols;
  if (spec.kind == WeightKind::gate_up) fits = fits && parts.size() == 2 && parts[0].rows == parts[1].rows;
  if (fits && rows == spec.rows) return;
  throw Error(code::kInternal, "pack: the parts do not make a [" + std::to_string(spec.rows) + ", " +
                                   std::to_string(spec.cols) + "] weight");
}

void read_row(std::span<const SourceTensor> parts, int64_t row, float* values) {
  for (const SourceTensor& part : parts) {
    if (row >= part.rows) {
      row -= part.rows;
      continue;
    }
    const std::byte* source = part.data + static_cast<size_t>(row * part.cols) * bytes_of(part.dtype);
    if (part.dtype == DType::f32) {
      std::memcpy(values, source, static_cast<size_t>(part.cols) * sizeof(float));
      return;
    }
    for (int64_t i = 0; i < part.cols; i++) {
      uint16_t bits;
      std::memcpy(&bits, source + 2 * i, sizeof bits);
      values[i] = part.dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
    }
    return;
  }
}

void quantise_group(WeightFormat format, const float* w, int64_t stride, int64_t columns, int8_t (*q)[kQuantisedRows],
                    float* scales) {
  const Group group(w, stride, columns);
  format == WeightFormat::int8 ? quantise_int8(group, q, scales) : quantise_int4(group, q, scales);
}

}  // namespace sdar
