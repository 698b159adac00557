// Paged block attention in plain loops, with its KV pages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/ops.h"

namespace sdar::cpu::reference {

/// A page holds, per layer, keys then values: vectors [kv_heads, 64 slots] of head_dim elements, each followed by its
/// f32 scale in the int8 format.
class Attention {
 public:
  static size_t page_bytes(const ModelShape& shape, KvFormat format);

  /// Zeroed pages. Throws Error(OUT_OF_MEMORY).
  void configure(const ModelShape& shape, const CacheShape& cache);
  /// Keeps the segments and makes the RoPE table of their rows.
  void begin_step(std::span<const Segment> segments, int32_t rows);
  void run(const AttentionArgs& args);

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };

  void norm_and_rotate(float* head, const Weight& norm, int32_t row) const;
  std::byte* vector_at(const Segment& segment, int32_t position, int32_t layer, bool value, int32_t head) const;
  void write(std::byte* to, const float* vector) const;
  void read(const std::byte* from, float* vector) const;
  void rounded(const float* vector, float* to);
  void attend(const Segment& segment, int32_t kv_head, const AttentionArgs& args);

  ModelShape shape_;
  CacheShape cache_;
  std::unique_ptr<std::byte, Free> pages_;
  std::vector<float> inverse_frequency_;  ///< [head_dim / 2]
  std::vector<Segment> segments_;
  std::vector<float> cos_, sin_;               ///< [rows, head_dim / 2]
  std::vector<float> keys_, values_, scores_;  ///< of one KV head of one sequence: [positions, head_dim], [positions]
  std::vector<std::byte> written_;
};

}  // namespace sdar::cpu::reference
