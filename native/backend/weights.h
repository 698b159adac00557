// Weights as ops see them. A backend says how many bytes a packed weight takes, packs it part by part from checkpoint
// tensors, and adopts the packed bytes as an opaque handle. Packed bytes depend only on spec, contents and
// Backend::layout_id(), so they may be written to a file and mapped again later.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/formats.h"

namespace sdar {

/// A row-major matrix [rows, cols] in a checkpoint; a vector has rows == 1.
struct SourceTensor {
  const std::byte* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
};

enum class WeightKind : uint8_t {
  vector,   ///< norm weights: one part [1, cols], always held as f32
  linear,   ///< y = x·Wᵀ: parts [n_i, cols] stacked along the rows (q, k, v in one pass)
  gate_up,  ///< two parts of equal shape [rows/2, cols]: gate, up; made for silu(gate·x)·(up·x) in one pass
  table,    ///< [vocabulary, hidden]: rows can be looked up (embedding) and it can serve as a linear (tied head)
};

struct WeightSpec {
  WeightKind kind = WeightKind::linear;
  WeightFormat format = WeightFormat::f32;
  int64_t rows = 0;  ///< output features, all parts together
  int64_t cols = 0;  ///< input features
};

/// Opaque; belongs to the backend that made it and may hold pointers into the packed bytes.
struct Weight {
  virtual ~Weight() = default;
  WeightSpec spec;
};

}  // namespace sdar
