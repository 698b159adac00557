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

// A value for each of some rows. The arithmetic is the same whatever their number, which is that of a register of the
// machine. All is inlined into a function for each.
#define SDAR_INLINE inline __attribute__((always_inline))
using Rows4 = float __attribute__((vector_size(16)));
using Rows8 = float __attribute__((vector_size(32)));

template <class Rows, class Condition>
SDAR_INLINE void set_where(const Rows& value, const Condition& condition, Rows& to) {
  to = condition ? value : to;
}
template <class Rows>
SDAR_INLINE void set_all(Rows& to, float value) {
  to = value - Rows{};
}

template <class Rows>
struct Group {
  const float* w;
  int64_t stride, columns;
  Rows largest = {};  ///< magnitudes
  Rows probe = {};    ///< 0 where all are finite, else NaN

  SDAR_INLINE Group(const float* w, int64_t stride, int64_t columns) : w(w), stride(stride), columns(columns) {
    for (int64_t k = 0; k < columns; k++) {
      Rows value;
      read(k, value);
      probe += value * 0.0f;  // a NaN is lost in a maximum
      set_where<Rows>(-value, value < 0, value);
      set_where(value, value > largest, largest);
    }
  }
  SDAR_INLINE void read(int64_t k, Rows& value) const { std::memcpy(&value, w + k * stride, sizeof value); }
};

template <class Rows>
SDAR_INLINE void write(const Rows& integers, int8_t* to) {
  for (size_t r = 0; r < sizeof(Rows) / sizeof(float); r++)
    to[r] = static_cast<int8_t>(static_cast<int32_t>(integers[r]));
}

template <class Rows>
SDAR_INLINE void quantise_int8(const Group<Rows>& group, int8_t (*q)[kQuantisedRows], float* scales) {
  Rows scale = group.largest / 127.0f, divisor = scale, none, infinite, zero = {};
  set_all(none, std::numeric_limits<float>::quiet_NaN());
  set_all(infinite, std::numeric_limits<float>::infinity());
  const auto usable = (group.probe == 0) & (group.largest > kTooSmall);
  set_where(zero, ~usable, scale);
  set_where(none, group.probe != 0, scale);
  set_where(infinite, ~usable, divisor);
  std::memcpy(scales, &scale, sizeof scale);
  for (int64_t k = 0; k < group.columns; k++) {
    Rows value;
    group.read(k, value);
    value = value / divisor + kRounder - kRounder;
    set_where(zero, group.probe != 0, value);
    write(value, q[k]);
  }
}

/// The nearest integer of −8 … 7.
template <class Rows>
SDAR_INLINE void round_int4(Rows& value) {
  Rows least, most;
  set_all(least, -8.0f), set_all(most, 7.0f);
  value = value + kRounder - kRounder;
  set_where(least, value < least, value);
  set_where(most, value > most, value);
}

/// Integers −8 … 7: the scale that maps the largest weight to −8, and others about it, are tried; each is then fitted
/// by least squares (Σ w·q / Σ q²). The one of least squared error is kept.
template <class Rows>
SDAR_INLINE void quantise_int4(const Group<Rows>& group, int8_t (*q)[kQuantisedRows], float* scales) {
  static constexpr float kCandidates[] = {-8.0f, -7.0f, -7.3f, -7.6f, -8.4f, -8.8f, -9.2f, 7.0f, 7.5f, 8.0f};
  Rows extreme = group.largest, scale = {}, inverse = {}, ww = {}, best, none, zero = {}, w;
  set_all(best, std::numeric_limits<float>::infinity());
  set_all(none, std::numeric_limits<float>::quiet_NaN());
  for (int64_t k = 0; k < group.columns; k++) {
    group.read(k, w);
    set_where(w, -w == group.largest, extreme);
    ww += w * w;
  }
  for (float candidate : kCandidates) {
    Rows factor = candidate / extreme, wq = {}, qq = {};
    set_where(zero, ~(group.largest > kTooSmall), factor);
    for (int64_t k = 0; k < group.columns; k++) {
      group.read(k, w);
      Rows v = w * factor;
      round_int4(v);
      wq += w * v;
      qq += v * v;
    }
    Rows fitted = wq / qq;
    set_where(zero, ~(qq > 0), fitted);
    const Rows error = ww - fitted * wq;
    const auto better = error < best;
    set_where(error, better, best);
    set_where(fitted, better, scale);
    set_where(factor, better, inverse);
  }
  // The squares may overflow: then no scale fits.
  const auto unusable = (best == std::numeric_limits<float>::infinity()) | (group.probe != 0);
  set_where(none, unusable, scale);
  set_where(zero, unusable, inverse);
  std::memcpy(scales, &scale, sizeof scale);
  for (int64_t k = 0; k < group.columns; k++) {
    group.read(k, w);
    w *= inverse;
    round_int4(w);
    set_where(zero, inverse == 0, w);
    write(w, q[k]);
  }
}

template <class Rows>
SDAR_INLINE void quantise(WeightFormat format, const float* w, int64_t stride, int64_t columns,
                          int8_t (*q)[kQuantisedRows], float* scales) {
  for (int r = 0; r < kQuantisedRows; r += static_cast<int>(sizeof(Rows) / sizeof(float))) {
    const Group<Rows> group(w + r, stride, columns);
    auto* integers = reinterpret_cast<int8_t(*)[kQuantisedRows]>(&q[0][r]);
    format == WeightFormat::int8 ? quantise_int8(group, integers, scales + r)
                                 : quantise_int4(group, integers, scales + r);
  }
}

using Quantise = void (*)(WeightFormat, const float*, int64_t, int64_t, int8_t (*)[kQuantisedRows], float*);

void quantise_plain(WeightFormat format, const float* w, int64_t stride, int64_t columns, int8_t (*q)[kQuantisedRows],
                    float* scales) {
  quantise<Rows4>(format, w, stride, columns, q, scales);
}

#ifdef __x86_64__
__attribute__((target("avx2"))) void quantise_avx2(WeightFormat format, const float* w, int64_t stride, int64_t columns,
                                                   int8_t (*q)[kQuantisedRows], float* scales) {
  quantise<Rows8>(format, w, stride, columns, q, scales);
}
#endif

Quantise best_quantise() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2")) return quantise_avx2;
#endif
  return quantise_plain;
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
  static const Quantise quantise_best = best_quantise();
  quantise_best(format, w, stride, columns, q, scales);
}

}  // namespace sdar
