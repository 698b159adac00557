// A token for each request of a temperature, from its stored logits: a block per request.
//
// Weights exp((l − best) / T) are taken as integers of 2^-40: their sums are the same in any order, so that warps may
// share the vocabulary. The last id that top-k or top-p keeps is found by bisection over the bits of a logit; tiles of
// 64 ids whose best logit lies below the threshold are passed over, so a pass reads little more than the ids above it.
//
// Bytes per request (as code, without bisections: cost.h): 4 · vocabulary for the entropy at T and for the last sum and
// the choice each; per pass of a bisection (32 each for top-k and top-p) 4 bytes per 64 ids and 256 per tile that holds
// an id above. Thresholds that most tiles reach cost a full pass: of 10,000 normal logits some 15 for top-k 50, 35 for
// top-p 0.9. From L2: with 151,936 ids 0.6 MB a full pass, some 10 µs for one block.
// Occupancy: sample: 512 threads, 144 shared, 2 blocks on sm_80, 2 on sm_86, 2 on sm_90
#include "backend/cuda/device.cuh"
#include "backend/cuda/head.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / kWarp;
constexpr float kOne = 1099511627776.0f;  // 2^40

SDAR_DEVICE uint64_t shuffle_wide(uint64_t x, int lane_mask) {
  const uint32_t low = shuffle_xor(kFullMask, static_cast<uint32_t>(x), lane_mask);
  const uint32_t high = shuffle_xor(kFullMask, static_cast<uint32_t>(x >> 32), lane_mask);
  return uint64_t{high} << 32 | low;
}
SDAR_DEVICE uint64_t warp_sum_wide(uint64_t x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x += shuffle_wide(x, distance);
  return x;
}
SDAR_DEVICE Words2 split(uint64_t x) { return {{static_cast<uint32_t>(x), static_cast<uint32_t>(x >> 32)}}; }
SDAR_DEVICE uint64_t join(Words2 x) { return uint64_t{x.w[1]} << 32 | x.w[0]; }

/// Rises with the logit; both zeros alike.
SDAR_DEVICE uint32_t key_of(float logit) {
  const uint32_t bits = f32_to_bits(logit + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
SDAR_DEVICE float logit_of(uint32_t key) { return bits_to_f32(key >> 31 ? key & 0x7fffffffu : ~key); }

/// The last id kept, in order of falling logit, then rising id.
struct Cut {
  uint32_t key;
  int32_t id;
  SDAR_DEVICE bool keeps(uint32_t other, int32_t other_id) const {
    return other > key || (other == key && other_id <= id);
  }
};

/// One request's logits, as all threads of its block see them. Warps take consecutive tiles of ids.
struct Row {
  const float* logits;
  const float* numbers;  ///< of its tiles
  const int32_t* banned;
  int banned_count, vocabulary, tiles;
  float best, scale;  ///< the largest allowed logit; 1 / T

  SDAR_DEVICE int tile_begin(int warp) const { return static_cast<int>(int64_t{tiles} * warp / kWarps); }
  SDAR_DEVICE uint64_t weight(float logit) const {
    return static_cast<uint64_t>(exp_fast((logit - best) * scale) * kOne);
  }

  /// quantity(key, id, logit) of this lane's two ids of a tile; banned ids have none.
  template <class Quantity>
  SDAR_DEVICE void of_tile(int tile, Quantity quantity, uint64_t (&q)[2]) const {
    const int first = tile * kHeadTile;
    uint64_t hidden = 0;
    for (int i = 0; i < banned_count; i++) {
      const int at = load_global_cached<int32_t>(banned + i) - first;
      if (at >= 0 && at < kHeadTile) hidden |= uint64_t{1} << at;
    }
    SDAR_UNROLL
    for (int i = 0; i < 2; i++) {
      const int at = lane_index() * 2 + i;
      q[i] = 0;
      if (!in_range(first + at, vocabulary) || hidden >> at & 1) continue;
      const float logit = load_global_cached<float>(logits + first + at);
      q[i] = quantity(key_of(logit), first + at, logit);
    }
  }

  /// Σ quantity over the ids of tiles [begin, end) that hold an allowed id of this key or more, to all lanes.
  template <class Quantity>
  SDAR_DEVICE uint64_t warp_total(int begin, int end, uint32_t least, Quantity quantity) const {
    uint64_t sum = 0;
    for (int tile = begin; tile < end; tile += kWarp) {
      const bool exists = in_range(tile + lane_index(), end);
      const float tile_best = exists ? load_global_cached<float>(numbers + (tile + lane_index()) * 4 + 1) : -INFINITY;
      const uint32_t wanted = ballot(kFullMask, exists && key_of(tile_best) >= least);
      for (int bit = 0; bit < kWarp; bit++) {
        if (!(wanted >> bit & 1)) continue;
        uint64_t q[2];
        of_tile(tile + bit, quantity, q);
        sum += q[0] + q[1];
      }
    }
    return warp_sum_wide(sum);
  }

  /// The same over all ids, to all threads.
  template <class Quantity>
  SDAR_DEVICE uint64_t total(uint32_t least, Quantity quantity) const {
    const uint64_t own = warp_total(tile_begin(warp_index()), tile_begin(warp_index() + 1), least, quantity);
    const Shared<Words2> sums = shared_memory<Words2>(0);
    if (lane_index() == 0) store_shared<Words2>(sums + warp_index(), split(own));
    sync_block();
    uint64_t sum = 0;
    for (int warp = 0; warp < kWarps; warp++) sum += join(load_shared<Words2>(sums + warp));
    sync_block();
    return sum;
  }

  /// The lowest id at which the cumulative sum of quantity in order of id is `target` (1 … the total) or more.
  template <class Quantity>
  SDAR_DEVICE int find(uint64_t target, uint32_t least, Quantity quantity) const {
    const int begin = tile_begin(warp_index()), end = tile_begin(warp_index() + 1);
    const uint64_t own = warp_total(begin, end, least, quantity);
    const Shared<Words2> sums = shared_memory<Words2>(0);
    const Shared<int> found = shared_memory<int>(kWarps * 8);
    if (lane_index() == 0) store_shared<Words2>(sums + warp_index(), split(own));
    sync_block();
    uint64_t before = 0;
    for (int warp = 0; warp < warp_index(); warp++) before += join(load_shared<Words2>(sums + warp));
    if (before < target && target <= before + own) {  // one warp
      int tile = begin;
      uint64_t q[2], inclusive = 0;
      for (;; tile++) {
        of_tile(tile, quantity, q);
        const uint64_t sum = warp_sum_wide(q[0] + q[1]);
        if (before + sum >= target) break;
        before += sum;
      }
      // lanes in order: what lies before each
      inclusive = q[0] + q[1];
      for (int distance = 1; distance < kWarp; distance *= 2) {
        const uint32_t low = shuffle_up(kFullMask, static_cast<uint32_t>(inclusive), distance);
        const uint32_t high = shuffle_up(kFullMask, static_cast<uint32_t>(inclusive >> 32), distance);
        if (lane_index() >= distance) inclusive += uint64_t{high} << 32 | low;
      }
      const uint64_t until = before + inclusive, from = until - q[0] - q[1];
      if (from < target && target <= until) {
        store_shared<int>(found, tile * kHeadTile + lane_index() * 2 + (from + q[0] < target));
      }
    }
    sync_block();
    return load_shared<int>(found);  // written again only after the barriers of other sums
  }

  /// The shortest beginning of what `within` keeps, in order of falling logit, then rising id, whose sum of
  /// each(logit) is `wanted` (1 … the total) or more.
  template <class Each>
  SDAR_DEVICE Cut cut(uint64_t wanted, const Cut& within, Each each) const {
    const auto above = [&](uint32_t least) {
      return total(least, [&](uint32_t key, int id, float logit) {
        return key >= least && within.keeps(key, id) ? each(logit) : 0;
      });
    };
    uint32_t low = within.key, high = key_of(best);
    while (low < high) {
      const uint32_t middle = high - (high - low) / 2;
      if (above(middle) >= wanted) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    const uint64_t rest = wanted - (low == key_of(best) ? 0 : above(low + 1)), one = each(logit_of(low));
    const int id = find((rest + one - 1) / one, low, [&](uint32_t key, int other, float) {
      return uint64_t{key == low && within.keeps(key, other)};
    });
    return {low, id};
  }
};

/// part · total, up, within 1 … total.
SDAR_DEVICE uint64_t share_of(uint64_t total, float part) {
  const double exact = static_cast<double>(part) * static_cast<double>(total);
  uint64_t share = static_cast<uint64_t>(exact);
  if (static_cast<double>(share) < exact) share++;
  return share < 1 ? 1 : share > total ? total : share;
}

/// exp((l − max) / T) over all ids, banned ones too: their sum and Σ weight · exponent, to all threads.
SDAR_DEVICE Floats2 tempered(const Row& row, float max) {
  float sum = 0, weighted = 0;
  for (int tile = row.tile_begin(warp_index()); tile < row.tile_begin(warp_index() + 1); tile++) {
    SDAR_UNROLL
    for (int i = 0; i < 2; i++) {
      const int id = tile * kHeadTile + i * kWarp + lane_index();
      if (!in_range(id, row.vocabulary)) continue;
      const float below = (load_global_cached<float>(row.logits + id) - max) * row.scale, weight = exp_fast(below);
      sum += weight;
      if (weight > 0) weighted = fused(weight, below, weighted);
    }
  }
  sum = warp_sum(sum);
  weighted = warp_sum(weighted);
  const Shared<Floats2> sums = shared_memory<Floats2>(0);
  if (lane_index() == 0) store_shared<Floats2>(sums + warp_index(), {{sum, weighted}});
  sync_block();
  Floats2 all = {{0, 0}};
  for (int warp = 0; warp < kWarps; warp++) {
    const Floats2 other = load_shared<Floats2>(sums + warp);
    all.f[0] += other.f[0];
    all.f[1] += other.f[1];
  }
  sync_block();
  return all;
}

SDAR_KERNEL(kThreads, 2, sample, HeadLists lists, HeadBuffers buffers, int vocabulary) {
  const int index = block_index_x();
  if (!in_range(index, load_global_cached<int32_t>(lists.count))) return;
  const DeviceHeadRequest* request = lists.requests + index;
  DeviceHeadResult* result = buffers.results + index;
  const float temperature = load_global_cached<float>(&request->temperature);
  if (!guard(temperature > 0)) return;
  if (!guard(load_global<int32_t>(&result->finite) != 0)) return;
  const float* logits = buffers.logits + int64_t{load_global_cached<int32_t>(&request->logits)} * vocabulary;
  const float inverse = reciprocal(temperature), max = load_global<float>(&result->max);
  const int tiles = head_tiles(vocabulary);
  const Row row{logits,
                buffers.numbers + int64_t{index} * tiles * 4,
                lists.banned + load_global_cached<int32_t>(&request->banned),
                load_global_cached<int32_t>(&request->banned_count),
                vocabulary,
                tiles,
                load_global_cached<float>(logits + load_global<int32_t>(&result->token)),
                inverse < 1e30f ? inverse : 1e30f};
  const Floats2 softmax = tempered(row, max);

  Cut cut{0, INT32_MAX};
  const int top_k = load_global_cached<int32_t>(&request->top_k);
  if (top_k > 0) {
    const auto one = [](float) { return uint64_t{1}; };
    const uint64_t allowed = row.total(0, [&](uint32_t, int, float) { return uint64_t{1}; });
    if (static_cast<uint64_t>(top_k) < allowed) cut = row.cut(static_cast<uint64_t>(top_k), cut, one);
  }
  const auto weight = [&](float logit) { return row.weight(logit); };
  const auto kept = [&](uint32_t key, int id, float logit) {
    return cut.keeps(key, id) ? row.weight(logit) : uint64_t{0};
  };
  const float top_p = load_global_cached<float>(&request->top_p);
  if (top_p < 1) cut = row.cut(share_of(row.total(cut.key, kept), top_p), cut, weight);
  const uint64_t total = row.total(cut.key, kept);
  const double exact = load_global_cached<double>(&request->uniform) * static_cast<double>(total);
  const uint64_t below = static_cast<uint64_t>(exact);
  const int token = row.find(below < total ? below + 1 : total, cut.key, kept);

  if (thread_index() != 0) return;
  const float logit = load_global_cached<float>(logits + token);
  const float entropy = log_fast(softmax.f[0]) - divide(softmax.f[1], softmax.f[0]);
  const float probability = divide(exp_fast((logit - max) * row.scale), softmax.f[0]);
  const bool truncated = load_global_cached<int32_t>(&request->sampled_confidence) != 0;
  store_global<int32_t>(&result->token, token);
  store_global<float>(
      &result->confidence,
      truncated ? divide(static_cast<float>(row.weight(logit)), static_cast<float>(total)) : probability);
  store_global<float>(&result->logprob, logit - load_global<float>(&result->logsumexp));
  store_global<float>(&result->entropy, entropy > 0 ? entropy : 0);
}

}  // namespace

void sample(Stream stream, int32_t vocabulary, const HeadLists& lists, const HeadBuffers& buffers) {
  if (lists.max_requests == 0) return;
  const LaunchShape shape{
      .grid_x = lists.max_requests, .threads = kThreads, .shared_bytes = kWarps * 8 + 16, .stream = stream};
  SDAR_LAUNCH(shape, sample_kernel, lists, buffers, vocabulary);
}

}  // namespace sdar::cuda
