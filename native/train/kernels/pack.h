// Operands in the order in which a tile reads them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace sdar::train {
namespace {

/// Four rows of a panel, four columns at a time: in registers where the compiler sees it.
inline void pack_four(const float* from, int64_t row, int64_t depth, int64_t width, float* to) {
  int64_t p = 0;
  for (; p + 4 <= depth; p += 4) {
    float in[4][4], out[4][4];
    for (int i = 0; i < 4; i++) std::memcpy(in[i], from + i * row + p, sizeof in[i]);
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 4; j++) out[j][i] = in[i][j];
    for (int j = 0; j < 4; j++) std::memcpy(to + (p + j) * width, out[j], sizeof out[j]);
  }
  for (; p < depth; p++)
    for (int i = 0; i < 4; i++) to[p * width + i] = from[i * row + p];
}

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
      continue;
    }
    int64_t i = 0;
    if (column == 1)
      for (; i + 4 <= count; i += 4) pack_four(source + i * row, row, depth, width, to + i);
    for (; i < count; i++)
      for (int64_t p = 0; p < depth; p++) to[p * width + i] = source[i * row + p * column];
  }
}

}  // namespace
}  // namespace sdar::train
