// Helpers for tests of the fast CPU backend: what packed bytes mean, read from the layout in kernels.h by plain loops.
#pragma once
#include <limits>
#include <string>

#include "backend/cpu/cpu.h"
#include "backend/cpu/packing.h"
#include "oracle.h"

namespace oracle {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr WeightFormat kFormats[] = {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4};

inline std::vector<std::string> fast_sets() {
  std::vector<std::string> sets = cpu::instruction_sets();
  sets.pop_back();
  return sets;
}

inline ModelShape small_shape(int hidden) {
  ModelShape s;
  s.layers = 1;
  s.hidden = hidden;
  s.heads = 2;
  s.kv_heads = 1;
  s.head_dim = 16;
  s.context = 64;
  return s;
}

inline std::unique_ptr<HostBackend> fast_backend(const std::string& isa, int threads, int hidden) {
  auto backend = cpu::make_backend({.threads = threads, .isa = isa});
  backend->configure_ops(small_shape(hidden), {1, KvFormat::f32}, 128);
  return backend;
}

/// The values that a packed weight stands for, [rows, cols] in the order of the checkpoint's parts.
inline Matrix unpacked(const Held& held) {
  const cpu::PackedWeight& w = cpu::packed(*held.weight);
  const int64_t rows = w.spec.rows, cols = w.spec.cols, half = rows / 2;
  Matrix m{rows, cols, std::vector<float>(static_cast<size_t>(rows * cols))};
  const int64_t padded = cpu::padded_k(w.format, cols);
  for (int64_t row = 0; row < rows; row++) {
    int64_t panel = row / 32, c = row % 32;
    if (w.spec.kind == WeightKind::gate_up) panel = row % half / 16, c = row % half % 16 + (row < half ? 0 : 16);
    const std::byte* bytes = w.data + static_cast<size_t>(panel) * cpu::panel_bytes(w.format, cols);
    for (int64_t k = 0; k < cols; k++) {
      float& value = m.data[row * cols + k];
      const auto byte_at = [&](size_t at) { return std::to_integer<int>(bytes[at]); };
      const auto float_at = [&](size_t at) {
        float v;
        std::memcpy(&v, bytes + at, sizeof v);
        return v;
      };
      if (w.format == WeightFormat::f32) {
        value = float_at((k * 32 + c) * 4);
      } else if (w.format == WeightFormat::bf16) {
        const size_t at = ((k / 2 * 32 + c) * 2 + k % 2) * 2;
        value = bf16_to_f32(static_cast<uint16_t>(byte_at(at) | byte_at(at + 1) << 8));
      } else if (w.format == WeightFormat::int8) {
        const int64_t group = k / 128, in = k % 128, width = std::min<int64_t>(128, padded - group * 128);
        const size_t start = static_cast<size_t>(group * (128 * 32 + 128));
        value = (byte_at(start + (in / 4 * 32 + c) * 4 + in % 4) - 128) * float_at(start + width * 32 + c * 4);
      } else {
        const int64_t group = k / 64, in = k % 64;
        const size_t start = static_cast<size_t>(group * (64 * 16 + 128));
        const int both = byte_at(start + (in / 8 * 32 + c) * 4 + in % 4);
        value = ((in % 8 < 4 ? both & 15 : both >> 4) - 8) * float_at(start + 64 * 16 + c * 4);
      }
    }
  }
  return m;
}

/// Rows of activations as the kernels round them.
inline Matrix rounded_activations(const Matrix& x, WeightFormat format) {
  return rounded(x, format, true, cpu::group_size(format));
}

/// Largest |a − b| over the largest |b|; 1e9 when a holds a NaN or the sizes differ.
inline double relative_error(std::span<const float> a, std::span<const float> b) {
  double error = 0, largest = 1e-30;
  if (a.size() != b.size()) return 1e9;
  for (size_t i = 0; i < a.size(); i++) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    error = std::isnan(difference) ? 1e9 : std::max(error, difference);
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return error / largest;
}

/// Rounding to integers may fall on the other side of a tie than the formula's.
inline double tolerance(WeightFormat format) {
  return format == WeightFormat::f32 ? 2e-6 : format == WeightFormat::bf16 ? 1e-3 : 6e-3;
}

}  // namespace oracle
