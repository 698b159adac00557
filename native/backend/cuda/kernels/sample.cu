// A token for each request of a temperature, from its stored logits: a block per request.
//
// Weights exp((l − best) / T) are taken as integers of 2^-40: their sums are the same in any order, so that warps may
// share the vocabulary and threads add to bins as they come.
//
// One pass over the logits sums what all ids count for (the entropy at T; the weights, without top-k) and lists in
// shared memory those of at least a bound: the top_k-th largest of the tiles' best logits, which top_k ids reach; the
// 1024th without top-k. Ids are in order of falling logit, then rising id, as one number of 64 bits. Where top-k and
// top-p cut is sought in the list, 9 bits at a time: 512 bins of 64-bit sums, then the one that holds the cut; then the
// chosen id the same way. A list that overflows, or whose weights are less than top-p's share, is no use: the search
// goes over all ids until those left in question fit into it, and what is kept is listed anew if it fits.
//
// Bytes per request (as code: cost.h): 4 · vocabulary, and 3 reads of 4 bytes per 64 ids for the bound. Without a cut
// the choice reads a 24th again; a list that is no use costs some 4 further passes for each of top-k and top-p.
// Time by arithmetic, with 151,936 ids: 0.6 MB from L2 at 64 bytes a clock are 9,500 clocks; 24 KB of loads in flight
// (768 threads · 8 · 4 bytes) bring that within a latency of 380, and other warps compute meanwhile. Some 25
// instructions per id, 128 lanes a clock: 30,000 clocks. Some 17 searches of bins, each two barriers, a round of
// atomics and a sum over a warp, perhaps 700 clocks: 12,000. Together 45,000, some 25 µs; a pass over all ids with
// atomics may take twice the first.
// Occupancy: sample: 768 threads, 37808 shared, 1 block on sm_80, 1 on sm_86, 1 on sm_90
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/head.h"

namespace sdar::cuda {
namespace {

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

// ---- one request's logits

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
    for (int i = 0; i < suppressed_count; i++) {
      const int at = load_global_cached<int32_t>(suppressed + i) - c.first;
      if (at >= 0 && at < kChunk && at % kWarp == 0) c.allowed &= ~(1u << at / kWarp);
    }
    return c;
  }

  /// The least logit of the list: at least `wanted` allowed ids reach it, as each of that many tiles has one. Within a
  /// bin: the last bits would spare few ids.
  SDAR_DEVICE float list_bound(int wanted) const {
    const int tiles = head_tiles(vocabulary);
    if (wanted > tiles) return -INFINITY;
    Range range{key_of(-INFINITY), key_of(best), 0};
    while (range.shift() > 0) {
      const int shift = range.shift();
      for (int tile = thread_index(); in_range(tile, tiles); tile += kThreads) {
        const uint32_t key = key_of(load_global_cached<float>(numbers + tile * 4 + 1));
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

/// part · total, up, within 1 … total.
SDAR_DEVICE uint64_t share_of(uint64_t total, float part) {
  const double exact = static_cast<double>(part) * static_cast<double>(total);
  uint64_t share = static_cast<uint64_t>(exact);
  if (static_cast<double>(share) < exact) share++;
  return share < 1 ? 1 : share > total ? total : share;
}

SDAR_KERNEL(kThreads, 1, sample, HeadLists lists, HeadBuffers buffers, int vocabulary) {
  const int index = block_index_x();
  if (!in_range(index, load_global_cached<int32_t>(lists.count))) return;
  const DeviceSampledRow* request = lists.requests + index;
  DeviceSampledToken* result = buffers.results + index;
  const float temperature = load_global_cached<float>(&request->temperature);
  if (!guard(temperature > 0)) return;
  if (!guard(load_global<int32_t>(&result->finite) != 0)) return;
  const float* logits = buffers.logits + int64_t{load_global_cached<int32_t>(&request->logits)} * vocabulary;
  const float inverse = reciprocal(temperature), max = load_global<float>(&result->max);
  const Row row{logits,
                buffers.numbers + int64_t{index} * head_tiles(vocabulary) * 4,
                lists.suppressed + load_global_cached<int32_t>(&request->suppressed),
                load_global_cached<int32_t>(&request->suppressed_count),
                vocabulary,
                load_global_cached<float>(logits + load_global<int32_t>(&result->token)),
                inverse < 1e30f ? inverse : 1e30f};
  const int top_k = load_global_cached<int32_t>(&request->top_k);
  const float top_p = load_global_cached<float>(&request->top_p);
  if (warp_index() == 0) clear_bins();
  clear_list();

  const bool cuts = top_k > 0 || top_p < 1;
  const float bound = cuts ? row.list_bound(top_k > 0 ? top_k : kManyTiles) : INFINITY;
  Survey s = row.first_survey(bound, max, top_k <= 0);
  const Cut all{-INFINITY, INT32_MAX};
  Cut cut = all;
  int listed = -1;  // ids in the list, if it holds all that matter
  if (cuts && s.listed <= kListed) {
    listed = s.listed;
    cut.logit = bound;
  }
  const auto keep = [&](const Cut& last) {
    cut = last;
    if (listed >= 0) {
      s.weights = row.listed_weights(listed, cut);
    } else {
      s = row.survey(cut);
      if (s.listed <= kListed) listed = s.listed;
    }
  };
  if (top_k > 0) {
    keep(row.shortest(static_cast<uint64_t>(top_k), cut, listed, [](float) { return uint64_t{1}; }));
  }
  if (top_p < 1) {
    const uint64_t wanted = share_of(s.weights, top_p);
    if (top_k <= 0 && listed >= 0 && row.listed_weights(listed, cut) < wanted) {
      listed = -1;
      cut = all;
    }
    keep(row.shortest(wanted, cut, listed, [&](float logit) { return row.weight(logit); }));
  }
  const double exact = load_global_cached<double>(&request->uniform) * static_cast<double>(s.weights);
  const uint64_t below = static_cast<uint64_t>(exact), target = below < s.weights ? below + 1 : s.weights;
  const int token = listed >= 0 ? row.find_listed(target, cut, listed) : row.find(target, cut);
  if (token < 0) return;

  Floats2 softmax{{0, 0}};
  for (int warp = 0; warp < kWarps; warp++) {
    const Floats2 other = load_shared<Floats2>(shared_memory<Floats2>(kTemperedAt) + warp);
    softmax.f[0] += other.f[0];
    softmax.f[1] += other.f[1];
  }
  const float logit = load_global_cached<float>(logits + token);
  const float entropy = log_fast(softmax.f[0]) - divide(softmax.f[1], softmax.f[0]);
  const float probability = divide(exp_fast((logit - max) * row.scale), softmax.f[0]);
  const bool truncated = load_global_cached<int32_t>(&request->sampled_confidence) != 0;
  store_global<int32_t>(&result->token, token);
  store_global<float>(
      &result->confidence,
      truncated ? divide(static_cast<float>(row.weight(logit)), static_cast<float>(s.weights)) : probability);
  store_global<float>(&result->logprob, logit - load_global<float>(&result->logsumexp));
  store_global<float>(&result->entropy, entropy > 0 ? entropy : 0);
}

}  // namespace

void sample(Stream stream, int32_t vocabulary, const HeadLists& lists, const HeadBuffers& buffers) {
  if (lists.max_requests == 0) return;
  const LaunchShape shape{
      .grid_x = lists.max_requests, .threads = kThreads, .shared_bytes = kSharedBytes, .stream = stream};
  SDAR_LAUNCH(shape, sample_kernel, lists, buffers, vocabulary);
}

}  // namespace sdar::cuda
