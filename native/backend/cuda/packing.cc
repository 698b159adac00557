#include "backend/cuda/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "util/error.h"
#include "util/half.h"

namespace sdar::cuda {
namespace {

// Adding and subtracting it rounds a float of magnitude below 2^22 to the nearest integer, even on a tie.
constexpr float kRounder = 12582912.0f;
constexpr float kTooSmall = 1e-30f;  // largest weight of a group that counts as zero

/// A row of the stacked parts as f32.
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

/// Source row behind row `row` of tile `tile`, −1 past the last.
int64_t source_row(const WeightSpec& spec, int64_t tile, int64_t row) {
  if (spec.kind != WeightKind::gate_up) {
    const int64_t source = tile * kTileRows + row;
    return source < spec.rows ? source : -1;
  }
  const int64_t half = spec.rows / 2, output = tile * 8 + row % 8;
  if (output >= half) return -1;
  return row < 8 ? output : half + output;
}

float quantise_int8(const float* w, int n, float largest, int8_t* q) {
  const bool usable = largest > kTooSmall;
  const float scale = usable ? largest / 127.0f : 0.0f;
  for (int k = 0; k < n; k++) q[k] = usable ? static_cast<int8_t>(w[k] / scale + kRounder - kRounder) : int8_t{0};
  return scale;
}

/// Integers −8 … 7: the scale that maps the largest weight to −8, and others about it, are tried; each is then fitted
/// by least squares (Σ w·q / Σ q²). The one of least squared error is kept.
float quantise_int4(const float* w, int n, float largest, int8_t* q) {
  static constexpr float kCandidates[] = {-8.0f, -7.0f, -7.3f, -7.6f, -8.4f, -8.8f, -9.2f, 7.0f, 7.5f, 8.0f};
  const auto nearest = [](float v) { return std::min(std::max(v + kRounder - kRounder, -8.0f), 7.0f); };
  float extreme = largest, scale = 0, inverse = 0, best = std::numeric_limits<float>::infinity();
  for (int k = 0; k < n; k++) extreme = -w[k] == largest ? -largest : extreme;
  for (float candidate : kCandidates) {
    const float factor = largest > kTooSmall ? candidate / extreme : 0.0f;
    float wq = 0, qq = 0, ww = 0;
    for (int k = 0; k < n; k++) {
      const float v = nearest(w[k] * factor);
      wq += w[k] * v, qq += v * v, ww += w[k] * w[k];
    }
    const float fitted = qq > 0 ? wq / qq : 0.0f, error = ww - fitted * wq;
    if (error < best) best = error, scale = fitted, inverse = factor;
  }
  for (int k = 0; k < n; k++) q[k] = static_cast<int8_t>(nearest(w[k] * inverse));
  return scale;
}

/// q[n] and the scale of one group.
float quantise(WeightFormat format, const float* w, int n, int8_t* q) {
  float largest = 0, probe = 0;  // a NaN is lost in max
  for (int k = 0; k < n; k++) largest = std::max(std::abs(w[k]), largest), probe += w[k] * 0.0f;
  if (probe != 0 || std::isnan(probe)) {
    std::fill_n(q, n, int8_t{0});
    return std::numeric_limits<float>::quiet_NaN();
  }
  return format == WeightFormat::int8 ? quantise_int8(w, n, largest, q) : quantise_int4(w, n, largest, q);
}

/// Where the integer of row `row`, column `k` of a slab goes.
struct Place {
  Place(int row, int k)
      : piece(k / kSliceK),
        lane(row % 8 * 4 + k % 8 / 2),
        high_row(row / 8),
        instruction(k % kSliceK / 16),
        pair(k % 16 / 8),
        second(k % 2) {}
  int piece, lane, high_row, instruction;
  int pair, second;  ///< of the lane's four k of an instruction
};
void put_int8(std::byte* slab, const Place& p, int8_t q) {
  slab[p.piece * 512 + p.lane * 16 + p.high_row * 8 + p.instruction * 4 + p.second * 2 + p.pair] =
      static_cast<std::byte>(q);
}
void put_int4(std::byte* slab, const Place& p, int8_t q) {
  const int nibble = p.instruction * 2 + p.pair + p.second * 4;
  slab[p.piece * 256 + p.lane * 8 + p.high_row * 4 + nibble / 2] |= static_cast<std::byte>((q + 8) << (nibble % 2 * 4));
}

/// One slab from its rows w[16][slab k]; `out` is zeroed.
void write_slab(WeightFormat format, const float* w, std::byte* out) {
  const int columns = weight_tile_k(format);
  if (format == WeightFormat::bf16) {
    auto* bits = reinterpret_cast<uint16_t*>(out);
    for (int row = 0; row < kTileRows; row++) {
      for (int k = 0; k < columns; k++) {
        bits[(k / kSliceK * kTileRows + row) * kSliceK + k % kSliceK] = f32_to_bf16(w[row * columns + k]);
      }
    }
    return;
  }
  const int group = group_k(format);
  auto* scales = reinterpret_cast<float*>(out + weight_tile_data_bytes(format));
  int8_t q[kPadK];
  for (int row = 0; row < kTileRows; row++) {
    for (int begin = 0; begin < columns; begin += group) {
      scales[begin / group * kTileRows + row] = quantise(format, w + row * columns + begin, group, q);
      for (int k = 0; k < group; k++) {
        (format == WeightFormat::int8 ? put_int8 : put_int4)(out, {row, begin + k}, q[k]);
      }
    }
  }
}

bool in_slabs(const WeightSpec& spec) { return held_format(spec) != WeightFormat::f32; }

int64_t tiles_of(const WeightSpec& spec) {
  return spec.kind == WeightKind::gate_up ? (spec.rows / 2 + 7) / 8 : (spec.rows + kTileRows - 1) / kTileRows;
}

size_t tile_bytes(const WeightSpec& spec) {
  const WeightFormat format = held_format(spec);
  return static_cast<size_t>(padded_k(static_cast<int32_t>(spec.cols)) / weight_tile_k(format)) *
         weight_tile_bytes(format);
}

}  // namespace

size_t packed_bytes(const WeightSpec& spec) {
  if (in_slabs(spec)) return static_cast<size_t>(tiles_of(spec)) * tile_bytes(spec);
  return (static_cast<size_t>(spec.rows * spec.cols) * sizeof(float) + 63) / 64 * 64;
}

int64_t pack_units(const WeightSpec& spec) { return in_slabs(spec) ? tiles_of(spec) : 1; }

void pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end, std::byte* packed) {
  int64_t rows = 0;
  bool fits = in_slabs(spec) || spec.kind == WeightKind::vector || spec.kind == WeightKind::linear;
  for (const SourceTensor& part : parts) rows += part.rows, fits = fits && part.cols == spec.cols;
  if (spec.kind == WeightKind::gate_up) fits = fits && parts.size() == 2 && parts[0].rows == parts[1].rows;
  if (!fits || rows != spec.rows) {
    throw Error(code::kInternal, "pack: the parts do not make a [" + std::to_string(spec.rows) + ", " +
                                     std::to_string(spec.cols) + "] weight of format " + name_of(spec.format));
  }
  if (!in_slabs(spec)) {
    std::memset(packed, 0, packed_bytes(spec));
    auto* values = reinterpret_cast<float*>(packed);
    for (int64_t row = 0; row < rows; row++) read_row(parts, row, values + row * spec.cols);
    return;
  }
  const WeightFormat format = held_format(spec);
  const int columns = weight_tile_k(format);
  const int64_t padded = padded_k(static_cast<int32_t>(spec.cols));
  std::vector<float> tile(static_cast<size_t>(kTileRows * padded)), slab(static_cast<size_t>(kTileRows * columns));
  for (int64_t t = begin; t < end; t++) {
    std::fill(tile.begin(), tile.end(), 0.0f);
    for (int row = 0; row < kTileRows; row++) {
      const int64_t source = source_row(spec, t, row);
      if (source >= 0) read_row(parts, source, &tile[row * padded]);
    }
    std::byte* out = packed + static_cast<size_t>(t) * tile_bytes(spec);
    std::memset(out, 0, tile_bytes(spec));
    for (int64_t k = 0; k < padded; k += columns, out += weight_tile_bytes(format)) {
      for (int row = 0; row < kTileRows; row++) std::copy_n(&tile[row * padded + k], columns, &slab[row * columns]);
      write_slab(format, slab.data(), out);
    }
  }
}

}  // namespace sdar::cuda
