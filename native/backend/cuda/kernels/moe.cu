// Around the GEMMs of a mixture of experts: which experts a token takes, which rows an expert has, and the sum.
//
// None of these is limited by HBM: at 64 tokens of 30B-A3B route takes some 20 µs of L2 (x and the router, 1 MB, for
// every token); the weights of the experts that 64 tokens take, 9 MB each, need twenty times as long.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/moe.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kGroupThreads = 1024, kGroupWarps = kGroupThreads / kWarp;
constexpr int kPerLane = kMaxExperts / kWarp;

/// rmsnorm(x) of one token in shared memory, [hidden] f32 at `to`; the sums of the warps lie at 0.
SDAR_DEVICE void normalise(const RouteParams& a, const float* x, Shared<float> to) {
  const Shared<float> sums = shared_memory<float>(0);
  const int vectors = a.hidden / 4;
  float sum = 0;
  for (int vector = thread_index(); in_range(vector, vectors); vector += kThreads) {
    const Floats4 v = load_global_cached<Floats4>(x + vector * 4);
    SDAR_UNROLL
    for (int i = 0; i < 4; i++) sum = fused(v.f[i], v.f[i], sum);
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) store_shared<float>(sums + warp_index(), sum);
  sync_block();
  sum = 0;
  for (int warp = 0; warp < kWarps; warp++) sum += load_shared<float>(sums + warp);
  const float scale = norm_factor(sum / static_cast<float>(a.hidden), a.eps);
  for (int vector = thread_index(); in_range(vector, vectors); vector += kThreads) {
    const int k = vector * 4;
    const Floats4 v = load_global_cached<Floats4>(x + k), w = load_global_cached<Floats4>(a.norm + k);
    store_shared<Floats4>(
        to + k, {{v.f[0] * scale * w.f[0], v.f[1] * scale * w.f[1], v.f[2] * scale * w.f[2], v.f[3] * scale * w.f[3]}});
  }
}

/// By the first warp: the experts of largest logit and their weights, in ascending order of expert.
SDAR_DEVICE void choose(const RouteParams& a, Shared<float> logits, int token) {
  float logit[kPerLane], max = -INFINITY, sum = 0;
  SDAR_UNROLL
  for (int i = 0; i < kPerLane; i++) {
    const int expert = i * kWarp + lane_index();
    logit[i] = in_range(expert, a.expert_count) ? load_shared<float>(logits + expert) : -INFINITY;
    if (!(logit[i] == logit[i])) logit[i] = -INFINITY;  // a NaN is in x, whatever is chosen
    max = maximum(max, logit[i]);
  }
  max = warp_max(max);
  SDAR_UNROLL
  for (int i = 0; i < kPerLane; i++) sum += exp_fast(logit[i] - max);
  sum = warp_sum(sum);

  uint32_t taken = 0;  // bit i: expert i · 32 + lane
  float total = 0;
  for (int n = 0; n < a.top_k; n++) {
    float best = -INFINITY;
    int best_expert = kMaxExperts;
    SDAR_UNROLL
    for (int i = 0; i < kPerLane; i++) {
      const int expert = i * kWarp + lane_index();
      if (taken >> i & 1 || (best_expert < kMaxExperts && !(logit[i] > best))) continue;  // one that is none comes last
      best = logit[i];
      best_expert = expert;
    }
    SDAR_UNROLL
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      const float other = shuffle_xor(kFullMask, best, distance);
      const int other_expert = shuffle_xor(kFullMask, best_expert, distance);
      if (other > best || (other == best && other_expert < best_expert)) best = other, best_expert = other_expert;
    }
    if (best_expert % kWarp == lane_index()) taken |= 1u << best_expert / kWarp;
    total += divide(exp_fast(best - max), sum);
  }
  // in ascending order: each expert's rank is the number of chosen ones before it
  int before = 0;
  SDAR_UNROLL
  for (int i = 0; i < kPerLane; i++) {
    const bool is_taken = taken >> i & 1;
    const uint32_t set = ballot(kFullMask, is_taken);
    int rank = before;
    for (int lane = 0; lane < kWarp; lane++) {
      rank += lane < lane_index() && (set >> lane & 1);
      before += set >> lane & 1;
    }
    if (!is_taken) continue;
    const float weight = divide(exp_fast(logit[i] - max), sum);
    store_global<int32_t>(a.experts + int64_t{token} * a.top_k + rank, i * kWarp + lane_index());
    store_global<float>(a.weights + int64_t{token} * a.top_k + rank, a.renormalise ? divide(weight, total) : weight);
  }
}

SDAR_KERNEL(kThreads, 2, route, RouteParams a) {
  const int token = block_index_x();
  const Shared<float> logits = shared_memory<float>(kWarps * 4), h = shared_memory<float>((kWarps + kMaxExperts) * 4);
  normalise(a, a.x + int64_t{token} * a.hidden, h);
  sync_block();
  for (int expert = warp_index(); in_range(expert, a.expert_count); expert += kWarps) {
    const float* row = a.router + int64_t{expert} * a.hidden;
    float sum = 0;
    for (int vector = lane_index(); in_range(vector, a.hidden / 4); vector += kWarp) {
      const Floats4 w = load_global_cached<Floats4>(row + vector * 4), v = load_shared<Floats4>(h + vector * 4);
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) sum = fused(w.f[i], v.f[i], sum);
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) store_shared<float>(logits + expert, sum);
  }
  sync_block();
  if (warp_index() == 0) choose(a, logits, token);
}

/// The place in its choices [top_k] at which a token takes the expert, −1 when it does not.
SDAR_DEVICE int choice_of(const GroupParams& a, int token, int expert) {
  int place = -1;
  for (int k = 0; k < a.top_k; k++) {
    if (load_global_cached<int32_t>(a.experts + int64_t{token} * a.top_k + k) == expert) place = k;
  }
  return place;
}
SDAR_DEVICE int bits_in(uint32_t set) {
  int n = 0;
  for (; set; set &= set - 1) n++;
  return n;
}

SDAR_KERNEL(kGroupThreads, 1, group, GroupParams a) {
  const Shared<int> counts = shared_memory<int>(0), begins = shared_memory<int>(kMaxExperts * 4);
  const int places = grouped_rows(a.tokens, a.expert_count, a.top_k);
  for (int row = thread_index(); in_range(row, places); row += kGroupThreads)
    store_global<int32_t>(a.grouped.tokens + row, 0);
  for (int expert = warp_index(); expert < a.expert_count; expert += kGroupWarps) {
    int count = 0;
    for (int first = 0; first < a.tokens; first += kWarp) {
      const int token = first + lane_index();
      count += bits_in(ballot(kFullMask, in_range(token, a.tokens) && choice_of(a, token, expert) >= 0));
    }
    if (lane_index() == 0) store_shared<int>(counts + expert, count);
  }
  sync_block();
  if (thread_index() == 0) {
    int begin = 0;
    for (int expert = 0; expert < a.expert_count; expert++) {
      const int count = load_shared<int>(counts + expert);
      store_shared<int>(begins + expert, begin);
      store_global<int32_t>(a.grouped.begin + expert, begin);
      store_global<int32_t>(a.grouped.count + expert, count);
      begin += ceil_div(count, kTileTokens) * kTileTokens;
    }
  }
  sync_block();
  for (int expert = warp_index(); expert < a.expert_count; expert += kGroupWarps) {
    int row = load_shared<int>(begins + expert);
    for (int first = 0; first < a.tokens; first += kWarp) {
      const int token = first + lane_index();
      const int place = in_range(token, a.tokens) ? choice_of(a, token, expert) : -1;
      const uint32_t set = ballot(kFullMask, place >= 0);
      const int own = row + bits_in(set & ((1u << lane_index()) - 1));
      row += bits_in(set);
      if (place < 0) continue;
      store_global<int32_t>(a.grouped.tokens + own, token);
      store_global<int32_t>(a.grouped.rows + int64_t{token} * a.top_k + place, own);
    }
  }
}

SDAR_KERNEL(kThreads, 4, combine, CombineParams a) {
  const int vectors = a.hidden / 4;
  const int64_t vector = int64_t{block_index_x()} * kThreads + thread_index();
  if (!in_range(vector, int64_t{a.tokens} * vectors)) return;
  const int64_t token = vector / vectors;
  const int column = static_cast<int>(vector % vectors) * 4;
  float* x = a.x + token * a.hidden + column;
  Floats4 sum = load_global<Floats4>(x);
  for (int k = 0; k < a.top_k; k++) {
    const int64_t row = load_global_cached<int32_t>(a.rows + token * a.top_k + k);
    const float weight = load_global_cached<float>(a.weights + token * a.top_k + k);
    const Floats4 v = load_global_cached<Floats4>(a.out + row * a.hidden + column);
    SDAR_UNROLL
    for (int i = 0; i < 4; i++) sum.f[i] = fused(weight, v.f[i], sum.f[i]);
  }
  store_global<Floats4>(x, sum);
}

}  // namespace

void route(Stream stream, const RouteParams& args) {
  if (args.tokens == 0) return;
  const LaunchShape shape{.grid_x = args.tokens,
                          .threads = kThreads,
                          .shared_bytes = (kWarps + kMaxExperts + args.hidden) * 4,
                          .stream = stream};
  SDAR_LAUNCH(shape, route_kernel, args);
}

void group(Stream stream, const GroupParams& args) {
  if (args.tokens == 0) return;
  const LaunchShape shape{.threads = kGroupThreads, .shared_bytes = 2 * kMaxExperts * 4, .stream = stream};
  SDAR_LAUNCH(shape, group_kernel, args);
}

void combine(Stream stream, const CombineParams& args) {
  if (args.tokens == 0) return;
  const int64_t vectors = int64_t{args.tokens} * (args.hidden / 4);
  const LaunchShape shape{
      .grid_x = static_cast<int>((vectors + kThreads - 1) / kThreads), .threads = kThreads, .stream = stream};
  SDAR_LAUNCH(shape, combine_kernel, args);
}

}  // namespace sdar::cuda
