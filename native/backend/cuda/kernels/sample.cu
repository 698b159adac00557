// A token for each sampled row of a temperature, from its stored logits: a block per row.
//
// Weights exp((l − best) / T) are taken as integers of 2^-40: their sums are the same in any order, so that warps may
// share the vocabulary and threads add to bins as they come.
//
// One pass over the logits sums what all ids count for (the entropy at T; the weights, without top-k) and lists in
// shared memory those of at least a bound: the top_k-th largest of the tiles' best logits, which top_k ids reach; the
// 1024th without top-k. Ids are in order of falling logit, then rising id, as one number of 64 bits. Where top-k and
// top-p cut is sought in the list, 9 bits at a time: 512 bins of 64-bit sums, then the one that holds the cut; then the
// chosen id the same way. A list that overflows, or whose weights are less than top-p's share, is no use: the search
// goes over all ids until those left in question fit into it, and what is kept is listed anew if it fits: some 4 further
// passes for each of top-k and top-p. Min-p is a bound of logits, so that it begins the list where nothing else cuts, and
// takes at most one pass where the list overflows.
//
// Time by arithmetic, with 151,936 ids: 0.6 MB from L2 at 64 bytes a clock are 9,500 clocks; 24 KB of loads in flight
// (768 threads · 8 · 4 bytes) bring that within a latency of 380, and other warps compute meanwhile. Some 25
// instructions per id, 128 lanes a clock: 30,000 clocks. Some 17 searches of bins, each two barriers, a round of
// atomics and a sum over a warp, perhaps 700 clocks: 12,000. Together 45,000, some 25 µs; a pass over all ids with
// atomics may take twice the first.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/lm_head.h"
#include "backend/cuda/kernels/sample_row.cuh"

namespace sdar::cuda {
namespace {

using namespace sampling;

/// part · total, up, within 1 … total.
SDAR_DEVICE uint64_t share_of(uint64_t total, float part) {
  const double exact = static_cast<double>(part) * static_cast<double>(total);
  uint64_t share = static_cast<uint64_t>(exact);
  if (static_cast<double>(share) < exact) share++;
  return share < 1 ? 1 : share > total ? total : share;
}

SDAR_KERNEL(kThreads, 1, sample, SampledRows rows, LmHeadBuffers buffers, int vocabulary) {
  const int index = block_index_x();
  if (!in_range(index, load_global_cached<int32_t>(rows.count))) return;
  const DeviceSampledRow* sampled = rows.data + index;
  DeviceSampledToken* result = buffers.results + index;
  const float temperature = load_global_cached<float>(&sampled->temperature);
  if (!guard(temperature > 0)) return;
  if (!guard(load_global<int32_t>(&result->finite) != 0)) return;
  const float* logits = buffers.logits + int64_t{load_global_cached<int32_t>(&sampled->logits)} * vocabulary;
  const float inverse = reciprocal(temperature), max = load_global<float>(&result->max);
  Row row = row_of(rows, buffers, index, vocabulary);
  row.best = load_global_cached<float>(logits + load_global<int32_t>(&result->token));
  row.scale = inverse < 1e30f ? inverse : 1e30f;
  const int top_k = load_global_cached<int32_t>(&sampled->top_k);
  const float top_p = load_global_cached<float>(&sampled->top_p);
  if (warp_index() == 0) clear_bins();
  clear_list();

  const Cut all{-INFINITY, INT32_MAX};
  const Cut least{row.best + load_global_cached<float>(&sampled->min_p_range), INT32_MAX};  // of min-p
  const bool truncates = least.logit > -INFINITY, cuts = top_k > 0 || top_p < 1;
  const float bound = cuts ? row.list_bound(top_k > 0 ? top_k : kManyTiles, 1) : truncates ? least.logit : INFINITY;
  Survey s = row.first_survey(bound, max, top_k <= 0);
  Cut cut = all;
  int listed = -1;  // ids in the list, if it holds all that matter
  if ((cuts || truncates) && s.listed <= kListed) {
    listed = s.listed;
    if (cuts) cut.logit = bound;
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
  if (truncates && !least.keeps(cut.logit, cut.id)) keep(least);
  const double exact = load_global_cached<double>(&sampled->uniform) * static_cast<double>(s.weights);
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
  const bool truncated = load_global_cached<int32_t>(&sampled->sampled_confidence) != 0;
  store_global<int32_t>(&result->token, token);
  store_global<float>(
      &result->confidence,
      truncated ? divide(static_cast<float>(row.weight(logit)), static_cast<float>(s.weights)) : probability);
  store_global<float>(&result->logprob, logit - load_global<float>(&result->logsumexp));
  store_global<float>(&result->entropy, entropy > 0 ? entropy : 0);
}

}  // namespace

void sample(Stream stream, const LmHeadMergeParams& args) {
  if (args.rows.max_count == 0) return;
  const LaunchShape shape{
      .grid_x = args.rows.max_count, .threads = kThreads, .shared_bytes = kSharedBytes, .stream = stream};
  SDAR_LAUNCH(shape, sample_kernel, args.rows, args.buffers, args.vocabulary);
}

}  // namespace sdar::cuda
