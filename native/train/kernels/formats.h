// What the formats of operands differ in: how values become units of a panel, and how units are multiplied. A unit is a
// float, or two bf16 where an instruction multiplies pairs; elsewhere the floats of bf16 operands are rounded ones, which
// gives the same products.
#pragma once
#include <algorithm>
#include <bit>

#include "train/kernels/kernels.h"
#include "train/kernels/tile.h"

namespace sdar::train {
namespace {

constexpr int64_t kMostUnits = 256;  ///< that along() is asked for

inline const float* floats(const Operand& values) { return static_cast<const float*>(values.data); }
inline const uint16_t* halves(const Operand& values) { return static_cast<const uint16_t*>(values.data); }

/// x as bf16 in the upper half, to nearest even; a NaN stays one.
inline uint32_t rounded(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t nearest = bits + 0x7fffu + (bits >> 16 & 1u), quiet = bits | 0x400000u;
  return ((bits & 0x7fffffffu) > 0x7f800000u ? quiet : nearest) & 0xffff0000u;
}
inline uint32_t bits_of(const Operand& values, int64_t i) {
  return values.format == Format::f32 ? rounded(floats(values)[i]) : static_cast<uint32_t>(halves(values)[i]) << 16;
}

struct F32 {
  static constexpr Format kFormat = Format::f32;
  static constexpr int64_t kStep = 1;
  using Multiply = MultiplyAdd;
  /// The units of `count` elements along the sum, of row i from element p: in `spare`, or where they are anyway.
  static const float* along(const View& from, int64_t i, int64_t p, int64_t count, float* spare) {
    const float* source = floats(from.data) + i * from.row + p * from.column;
    if (from.column == 1) return source;
    for (int64_t j = 0; j < count; j++) spare[j] = source[j * from.column];
    return spare;
  }
  /// Units of rows i to i + count, which lie side by side, at the step that starts with element p of `depth`.
  static void across(const View& from, int64_t i, int64_t count, int64_t p, int64_t, float* to) {
    std::memcpy(to, floats(from.data) + i + p * from.column, static_cast<size_t>(count) * sizeof *to);
  }
};

#if defined(__AVX512BF16__)
struct Bf16 {
  static constexpr Format kFormat = Format::bf16;
  static constexpr int64_t kStep = 2;
  struct Multiply {
    static Vector apply(Vector left, Vector right, Vector sum) {
      return _mm512_dpbf16_ps(sum, std::bit_cast<__m512bh>(left), std::bit_cast<__m512bh>(right));
    }
  };
  static __mmask16 first(int64_t count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1); }
  /// 16 values, each in the lower half of a unit.
  static __m512i sixteen(const Operand& values, int64_t index, __mmask16 mask) {
    const __m256i narrow =
        values.format == Format::bf16
            ? _mm256_maskz_loadu_epi16(mask, halves(values) + index)
            : std::bit_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, floats(values) + index)));
    return _mm512_cvtepu16_epi32(narrow);
  }
  static const float* along(const View& from, int64_t i, int64_t p, int64_t count, float* spare) {
    const Operand source = from.data.at(i * from.row + p * from.column);
    int64_t j = 0;
    if (from.column == 1) {
      if (source.format == Format::bf16) {
        std::memcpy(spare, source.data, static_cast<size_t>(count) * 2);
        j = count / 2 * 2;
      } else {
        for (; j + 32 <= count; j += 32)
          _mm512_storeu_si512(spare + j / 2,
                              std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(floats(source) + j + 16),
                                                                         _mm512_loadu_ps(floats(source) + j))));
      }
    }
    for (; j < count; j += 2) {
      const uint32_t low = bits_of(source, j * from.column) >> 16;
      spare[j / 2] = std::bit_cast<float>(j + 1 < count ? low | bits_of(source, (j + 1) * from.column) : low);
    }
    return spare;
  }
  static void across(const View& from, int64_t i, int64_t count, int64_t p, int64_t depth, float* to) {
    const int64_t low = i + p * from.column;
    for (int64_t j = 0; j < count; j += 16) {
      const __mmask16 mask = first(count - j);
      __m512i pairs = sixteen(from.data, low + j, mask);
      if (p + 1 < depth)
        pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(sixteen(from.data, low + from.column + j, mask), 16));
      _mm512_mask_storeu_epi32(to + j, mask, pairs);
    }
  }
  static void round(const float* x, int64_t n, uint16_t* out) {
    for (int64_t j = 0; j < n; j += 16) {
      const __mmask16 mask = first(n - j);
      _mm256_mask_storeu_epi16(out + j, mask,
                               std::bit_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + j))));
    }
  }
};
#else
struct Bf16 {
  static constexpr Format kFormat = Format::bf16;
  static constexpr int64_t kStep = 1;
  using Multiply = MultiplyAdd;
  static void widen(const Operand& source, int64_t stride, int64_t count, float* to) {
    if (source.format == Format::f32)
      for (int64_t j = 0; j < count; j++) to[j] = std::bit_cast<float>(rounded(floats(source)[j * stride]));
    else
      for (int64_t j = 0; j < count; j++)
        to[j] = std::bit_cast<float>(static_cast<uint32_t>(halves(source)[j * stride]) << 16);
  }
  static const float* along(const View& from, int64_t i, int64_t p, int64_t count, float* spare) {
    widen(from.data.at(i * from.row + p * from.column), from.column, count, spare);
    return spare;
  }
  static void across(const View& from, int64_t i, int64_t count, int64_t p, int64_t, float* to) {
    widen(from.data.at(i + p * from.column), 1, count, to);
  }
  static void round(const float* x, int64_t n, uint16_t* out) {
    for (int64_t j = 0; j < n; j++) out[j] = static_cast<uint16_t>(rounded(x[j]) >> 16);
  }
};
#endif

/// n values to element `index` of `out`.
inline void put(const float* x, int64_t n, const OperandOut& out, int64_t index) {
  if (out.format == Format::bf16)
    Bf16::round(x, n, static_cast<uint16_t*>(out.data) + index);
  else if (static_cast<float*>(out.data) + index != x)
    std::memcpy(static_cast<float*>(out.data) + index, x, static_cast<size_t>(n) * sizeof *x);
}

template <class F>
constexpr int64_t steps_of(int64_t depth) {
  return (depth + F::kStep - 1) / F::kStep;
}

}  // namespace
}  // namespace sdar::train
