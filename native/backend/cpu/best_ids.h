// The ids of largest logit, kept while the tiles of a vocabulary go by. Which they are does not depend on the order of
// the tiles: by falling logit, then rising id.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>

#include "backend/cpu/kernels/kernels.h"
#include "backend/step.h"

namespace sdar::cpu {

constexpr int64_t kTile = 256;  ///< columns of the lm_head that are reduced at once; a multiple of the panel

/// Ids of one tile that may be chosen.
struct TileMask {
  std::array<uint64_t, kTile / 64> words;
  int count() const {
    int bits = 0;
    for (uint64_t word : words) bits += std::popcount(word);
    return bits;
  }
};

class BestIds {
 public:
  static constexpr int32_t kMost = std::max(kMaxCandidates, kMaxTopLogprobs);

  void clear(int32_t capacity) { size_ = 0, capacity_ = capacity; }
  std::span<const RankedToken> all() const { return {items_.data(), static_cast<size_t>(size_)}; }
  /// Smaller logits are not among the best.
  float least() const {
    if (capacity_ == 0) return std::numeric_limits<float>::infinity();
    return size_ < capacity_ ? -std::numeric_limits<float>::infinity() : items_[size_ - 1].logit;
  }
  void add(int32_t id, float logit) {
    int32_t at = size_;
    while (at > 0 && (logit > items_[at - 1].logit || (logit == items_[at - 1].logit && id < items_[at - 1].id))) at--;
    if (at == capacity_) return;
    if (size_ < capacity_) size_++;
    std::move_backward(items_.begin() + at, items_.begin() + size_ - 1, items_.begin() + size_);
    items_[at] = {id, logit};
  }
  void add(const BestIds& other) {
    for (const RankedToken& token : other.all()) add(token.id, token.logit);
  }
  /// Ids first … first + n − 1, those of `mask` or, where it is null, all; `max` is their largest logit or more.
  void add_tile(const Kernels& kernels, const float* logits, int64_t first, int64_t n, float max,
                const TileMask* mask) {
    if (!(max >= least())) return;
    const auto add_one = [&](int64_t i) {
      if (logits[i] >= least()) add(static_cast<int32_t>(first + i), logits[i]);
    };
    if (mask && mask->count() <= kFew) {
      for (int64_t word = 0; word < kTile / 64; word++) {
        for (uint64_t left = mask->words[word]; left; left &= left - 1) add_one(word * 64 + std::countr_zero(left));
      }
      return;
    }
    std::array<uint8_t, kTile> hits;
    const int count = kernels.at_least(logits, n, least(), mask ? mask->words.data() : nullptr, hits.data());
    for (int i = 0; i < count; i++) add_one(hits[i]);
  }

 private:
  static constexpr int kFew = 16;  // bits of a mask that are looked at one by one

  std::array<RankedToken, kMost> items_;
  int32_t size_ = 0, capacity_ = 0;
};

}  // namespace sdar::cpu
