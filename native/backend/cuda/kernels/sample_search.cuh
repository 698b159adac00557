// What sample.cu keeps in shared memory: bins in which a cut is sought, and the list of the best ids.
#pragma once
#include "backend/cuda/kernels/device.cuh"

namespace sdar::cuda::sampling {

constexpr int kThreads = 768, kWarps = kThreads / kWarp;
constexpr int kEach = 8, kChunk = kEach * kWarp;  // ids that a warp loads together: lane j takes j, j + 32, …
constexpr int kBins = 512, kLaneBins = kBins / kWarp;
constexpr int kListed = 4096;             // ids that the list holds
constexpr int kManyTiles = 1024;          // without top-k, the list begins with the best of so many tiles
constexpr float kOne = 1099511627776.0f;  // 2^40

// Shared memory. Bins are 8 bytes, 16 of padding after a lane's: its loads of 16 bytes meet no other's bank.
constexpr int kLaneBinBytes = kLaneBins * 8 + 16;
constexpr int kSumsAt = kWarp * kLaneBinBytes;      // of warps: weights (8 bytes)
constexpr int kTemperedAt = kSumsAt + kWarps * 8;   // of warps: Floats2
constexpr int kRangeAt = kTemperedAt + kWarps * 8;  // Range in three words of 8 bytes, then how many ids are listed
constexpr int kCountAt = kRangeAt + 32;             // ids that wanted to be listed
constexpr int kListAt = kCountAt + 16;
constexpr int kSharedBytes = kListAt + kListed * 8;

SDAR_DEVICE Words2 split(uint64_t x) { return {{static_cast<uint32_t>(x), static_cast<uint32_t>(x >> 32)}}; }
SDAR_DEVICE uint64_t join(Words2 x) { return uint64_t{x.w[1]} << 32 | x.w[0]; }

SDAR_DEVICE uint64_t warp_sum_wide(uint64_t x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Words2 own = split(x);
    x += join({{shuffle_xor(kFullMask, own.w[0], distance), shuffle_xor(kFullMask, own.w[1], distance)}});
  }
  return x;
}
/// Σ over this lane and those before it.
SDAR_DEVICE uint64_t warp_sum_until(uint64_t x) {
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Words2 own = split(x);
    const uint64_t other =
        join({{shuffle_up(kFullMask, own.w[0], distance), shuffle_up(kFullMask, own.w[1], distance)}});
    if (lane_index() >= distance) x += other;
  }
  return x;
}
/// Leaves the warps' sums at kSumsAt until the next one.
SDAR_DEVICE uint64_t block_sum_wide(uint64_t x) {
  const Shared<Words2> sums = shared_memory<Words2>(kSumsAt);
  x = warp_sum_wide(x);
  if (lane_index() == 0) store_shared<Words2>(sums + warp_index(), split(x));
  sync_block();
  uint64_t sum = 0;
  for (int warp = 0; warp < kWarps; warp++) sum += join(load_shared<Words2>(sums + warp));
  return sum;
}

/// Rises with the logit; both zeros alike.
SDAR_DEVICE uint32_t key_of(float logit) {
  const uint32_t bits = f32_to_bits(logit + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
SDAR_DEVICE float logit_of(uint32_t key) { return bits_to_f32(key >> 31 ? key & 0x7fffffffu : ~key); }

/// An id's place in order of falling logit, then rising id: earlier ones are larger.
SDAR_DEVICE uint64_t place_of(float logit, int id) {
  return uint64_t{key_of(logit)} << 32 | ~static_cast<uint32_t>(id);
}
SDAR_DEVICE float logit_at(uint64_t place) { return logit_of(static_cast<uint32_t>(place >> 32)); }
SDAR_DEVICE int id_at(uint64_t place) { return static_cast<int>(~static_cast<uint32_t>(place)); }

/// The last id kept.
struct Cut {
  float logit;
  int id;
  SDAR_DEVICE bool keeps(float other, int other_id) const {
    return other > logit || (other == logit && other_id <= id);
  }
  SDAR_DEVICE uint64_t place() const { return place_of(logit, id); }
};

// ---- search by bins: 9 bits of what is sought at a time

/// Numbers among which one is sought. `above`: Σ quantity of the numbers above them.
struct Range {
  uint64_t low, high, above;
  SDAR_DEVICE bool holds(uint64_t x) const { return x - low <= high - low; }
  /// Of the width of a bin, as a power of two.
  SDAR_DEVICE int shift() const {
    const int bits = 64 - leading_zeros(high - low);
    return bits > 9 ? bits - 9 : 0;
  }
};
static_assert(kBins == 1 << 9);

/// Those of this lane, in warp 0.
SDAR_DEVICE void clear_bins() {
  SDAR_UNROLL
  for (int i = 0; i < kLaneBins / 2; i++) {
    store_shared<Words4>(shared_memory<Words4>(lane_index() * kLaneBinBytes) + i, {{0, 0, 0, 0}});
  }
}
/// For x of the range.
SDAR_DEVICE void add_to_bin(const Range& range, int shift, uint64_t x, uint64_t quantity) {
  const int bin = static_cast<int>((range.high - x) >> shift);
  const Shared<uint32_t> sum = shared_memory<uint32_t>(bin * 8 + bin / kLaneBins * 16);
  const Words2 q = split(quantity);
  const uint32_t old = atomic_add(sum, q.w[0]);
  const uint32_t high = q.w[1] + (old + q.w[0] < old);
  if (high > 0) atomic_add(sum + 1, high);
}
/// The bin, from the highest number down, at which the sum of quantities reaches `wanted`; the lowest number where none
/// does. Bins are empty after it. `listed`: how many ids wanted to be.
SDAR_DEVICE Range narrowed(const Range& range, int shift, uint64_t wanted, int* listed = nullptr) {
  const Shared<Words2> result = shared_memory<Words2>(kRangeAt);
  sync_block();
  if (warp_index() == 0) {
    const Shared<Words4> bins = shared_memory<Words4>(lane_index() * kLaneBinBytes);
    uint64_t own = 0;
    SDAR_UNROLL
    for (int i = 0; i < kLaneBins / 2; i++) {
      const Words4 two = load_shared<Words4>(bins + i);
      own += join({{two.w[0], two.w[1]}}) + join({{two.w[2], two.w[3]}});
    }
    uint64_t above = range.above + warp_sum_until(own) - own;
    const bool here = above < wanted && wanted <= above + own;
    if (here) {
      int bin = lane_index() * kLaneBins;
      for (Shared<Words2> at = bins.as<Words2>();; at = at + 1, bin++) {
        const uint64_t sum = join(load_shared<Words2>(at));
        if (wanted <= above + sum) break;
        above += sum;
      }
      const uint64_t high = range.high - (static_cast<uint64_t>(bin) << shift);
      const uint64_t width = (uint64_t{1} << shift) - 1;
      store_shared<Words2>(result, split(high - range.low > width ? high - width : range.low));
      store_shared<Words2>(result + 1, split(high));
      store_shared<Words2>(result + 2, split(above));
    }
    clear_bins();
    const bool nowhere = !any(kFullMask, here);
    if (lane_index() == 0) {
      if (nowhere) {
        store_shared<Words2>(result, split(range.low));
        store_shared<Words2>(result + 1, split(range.low));
        store_shared<Words2>(result + 2, split(0));
      }
      store_shared<uint32_t>(shared_memory<uint32_t>(kRangeAt + 24),
                             load_shared<uint32_t>(shared_memory<uint32_t>(kCountAt)));
    }
  }
  sync_block();
  if (listed) *listed = static_cast<int>(load_shared<uint32_t>(shared_memory<uint32_t>(kRangeAt + 24)));
  return {join(load_shared<Words2>(result)), join(load_shared<Words2>(result + 1)),
          join(load_shared<Words2>(result + 2))};
}

// ---- the list: places in shared memory, in any order

/// Before what all threads list; after a barrier since the last list was counted.
SDAR_DEVICE void clear_list() {
  if (thread_index() == 0) store_shared<uint32_t>(shared_memory<uint32_t>(kCountAt), 0);
  sync_block();
}
/// A thread's hand in the list. One that finds it full stops trying.
struct Listing {
  bool full = false;
  SDAR_DEVICE void add(uint64_t place) {
    if (full) return;
    const int at = static_cast<int>(atomic_add(shared_memory<uint32_t>(kCountAt), 1u));
    full = !in_range(at, kListed);
    if (!full) store_shared<Words2>(shared_memory<Words2>(kListAt) + at, split(place));
  }
};
/// visit(place) of all that are listed.
template <class Visit>
SDAR_DEVICE void each_listed(int listed, Visit visit) {
  for (int i = thread_index(); in_range(i, listed); i += kThreads)
    visit(join(load_shared<Words2>(shared_memory<Words2>(kListAt) + i)));
}

}  // namespace sdar::cuda::sampling
