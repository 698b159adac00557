// The KV pages of the CPU backend: memory, layout (see kernels.h) and writing of vectors.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/backend.h"

namespace sdar::cpu {

/// Zeroed anonymous memory that costs nothing until it is touched.
class LazyMemory {
 public:
  LazyMemory() = default;
  ~LazyMemory() { release(); }
  LazyMemory(const LazyMemory&) = delete;
  LazyMemory& operator=(const LazyMemory&) = delete;

  /// Drops what was held. False when the system cannot give that much.
  bool reserve(size_t bytes);
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void release();
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// A page is [layers][kv_heads] slabs.
class KvPages {
 public:
  static size_t page_bytes(const ModelShape& shape, KvFormat format);

  /// Throws Error(OUT_OF_MEMORY).
  void configure(const ModelShape& shape, const CacheShape& cache);

  /// A multiple of 64.
  size_t slab_bytes() const { return slab_bytes_; }
  KvFormat format() const { return format_; }
  /// head_dim rounded up to a multiple of 16.
  int32_t dim() const { return dim_; }
  std::byte* slab(int32_t page, int32_t layer, int32_t kv_head) const {
    return memory_.data() + (static_cast<size_t>(page) * layers_ + layer) * layer_bytes_ + kv_head * slab_bytes_;
  }
  /// Writes one key or value [head_dim], rounded to the format, into a slot.
  void write_key(std::byte* slab, int32_t slot, const float* x) const;
  void write_value(std::byte* slab, int32_t slot, const float* x) const;

  /// All pages, for tests that poison them.
  std::span<std::byte> memory() const { return {memory_.data(), memory_.size()}; }

 private:
  /// Of an int8 slab: those of its 64 keys, then of its 64 values.
  float* scales(std::byte* slab) const { return reinterpret_cast<float*>(slab + 2 * part_bytes_); }
  template <class Place>
  void write(std::byte* part, float* scale, int32_t slot, const float* x) const;

  LazyMemory memory_;
  KvFormat format_ = KvFormat::f32;
  int32_t layers_ = 0, head_dim_ = 0, dim_ = 0;
  size_t part_bytes_ = 0, slab_bytes_ = 0, layer_bytes_ = 0;
};

}  // namespace sdar::cpu
