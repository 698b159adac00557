#include "backend/cpu/reference/weights.h"

#include <algorithm>
#include <cstring>
#include <vector>

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
  return static_cast<size_t>(spec.rows * groups_of(held_format(spec), spec.cols)) * sizeof(float);
}

void write_row(WeightFormat format, const float* values, int64_t cols, std::byte* out) {
  if (format == WeightFormat::f32) {
    std::memcpy(out, values, static_cast<size_t>(cols) * sizeof(float));
    return;
  }
  auto* bits = reinterpret_cast<uint16_t*>(out);
  for (int64_t i = 0; i < cols; i++) bits[i] = f32_to_bf16(values[i]);
}

void write_integers(WeightFormat format, const int8_t* q, int64_t cols, std::byte* out) {
  if (format == WeightFormat::int8) {
    std::memcpy(out, q, static_cast<size_t>(cols));
    return;
  }
  for (int64_t i = 0; i < cols; i += 2) {
    const int high = i + 1 < cols ? q[i + 1] : 0;
    out[i / 2] = std::byte((q[i] & 15) | (high & 15) << 4);
  }
}

/// Rows [begin, end), at most kQuantisedRows of them.
void pack_quantised(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end,
                    std::byte* packed) {
  const WeightFormat format = held_format(spec);
  const int64_t cols = spec.cols, group = quantised_group(format), groups = groups_of(format, cols);
  std::vector<float> row(static_cast<size_t>(cols)), columns(static_cast<size_t>(cols * kQuantisedRows));
  for (int64_t r = begin; r < end; r++) {
    read_row(parts, r, row.data());
    for (int64_t k = 0; k < cols; k++) columns[k * kQuantisedRows + r - begin] = row[k];
  }
  std::vector<int8_t> rows(static_cast<size_t>(cols * kQuantisedRows));
  auto* scales = reinterpret_cast<float*>(packed) + begin * groups;
  int8_t q[128][kQuantisedRows];
  float group_scales[kQuantisedRows];
  for (int64_t g = 0; g < groups; g++) {
    const int64_t first = g * group, n = std::min(group, cols - first);
    quantise_group(format, &columns[first * kQuantisedRows], kQuantisedRows, n, q, group_scales);
    for (int64_t r = 0; r < end - begin; r++) {
      scales[r * groups + g] = group_scales[r];
      for (int64_t k = 0; k < n; k++) rows[r * cols + first + k] = q[k][r];
    }
  }
  std::byte* out = packed + scale_bytes(spec) + static_cast<size_t>(begin) * row_bytes(format, cols);
  for (int64_t r = 0; r < end - begin; r++, out += row_bytes(format, cols)) {
    write_integers(format, &rows[r * cols], cols, out);
  }
}

}  // namespace

const float* PackedWeight::scales(int64_t row) const {
  return reinterpret_cast<const float*>(data) + row * groups_of(format(), spec.cols);
}

void PackedWeight::load_integers(int64_t row, int8_t* q) const {
  const std::byte* source = data + scale_bytes(spec) + static_cast<size_t>(row) * row_bytes(format(), spec.cols);
  if (format() == WeightFormat::int8) {
    std::memcpy(q, source, static_cast<size_t>(spec.cols));
    return;
  }
  for (int64_t i = 0; i < spec.cols; i++) {
    const int nibble = std::to_integer<int>(source[i / 2]) >> (i % 2 ? 4 : 0) & 15;
    q[i] = static_cast<int8_t>((nibble ^ 8) - 8);
  }
}

void PackedWeight::load_row(int64_t row, float* values) const {
  const int64_t cols = spec.cols;
  if (is_quantised(format())) {
    std::vector<int8_t> q(static_cast<size_t>(cols));
    load_integers(row, q.data());
    const float* scale = scales(row);
    for (int64_t i = 0; i < cols; i++) values[i] = static_cast<float>(q[i]) * scale[i / quantised_group(format())];
    return;
  }
  const std::byte* source = data + static_cast<size_t>(row) * row_bytes(format(), cols);
  if (format() == WeightFormat::f32) {
    std::memcpy(values, source, row_bytes(format(), cols));
  } else {
    const auto* bits = reinterpret_cast<const uint16_t*>(source);
    for (int64_t i = 0; i < cols; i++) values[i] = bf16_to_f32(bits[i]);
  }
}

size_t packed_bytes(const WeightSpec& spec) {
  return scale_bytes(spec) + static_cast<size_t>(spec.rows) * row_bytes(held_format(spec), spec.cols);
}

void pack_rows(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end,
               std::byte* packed) {
  check_parts(spec, parts);
  const WeightFormat format = held_format(spec);
  if (is_quantised(format)) {
    for (int64_t row = begin; row < end; row += kQuantisedRows) {
      pack_quantised(spec, parts, row, std::min(row + kQuantisedRows, end), packed);
    }
    return;
  }
  std::vector<float> values(static_cast<size_t>(spec.cols));
  for (int64_t row = begin; row < end; row++) {
    read_row(parts, row, values.data());
    write_row(format, values.data(), spec.cols, packed + static_cast<size_t>(row) * row_bytes(format, spec.cols));
  }
}

}  // namespace sdar::cpu::reference
