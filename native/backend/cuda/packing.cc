#include "backend/cuda/packing.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "util/error.h"
#include "util/half.h"

namespace sdar::cuda {
namespace {

static_assert(group_k(WeightFormat::int8) == quantised_group(WeightFormat::int8));
static_assert(group_k(WeightFormat::int4) == quantised_group(WeightFormat::int4));
static_assert(kTileRows == kQuantisedRows);

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

/// Where the integer of row `row`, column `k` of a weight tile goes.
struct Place {
  Place(int row, int k)
      : slice(k / kSliceK),
        lane(row % 8 * 4 + k % 8 / 2),
        high_row(row / 8),
        instruction(k % kSliceK / 16),
        pair(k % 16 / 8),
        second(k % 2) {}
  int slice, lane, high_row, instruction;
  int pair, second;  ///< of the lane's four k of an instruction
};
void put_int8(std::byte* tile, const Place& p, int8_t q) {
  tile[p.slice * 512 + p.lane * 16 + p.high_row * 8 + p.instruction * 4 + p.second * 2 + p.pair] =
      static_cast<std::byte>(q);
}
void put_int4(std::byte* tile, const Place& p, int8_t q) {
  const int nibble = p.instruction * 2 + p.pair + p.second * 4;
  tile[p.slice * 256 + p.lane * 8 + p.high_row * 4 + nibble / 2] |= static_cast<std::byte>((q + 8) << (nibble % 2 * 4));
}

/// One weight tile from its columns w[k][16]; `out` is zeroed.
void write_weight_tile(WeightFormat format, const float* w, std::byte* out) {
  const int columns = weight_tile_k(format);
  if (format == WeightFormat::bf16) {
    auto* bits = reinterpret_cast<uint16_t*>(out);
    for (int row = 0; row < kTileRows; row++) {
      for (int k = 0; k < columns; k++) {
        bits[(k / kSliceK * kTileRows + row) * kSliceK + k % kSliceK] = f32_to_bf16(w[k * kTileRows + row]);
      }
    }
    return;
  }
  const int group = group_k(format);
  auto* scales = reinterpret_cast<float*>(out + weight_tile_data_bytes(format));
  int8_t q[kPadK][kTileRows];
  for (int begin = 0; begin < columns; begin += group) {
    quantise_group(format, w + begin * kTileRows, kTileRows, group, q, scales + begin / group * kTileRows);
    for (int k = 0; k < group; k++) {
      for (int row = 0; row < kTileRows; row++) {
        (format == WeightFormat::int8 ? put_int8 : put_int4)(out, {row, begin + k}, q[k][row]);
      }
    }
  }
}

bool in_weight_tiles(const WeightSpec& spec) { return held_format(spec) != WeightFormat::f32; }

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
  if (in_weight_tiles(spec)) return static_cast<size_t>(tiles_of(spec)) * tile_bytes(spec);
  return (static_cast<size_t>(spec.rows * spec.cols) * sizeof(float) + 63) / 64 * 64;
}

int64_t pack_units(const WeightSpec& spec) { return in_weight_tiles(spec) ? tiles_of(spec) : 1; }

void pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t begin, int64_t end, std::byte* packed) {
  check_parts(spec, parts);
  if (!in_weight_tiles(spec) && spec.kind != WeightKind::vector && spec.kind != WeightKind::linear) {
    throw Error(code::kInternal,
                std::string("pack: only vectors and linear weights are held as ") + name_of(spec.format));
  }
  if (!in_weight_tiles(spec)) {
    std::memset(packed, 0, packed_bytes(spec));
    auto* values = reinterpret_cast<float*>(packed);
    for (int64_t row = 0; row < spec.rows; row++) read_row(parts, row, values + row * spec.cols);
    return;
  }
  const WeightFormat format = held_format(spec);
  const int columns = weight_tile_k(format);
  const int64_t padded = padded_k(static_cast<int32_t>(spec.cols));
  std::vector<float> row(static_cast<size_t>(spec.cols)), tile(static_cast<size_t>(padded * kTileRows));
  for (int64_t t = begin; t < end; t++) {
    std::fill(tile.begin(), tile.end(), 0.0f);
    for (int r = 0; r < kTileRows; r++) {
      const int64_t source = source_row(spec, t, r);
      if (source < 0) continue;
      read_row(parts, source, row.data());
      for (int64_t k = 0; k < spec.cols; k++) tile[k * kTileRows + r] = row[k];
    }
    std::byte* out = packed + static_cast<size_t>(t) * tile_bytes(spec);
    std::memset(out, 0, tile_bytes(spec));
    for (int64_t k = 0; k < padded; k += columns, out += weight_tile_bytes(format))
      write_weight_tile(format, &tile[k * kTileRows], out);
  }
}

}  // namespace sdar::cuda
