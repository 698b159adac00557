// The portable backend, ready to have its ops called, for its tests.
#pragma once
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "backend/cpu/cpu.h"
#include "backend/cpu/reference/weights.h"
#include "oracle.h"

namespace oracle {

using namespace sdar;

constexpr WeightFormat kFormats[] = {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline std::unique_ptr<HostBackend> backend_for(const ModelShape& shape, const CacheShape& cache = {1, KvFormat::f32}) {
  auto backend = cpu::make_reference_backend(1);
  backend->configure_ops(shape, cache, 64);
  return backend;
}

inline ModelShape shape_of(int hidden, int heads = 2, int kv_heads = 1, int head_dim = 8, int layers = 1) {
  ModelShape s;
  s.layers = layers;
  s.hidden = hidden;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.head_dim = head_dim;
  s.context = 1024;
  return s;
}

/// Largest |a - b| over the largest |b|.
inline double relative_error(std::span<const float> a, std::span<const float> b) {
  double error = a.size() == b.size() ? 0 : 1e9, largest = 1e-30;
  for (size_t i = 0; i < std::min(a.size(), b.size()); i++) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    error = difference <= error ? error : difference;  // a NaN becomes the error
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return error / largest;
}

/// What a format makes of a weight: the formula, or, where a search finds the scales, the values that are held.
inline Matrix held_values(const Held& held, const Matrix& w, int64_t first_row = 0) {
  Matrix values = rounded(w, held.weight->spec.format);
  if (cpu::reference::packed(held).format() != WeightFormat::int4) return values;
  for (int64_t i = 0; i < w.rows; i++) cpu::reference::packed(held).load_row(first_row + i, &values.data[i * w.cols]);
  return values;
}
inline Matrix rounded_activations(const Matrix& x, WeightFormat format) {
  return rounded(x, format, true, format == WeightFormat::int4 ? 64 : 128);
}

inline std::vector<float> looked_up(HostBackend& backend, const Weight& table) {
  std::vector<int32_t> ids(table.spec.rows);
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> x(table.spec.rows * table.spec.cols, kNan);
  embed(backend, table, ids, x.data());
  return x;
}

}  // namespace oracle
