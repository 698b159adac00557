#include "backend/cpu/reference/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "util/error.h"
#include "util/half.h"

namespace sdar::cpu::reference {
namespace {

size_t row_bytes(WeightFormat format, int64_t cols) {
  const size_t n = static_cast<size_t>(cols);
  switch (format) {
    case WeightFormat::f32:
      return 4 * n;
    case WeightFormat::bf16:
      return 2 * n;
    case WeightFormat::int8:
      return n;
    case WeightFormat::int4:
      return (n + 1) / 2;
  }
  return 0;
}

size_t scale_bytes(const WeightSpec& spec) {
  if (!is_quantised(held_format(spec))) return 0;
  return static_cast<size_t>(spec.rows * groups_of(spec.cols)) * sizeof(float);
}

void read_source_row(const SourceTensor& part, int64_t row, float* values) {
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
}

void write_row(WeightFormat format, const float* values, int64_t cols, float* scales, std::byte* out) {
  if (format == WeightFormat::f32) {
    std::memcpy(out, values, static_cast<size_t>(cols) * sizeof(float));
  } else if (format == WeightFormat::bf16) {
    auto* bits = reinterpret_cast<uint16_t*>(out);
    for (int64_t i = 0; i < cols; i++) bits[i] = f32_to_bf16(values[i]);
  } else {
    std::vector<int8_t> q(static_cast<size_t>(cols) + 1, 0);
    for (int64_t g = 0; g < groups_of(cols); g++) {
      const int64_t begin = g * kGroupColumns, n = std::min(kGroupColumns, cols - begin);
      scales[g] = quantise(values + begin, n, format == WeightFormat::int8 ? 127 : 7, &q[begin]);
    }
    if (format == WeightFormat::int8) {
      std::memcpy(out, q.data(), static_cast<size_t>(cols));
    } else {
      for (int64_t i = 0; i < cols; i += 2) out[i / 2] = std::byte((q[i] & 15) | (q[i + 1] & 15) << 4);
    }
  }
}

}  // namespace

float quantise(const float* x, int64_t n, int limit, int8_t* q) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    finite = finite && std::isfinite(x[i]);
    largest = std::max(largest, std::abs(x[i]));
  }
  const float scale = largest / static_cast<float>(limit);
  if (!finite || scale == 0) {
    for (int64_t i = 0; i < n; i++) q[i] = 0;
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  for (int64_t i = 0; i < n; i++) {
    const long value = std::lrint(x[i] / scale);  // a subnormal scale may be too small by rounding: clamp
    q[i] = static_cast<int8_t>(std::clamp<long>(value, -limit, limit));
  }
  return scale;
}

const float* PackedWeight::scales(int64_t row) const {
  return reinterpret_cast<const float*>(data) + row * groups_of(spec.cols);
}

void PackedWeight::load_integers(int64_t row, int8_t* q) const {
  const WeightFormat format = held_format(spec);
  const std::byte* source = data + scale_bytes(spec) + static_cast<size_t>(row) * row_bytes(format, spec.cols);
  if (format == WeightFormat::int8) {
    std::memcpy(q, source, static_cast<size_t>(spec.cols));
    return;
  }
  for (int64_t i = 0; i < spec.cols; i++) {
    const int nibble = std::to_integer<int>(source[i / 2]) >> (i % 2 ? 4 : 0) & 15;
    q[i] = static_cast<int8_t>((nibble ^ 8) - 8);
  }
}

void PackedWeight::load_row(int64_t row, float* values) const {
  const WeightFormat format = held_format(spec);
  if (is_quantised(format)) {
    std::vector<int8_t> q(static_cast<size_t>(spec.cols));
    load_integers(row, q.data());
    for (int64_t i = 0; i < spec.cols; i++) values[i] = static_cast<float>(q[i]) * scales(row)[i / kGroupColumns];
    return;
  }
  const std::byte* source = data + static_cast<size_t>(row) * row_bytes(format, spec.cols);
  if (format == WeightFormat::f32) {
    std::memcpy(values, source, row_bytes(format, spec.cols));
  } else {
    const auto* bits = reinterpret_cast<const uint16_t*>(source);
    for (int64_t i = 0; i < spec.cols; i++) values[i] = bf16_to_f32(bits[i]);
  }
}

size_t packed_bytes(const WeightSpec& spec) {
  return scale_bytes(spec) + static_cast<size_t>(spec.rows) * row_bytes(held_format(spec), spec.cols);
}

void pack_rows(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end,
               std::byte* packed) {
  int64_t total = 0;
  for (const SourceTensor& part : parts) {
    total += part.rows;
    if (part.cols != spec.cols) total = -1;
    if (total < 0) break;
  }
  if (total != spec.rows) {
    throw Error(code::kInternal, "pack: the parts do not make a [" + std::to_string(spec.rows) + ", " +
                                     std::to_string(spec.cols) + "] weight");
  }
  const WeightFormat format = held_format(spec);
  const size_t stride = row_bytes(format, spec.cols);
  std::vector<float> values(static_cast<size_t>(spec.cols));
  int64_t first = 0;  // row of the weight at which the part starts
  for (const SourceTensor& part : parts) {
    for (int64_t row = std::max(begin, first); row < std::min(end, first + part.rows); row++) {
      read_source_row(part, row - first, values.data());
      float* scales = reinterpret_cast<float*>(packed) + row * groups_of(spec.cols);
      write_row(format, values.data(), spec.cols, scales, packed + scale_bytes(spec) + row * stride);
    }
    first += part.rows;
  }
}

}  // namespace sdar::cpu::reference
