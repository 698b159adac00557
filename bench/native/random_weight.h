// Weights for the programs of bench/native.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "util/mapped_file.h"

namespace sdar {

inline std::vector<float> random_values(int64_t count, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  std::mt19937 random(seed);
  for (float& v : values) v = static_cast<float>(random() % 2001) * 1e-3f - 1.0f;
  return values;
}

/// A weight of these values [rows, cols].
class PackedWeight {
 public:
  PackedWeight(Backend& backend, const WeightSpec& spec, const std::vector<float>& values)
      : memory_(map_memory(backend.packed_bytes(spec))) {
    const SourceTensor part{reinterpret_cast<const std::byte*>(values.data()), DType::f32, spec.rows, spec.cols};
    backend.pack(spec, {&part, 1}, 0, backend.pack_units(spec), memory_.get());
    weight_ = backend.adopt(spec, memory_.get());
  }
  const Weight* get() const { return weight_.get(); }
  const std::byte* data() const { return memory_.get(); }

 private:
  std::shared_ptr<std::byte> memory_;
  std::unique_ptr<Weight> weight_;
};

/// Where weights lie one after the other, as those of a model do: small ones share large pages.
class WeightMemory {
 public:
  std::shared_ptr<std::byte> take(size_t bytes) {
    const size_t at = std::exchange(taken_, taken_ + (bytes + 63) / 64 * 64);
    if (taken_ > kAddresses) throw std::bad_alloc();
    return {memory_, memory_.get() + at};
  }

 private:
  static constexpr size_t kAddresses = size_t{64} << 30;  // of which those that are written to take memory

  std::shared_ptr<std::byte> memory_ = map_memory(kAddresses, Commit::later);
  size_t taken_ = 0;
};

/// A weight whose panels all hold the same random numbers.
class RandomWeight {
 public:
  RandomWeight(Backend& backend, WeightMemory& memory, WeightKind kind, WeightFormat format, int64_t rows,
               int64_t cols) {
    const WeightSpec spec{kind, format, rows, cols}, one{WeightKind::linear, format, 32, cols};
    const PackedWeight panel(backend, one, random_values(32 * cols, 1));
    const size_t panel_bytes = backend.packed_bytes(one);
    bytes_ = backend.packed_bytes(spec);
    memory_ = memory.take(bytes_);
    for (size_t at = 0; at + panel_bytes <= bytes_; at += panel_bytes)
      std::memcpy(memory_.get() + at, panel.data(), panel_bytes);
    weight_ = backend.adopt(spec, memory_.get());
  }
  const Weight* get() const { return weight_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<std::byte> memory_;
  size_t bytes_ = 0;
  std::unique_ptr<Weight> weight_;
};

}  // namespace sdar
