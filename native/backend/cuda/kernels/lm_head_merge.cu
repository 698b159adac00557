// From partial results to one result per sampled row: a block per row, tiles of ids in an order that the vocabulary
// alone decides (thread i: i, i + 256, …; lanes as a tree; warps in ascending order). Limited by launch time.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/lm_head.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

SDAR_KERNEL(kThreads, 8, lm_head_merge, SampledRows rows, LmHeadBuffers buffers, int tiles) {
  const int index = block_index_x();
  if (!in_range(index, load_global_cached<int32_t>(rows.count))) return;
  const float* numbers = buffers.numbers + int64_t{index} * tiles * 4;
  const int32_t* ids = buffers.best_ids + int64_t{index} * tiles;

  float max = -INFINITY, best = -INFINITY;
  int best_id = kNoId;  // kNotFinite stays
  const auto take = [&](float other, int other_id) {
    if (other_id == kNotFinite) best_id = kNotFinite;
    if (other_id < 0 || best_id == kNotFinite) return;
    if (best_id >= 0 && !(other > best || (other == best && other_id < best_id))) return;
    best = other;
    best_id = other_id;
  };
  for (int tile = thread_index(); in_range(tile, tiles); tile += kThreads) {
    const Floats4 n = load_global_cached<Floats4>(numbers + tile * 4);
    max = maximum(max, n.f[0]);
    take(n.f[1], load_global_cached<int32_t>(ids + tile));
  }
  SDAR_UNROLL
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    max = maximum(max, shuffle_xor(kFullMask, max, distance));
    const float other = shuffle_xor(kFullMask, best, distance);
    take(other, shuffle_xor(kFullMask, best_id, distance));
  }
  const Shared<Floats4> of_warps = shared_memory<Floats4>(0);
  if (lane_index() == 0) {
    store_shared<Floats4>(of_warps + warp_index(), {{max, best, bits_to_f32(static_cast<uint32_t>(best_id)), 0}});
  }
  sync_block();
  for (int warp = 0; warp < kWarps; warp++) {
    const Floats4 other = load_shared<Floats4>(of_warps + warp);
    max = maximum(max, other.f[0]);
    take(other.f[1], static_cast<int>(f32_to_bits(other.f[2])));
  }
  sync_block();

  float sum = 0, weighted = 0;
  for (int tile = thread_index(); in_range(tile, tiles); tile += kThreads) {
    const Floats4 n = load_global_cached<Floats4>(numbers + tile * 4);
    const float shift = n.f[0] - max, factor = exp_fast(shift);
    sum = fused(factor, n.f[2], sum);
    weighted = fused(factor, fused(n.f[2], shift, n.f[3]), weighted);
  }
  sum = warp_sum(sum);
  weighted = warp_sum(weighted);
  if (lane_index() == 0) store_shared<Floats4>(of_warps + warp_index(), {{sum, weighted, 0, 0}});
  sync_block();
  if (thread_index() != 0) return;
  sum = weighted = 0;
  for (int warp = 0; warp < kWarps; warp++) {
    const Floats4 other = load_shared<Floats4>(of_warps + warp);
    sum += other.f[0];
    weighted += other.f[1];
  }
  const float log_sum = log_fast(sum), entropy = log_sum - divide(weighted, sum);
  DeviceSampledToken* to = buffers.results + index;
  store_global<int32_t>(&to->token, best_id >= 0 ? best_id : 0);
  store_global<float>(&to->confidence, divide(exp_fast(best - max), sum));
  store_global<float>(&to->logprob, best - max - log_sum);
  store_global<float>(&to->entropy, entropy > 0 ? entropy : 0);
  store_global<float>(&to->max, max);
  store_global<float>(&to->logsumexp, max + log_sum);
  store_global<int32_t>(&to->finite, best_id >= 0);
}

}  // namespace

void lm_head_merge(Stream stream, const LmHeadMergeParams& args) {
  if (args.rows.max_count == 0) return;
  const LaunchShape shape{
      .grid_x = args.rows.max_count, .threads = kThreads, .shared_bytes = kWarps * 16, .stream = stream};
  SDAR_LAUNCH(shape, lm_head_merge_kernel, args.rows, args.buffers, lm_head_tiles(args.vocabulary));
}

}  // namespace sdar::cuda
