// Operands in the order in which a tile reads them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace sdar::train {
namespace {

/// Panels of `width` rows of `from` [rows, depth], whose elements lie `row` and `column` apart: each panel as [depth, width],
/// `panel` floats after the one before, with zeros where rows end.
inline void pack(const float* from, int64_t row, int64_t column, int64_t rows, int64_t depth, int64_t width, float* to,
                 int64_t panel) {
  for (int64_t first = 0; first < rows; first += width, to += panel) {
    const int64_t count = std::min(width, rows - first);
    const float* source = from + first * row;
    if (count < width) std::memset(to, 0, static_cast<size_t>(depth * width) * sizeof *to);
    if (row == 1) {
      for (int64_t p = 0; p < depth; p++)
        std::memcpy(to + p * width, source + p * column, static_cast<size_t>(count) * sizeof *to);
    } else {
      for (int64_t i = 0; i < count; i++)
        for (int64_t p = 0; p < depth; p++) to[p * width + i] = source[i * row + p * column];
    }
  }
}

}  // namespace
}  // namespace sdar::train
