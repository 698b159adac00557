// Operands in the order in which a tile reads them.
#pragma once
#include "train/kernels/formats.h"

namespace sdar::train {
namespace {

/// Four rows of a panel, four units at a time: in registers where the compiler sees it.
template <int kWidth>
void turn_four(const float* const from[4], int64_t units, float* to) {
  int64_t p = 0;
  for (; p + 4 <= units; p += 4) {
    float in[4][4], out[4][4];
    for (int i = 0; i < 4; i++) std::memcpy(in[i], from[i] + p, sizeof in[i]);
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 4; j++) out[j][i] = in[i][j];
    for (int j = 0; j < 4; j++) std::memcpy(to + (p + j) * kWidth, out[j], sizeof out[j]);
  }
  for (; p < units; p++)
    for (int i = 0; i < 4; i++) std::memcpy(to + p * kWidth + i, from[i] + p, sizeof *to);
}

/// Panels of kWidth rows of `from` [rows, depth], `panel` units after the one before, with zeros where rows end.
template <class F, int kWidth>
void pack(const View& from, int64_t rows, int64_t depth, float* to, int64_t panel) {
  const int64_t steps = steps_of<F>(depth);
  for (int64_t first = 0; first < rows; first += kWidth, to += panel) {
    const int64_t count = std::min<int64_t>(kWidth, rows - first);
    if (count < kWidth) std::memset(to, 0, static_cast<size_t>(steps * kWidth) * sizeof *to);
    if (from.row == 1) {
      if (count == kWidth)  // a constant, for the compiler
        for (int64_t s = 0; s < steps; s++) F::across(from, first, kWidth, s * F::kStep, depth, to + s * kWidth);
      else
        for (int64_t s = 0; s < steps; s++) F::across(from, first, count, s * F::kStep, depth, to + s * kWidth);
      continue;
    }
    alignas(64) float spare[4][kMostUnits];
    for (int64_t p = 0; p < depth; p += kMostUnits * F::kStep) {
      const int64_t length = std::min(kMostUnits * F::kStep, depth - p), units = steps_of<F>(length);
      float* at = to + p / F::kStep * kWidth;
      for (int64_t i = 0; i < count; i += 4) {
        const float* four[4] = {};
        const int64_t n = std::min<int64_t>(4, count - i);
        for (int64_t r = 0; r < n; r++) four[r] = F::along(from, first + i + r, p, length, spare[r]);
        if (n == 4)
          turn_four<kWidth>(four, units, at + i);
        else
          for (int64_t r = 0; r < n; r++)
            for (int64_t u = 0; u < units; u++) std::memcpy(at + u * kWidth + i + r, four[r] + u, sizeof *at);
      }
    }
  }
}

template <class F, int kWidth>
void pack_panels(const View& from, int64_t rows, int64_t depth, float* to) {
  pack<F, kWidth>(from, rows, depth, to, steps_of<F>(depth) * kWidth);
}

template <class F>
constexpr Products products_of() {
  return {kTileRows,
          static_cast<int32_t>(kColumns),
          static_cast<int32_t>(F::kStep),
          pack_panels<F, kTileRows>,
          pack_panels<F, static_cast<int>(kColumns)>,
          tile<typename F::Multiply, true>};
}

}  // namespace
}  // namespace sdar::train
