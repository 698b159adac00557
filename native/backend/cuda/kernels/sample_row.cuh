// One sampled row's logits, as sample.cu passes over them.
#pragma once
#include "backend/cuda/kernels/lm_head.h"
#include "backend/cuda/kernels/sample_search.cuh"

namespace sdar::cuda::sampling {

/// A lane's part of 256 ids.
struct Chunk {
  int first;
  float logits[kEach];  ///< −∞ past the last id
  uint32_t allowed;     ///< bit i: logits[i]
  SDAR_DEVICE int id(int i) const { return first + i * kWarp; }
};

/// Of the sums over all ids.
struct Survey {
  uint64_t weights;  ///< of those that the cut keeps
  int listed;        ///< more than kListed: not all have been
};

struct Row {
  const float* logits;
  const float* numbers;  ///< of its tiles
  const int32_t* suppressed;
  const uint32_t* mask;  ///< of the ids that may be chosen, a bit each; null: all
  int suppressed_count, vocabulary;
  float best, scale;  ///< the largest allowed logit; 1 / T

  SDAR_DEVICE uint64_t weight(float logit) const {
    return static_cast<uint64_t>(exp_fast((logit - best) * scale) * kOne);
  }
  SDAR_DEVICE int chunks() const { return ceil_div(vocabulary, kChunk); }

  SDAR_DEVICE Chunk chunk(int index) const {
    Chunk c;
    c.first = index * kChunk + lane_index();
    const float* from = logits + c.first;
    if ((index + 1) * kChunk <= vocabulary) {  // nearly always: nothing between the loads
      SDAR_UNROLL
      for (int i = 0; i < kEach; i++) c.logits[i] = load_global_cached<float>(from + i * kWarp);
      c.allowed = (1u << kEach) - 1;
    } else {
      c.allowed = 0;
      SDAR_UNROLL
      for (int i = 0; i < kEach; i++) {
        const bool exists = in_range(c.id(i), vocabulary);
        c.logits[i] = exists ? load_global_cached<float>(from + i * kWarp) : -INFINITY;
        c.allowed |= static_cast<uint32_t>(exists) << i;
      }
    }
    if (mask) {
      SDAR_UNROLL
      for (int i = 0; i < kEach; i++) {
        const int word = index * kEach + i;
        if (!in_range(word * kWarp, vocabulary)) break;
        if (!(load_global_cached<uint32_t>(mask + word) >> lane_index() & 1)) c.allowed &= ~(1u << i);
      }
    }
    for (int i = 0; i < suppressed_count; i++) {
      const int at = load_global_cached<int32_t>(suppressed + i) - c.first;
      if (at >= 0 && at < kChunk && at % kWarp == 0) c.allowed &= ~(1u << at / kWarp);
    }
    return c;
  }

  SDAR_DEVICE bool may_choose(int id) const {
    if (mask && !(load_global_cached<uint32_t>(mask + id / 32) >> id % 32 & 1)) return false;
    for (int i = 0; i < suppressed_count; i++) {
      if (load_global_cached<int32_t>(suppressed + i) == id) return false;
    }
    return true;
  }

  /// The least logit of the list: at least `wanted` ids reach it, as each of that many tiles has one. Within a bin: the
  /// last bits would spare few ids. `column` of the tiles' numbers: 0 for all ids, 1 for those that may be chosen.
  SDAR_DEVICE float list_bound(int wanted, int column) const {
    const int tiles = lm_head_tiles(vocabulary);
    if (wanted > tiles) return -INFINITY;
    Range range{key_of(-INFINITY), key_of(best), 0};
    while (range.shift() > 0) {
      const int shift = range.shift();
      for (int tile = thread_index(); in_range(tile, tiles); tile += kThreads) {
        const uint32_t key = key_of(load_global_cached<float>(numbers + tile * 4 + column));
        if (range.holds(key)) add_to_bin(range, shift, key, 1);
      }
      range = narrowed(range, shift, static_cast<uint64_t>(wanted));
    }
    return logit_of(static_cast<uint32_t>(range.low));
  }

  /// Each warp's consecutive chunks: body(chunk).
  template <class Body>
  SDAR_DEVICE void each_chunk(int begin, int end, Body body) const {
    const int count = end - begin;
    const int last = begin + part(count, warp_index() + 1);
    for (int i = begin + part(count, warp_index()); i < last; i++) body(chunk(i));
  }
  SDAR_DEVICE static int part(int count, int warp) { return static_cast<int>(int64_t{count} * warp / kWarps); }

  SDAR_DEVICE uint64_t kept_weights(const Chunk& c, const Cut& cut) const {
    uint64_t sum = 0;
    SDAR_UNROLL
    for (int i = 0; i < kEach; i++) {
      if ((c.allowed >> i & 1) && cut.keeps(c.logits[i], c.id(i))) sum += weight(c.logits[i]);
    }
    return sum;
  }

  /// The first time over all ids: lists those of `bound` or more; sums the weights of all, if they are wanted; of each
  /// warp, Σ exp((l − max) / T) over all ids, suppressed ones too, and Σ of that times the exponent, stay at kTemperedAt.
  SDAR_DEVICE Survey first_survey(float bound, float max, bool weigh) const {
    float sum = 0, weighted = 0;
    uint64_t own = 0;
    Listing listing;
    each_chunk(0, chunks(), [&](const Chunk& c) {
      uint32_t hits = 0;
      SDAR_UNROLL
      for (int i = 0; i < kEach; i++) {
        const float below = (c.logits[i] - max) * scale, share = exp_fast(below);
        sum += share;
        if (share > 0) weighted = fused(share, below, weighted);
        if (weigh && (c.allowed >> i & 1))
          own += best == max ? static_cast<uint64_t>(share * kOne) : weight(c.logits[i]);
        hits |= static_cast<uint32_t>(c.logits[i] >= bound) << i;
      }
      hits &= c.allowed;
      if (hits == 0) return;
      SDAR_UNROLL
      for (int i = 0; i < kEach; i++) {
        if (hits >> i & 1) listing.add(place_of(c.logits[i], c.id(i)));
      }
    });
    sum = warp_sum(sum);
    weighted = warp_sum(weighted);
    if (lane_index() == 0) store_shared<Floats2>(shared_memory<Floats2>(kTemperedAt) + warp_index(), {{sum, weighted}});
    return {block_sum_wide(own), count_listed()};
  }
  /// Lists what the cut keeps and sums its weights.
  SDAR_DEVICE Survey survey(const Cut& cut) const {
    uint64_t own = 0;
    Listing listing;
    clear_list();
    each_chunk(0, chunks(), [&](const Chunk& c) {
      SDAR_UNROLL
      for (int i = 0; i < kEach; i++) {
        if (!(c.allowed >> i & 1) || !cut.keeps(c.logits[i], c.id(i))) continue;
        own += weight(c.logits[i]);
        listing.add(place_of(c.logits[i], c.id(i)));
      }
    });
    return {block_sum_wide(own), count_listed()};
  }
  /// After block_sum_wide.
  SDAR_DEVICE static int count_listed() {
    const int count = static_cast<int>(load_shared<uint32_t>(shared_memory<uint32_t>(kCountAt)));
    sync_block();
    return count;
  }

  SDAR_DEVICE uint64_t listed_weights(int listed, const Cut& cut) const {
    uint64_t own = 0;
    each_listed(listed, [&](uint64_t place) {
      if (place >= cut.place()) own += weight(logit_at(place));
    });
    const uint64_t sum = block_sum_wide(own);
    sync_block();
    return sum;
  }

  /// The shortest beginning of what `within` keeps, in order of places, whose sum of each(logit) is `wanted` or more;
  /// all of it when none is. Of the list, if there is one; otherwise of all ids, until those in question fit into it.
  template <class Each>
  SDAR_DEVICE Cut shortest(uint64_t wanted, const Cut& within, int listed, Each each) const {
    Range range{within.place(), place_of(best, 0), 0};
    while (range.low < range.high) {
      const int shift = range.shift();
      if (listed >= 0) {
        each_listed(listed, [&](uint64_t place) {
          if (range.holds(place)) add_to_bin(range, shift, place, each(logit_at(place)));
        });
        range = narrowed(range, shift, wanted);
        continue;
      }
      Listing listing;
      clear_list();
      each_chunk(0, chunks(), [&](const Chunk& c) {
        uint32_t hits = 0;
        SDAR_UNROLL
        for (int i = 0; i < kEach; i++) {
          hits |= static_cast<uint32_t>(range.holds(place_of(c.logits[i], c.id(i)))) << i;
        }
        hits &= c.allowed;
        SDAR_UNROLL
        for (int i = 0; i < kEach; i++) {
          if (!(hits >> i & 1)) continue;
          const uint64_t place = place_of(c.logits[i], c.id(i));
          add_to_bin(range, shift, place, each(c.logits[i]));
          listing.add(place);
        }
      });
      range = narrowed(range, shift, wanted, &listed);
      if (listed > kListed) listed = -1;
    }
    return {logit_at(range.low), id_at(range.low)};
  }

  /// The lowest id at which the cumulative sum of kept weights in order of id is `target` (1 … the total) or more: to
  /// one thread, −1 to the others.
  SDAR_DEVICE int find_listed(uint64_t target, const Cut& cut, int listed) const {
    Range range{~static_cast<uint32_t>(vocabulary - 1), ~uint32_t{0}, 0};  // ids' complements
    while (range.low < range.high) {
      const int shift = range.shift();
      each_listed(listed, [&](uint64_t place) {
        const uint32_t x = static_cast<uint32_t>(place);
        if (place >= cut.place() && range.holds(x)) add_to_bin(range, shift, x, weight(logit_at(place)));
      });
      range = narrowed(range, shift, target);
    }
    return thread_index() == 0 ? id_at(range.low) : -1;
  }
  /// The same of all ids; after a survey of this cut.
  SDAR_DEVICE int find(uint64_t target, const Cut& cut) const {
    const Shared<Words2> sums = shared_memory<Words2>(kSumsAt);
    int begin = 0, end = chunks();
    for (;;) {
      int warp = 0;
      for (;; warp++) {
        const uint64_t sum = join(load_shared<Words2>(sums + warp));
        if (target <= sum) break;
        target -= sum;
      }
      const int count = end - begin;
      end = begin + part(count, warp + 1);
      begin += part(count, warp);
      if (end - begin == 1) break;
      uint64_t own = 0;
      each_chunk(begin, end, [&](const Chunk& c) { own += kept_weights(c, cut); });
      sync_block();
      block_sum_wide(own);
    }
    if (warp_index() != 0) return -1;
    const Chunk c = chunk(begin);
    int id = -1;
    uint64_t before = 0;
    SDAR_UNROLL
    for (int i = 0; i < kEach; i++) {
      const uint64_t own = (c.allowed >> i & 1) && cut.keeps(c.logits[i], c.id(i)) ? weight(c.logits[i]) : 0;
      const uint64_t until = before + warp_sum_until(own);
      if (until - own < target && target <= until) id = c.id(i);
      const Words2 last = split(until);
      before = join({{shuffle(kFullMask, last.w[0], kWarp - 1), shuffle(kFullMask, last.w[1], kWarp - 1)}});
    }
    return id;
  }
};

/// Sampled row `index`; best and scale are not set.
SDAR_DEVICE Row row_of(const SampledRows& rows, const LmHeadBuffers& buffers, int index, int vocabulary) {
  const DeviceSampledRow* sampled = rows.data + index;
  const int mask = load_global_cached<int32_t>(&sampled->mask);
  Row row;
  row.logits = buffers.logits + int64_t{load_global_cached<int32_t>(&sampled->logits)} * vocabulary;
  row.numbers = buffers.numbers + int64_t{index} * lm_head_tiles(vocabulary) * 4;
  row.suppressed = rows.suppressed + load_global_cached<int32_t>(&sampled->suppressed);
  row.mask =
      mask < 0 ? nullptr : reinterpret_cast<const uint32_t*>(rows.masks + int64_t{mask} * mask_words(vocabulary));
  row.suppressed_count = load_global_cached<int32_t>(&sampled->suppressed_count);
  row.vocabulary = vocabulary;
  row.best = row.scale = 0;
  return row;
}

}  // namespace sdar::cuda::sampling
