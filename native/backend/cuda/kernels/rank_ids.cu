// The best ids of sampled rows that ask for them, from their stored logits: a block per row. Comes after lm_head_merge,
// whose token is the best id that may be chosen, and before sample.
//
// As many tiles as ids are wanted have their best logit above a bound, so nothing below it is among them. Only tiles that
// reach the bound are looked through: as many as ids are wanted, and few more. Where ties make the list overflow, the
// search goes over all ids, as sample.cu's does.
//
// Time by arithmetic, with 151,936 ids and 32 wanted: 38 KB of the tiles' numbers, twice, and 32 tiles of 256 bytes, all
// from L2; some 4 searches of bins for the bound and 7 in the list, perhaps 700 clocks each: 8,000 clocks, 5 µs.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/lm_head.h"
#include "backend/cuda/kernels/sample_row.cuh"

namespace sdar::cuda {
namespace {

using namespace sampling;

static_assert(kMaxCandidates * 8 <= kSumsAt);

/// Lists the ids of tiles whose number in `column` reaches the bound; how many there are.
SDAR_DEVICE int list_tiles(const Row& row, float bound, int column) {
  const int tiles = lm_head_tiles(row.vocabulary);
  Listing listing;
  for (int group = warp_index(); in_range(group, ceil_div(tiles, kWarp)); group += kWarps) {
    const int own = group * kWarp + lane_index();
    const bool reaches =
        in_range(own, tiles) && load_global_cached<float>(row.numbers + int64_t{own} * 4 + column) >= bound;
    for (uint32_t left = ballot(kFullMask, reaches); left; left &= left - 1) {
      const int tile = group * kWarp + 63 - leading_zeros(left & (~left + 1));
      for (int id = tile * kLmHeadTile + lane_index(); id < (tile + 1) * kLmHeadTile; id += kWarp) {
        if (!in_range(id, row.vocabulary) || !row.may_choose(id)) continue;
        const float logit = load_global_cached<float>(row.logits + id);
        if (logit >= bound) listing.add(place_of(logit, id));
      }
    }
  }
  sync_block();
  return Row::count_listed();
}

/// to[0 … wanted − 1]: the best ids of `row`, and nothing where there are no more. `column`: of the tiles' numbers.
SDAR_DEVICE void tell_best(const Row& row, int column, int wanted, RankedToken* to) {
  if (warp_index() == 0) clear_bins();
  clear_list();
  const float bound = row.list_bound(wanted, column);
  int listed = list_tiles(row, bound, column);
  const Cut all{-INFINITY, INT32_MAX};
  Cut cut = all;
  if (listed > wanted) {
    cut = row.shortest(static_cast<uint64_t>(wanted), all, listed <= kListed ? listed : -1,
                       [](float) { return uint64_t{1}; });
    if (listed > kListed) listed = row.survey(cut).listed;
  }
  // Those of the list that the cut keeps, at most `wanted`, move to where the bins were.
  const Shared<uint32_t> count = shared_memory<uint32_t>(kCountAt);
  const Shared<Words2> kept = shared_memory<Words2>(0);
  if (thread_index() == 0) store_shared<uint32_t>(count, 0);
  sync_block();
  each_listed(listed, [&](uint64_t place) {
    if (place >= cut.place()) store_shared<Words2>(kept + static_cast<int>(atomic_add(count, 1u)), split(place));
  });
  sync_block();
  const int found = static_cast<int>(load_shared<uint32_t>(count));
  const int own = thread_index();
  if (own < wanted) {
    int rank = own, id = -1;
    float logit = 0;
    if (own < found) {
      const uint64_t place = join(load_shared<Words2>(kept + own));
      rank = 0;
      for (int i = 0; i < found; i++) rank += join(load_shared<Words2>(kept + i)) > place;
      id = id_at(place);
      logit = load_global_cached<float>(row.logits + id);
    }
    store_global<int32_t>(&to[rank].id, id);
    store_global<float>(&to[rank].logit, logit);
  }
  sync_block();
}

SDAR_KERNEL(kThreads, 1, rank_ids, SampledRows rows, LmHeadBuffers buffers, int vocabulary) {
  const int index = block_index_x();
  if (!in_range(index, load_global_cached<int32_t>(rows.count))) return;
  const DeviceSampledRow* sampled = rows.data + index;
  const int candidates = load_global_cached<int32_t>(&sampled->candidates);
  const int top = load_global_cached<int32_t>(&sampled->top);
  const int wanted_at = load_global_cached<int32_t>(&sampled->wanted_at);
  if (!guard(candidates > 0 || top > 0 || wanted_at >= 0)) return;
  const DeviceSampledToken* result = buffers.results + index;
  const bool finite = load_global_cached<int32_t>(&result->finite) != 0;
  const float* logits = buffers.logits + int64_t{load_global_cached<int32_t>(&sampled->logits)} * vocabulary;
  if (wanted_at >= 0 && thread_index() == 0) {
    const int wanted = load_global_cached<int32_t>(&sampled->wanted);
    store_global<int32_t>(&buffers.ranked[wanted_at].id, wanted);
    store_global<float>(&buffers.ranked[wanted_at].logit, wanted >= 0 ? load_global_cached<float>(logits + wanted) : 0);
  }
  if (!guard(finite)) return;
  Row row = row_of(rows, buffers, index, vocabulary);
  row.best = load_global_cached<float>(logits + load_global_cached<int32_t>(&result->token));
  if (candidates > 0)
    tell_best(row, 1, candidates, buffers.ranked + load_global_cached<int32_t>(&sampled->candidates_at));
  if (top == 0) return;
  row.mask = nullptr;
  row.suppressed_count = 0;
  row.best = load_global_cached<float>(&result->max);
  tell_best(row, 0, top, buffers.ranked + load_global_cached<int32_t>(&sampled->top_at));
}

}  // namespace

void rank_ids(Stream stream, const LmHeadMergeParams& args) {
  if (args.rows.max_count == 0) return;
  const LaunchShape shape{
      .grid_x = args.rows.max_count, .threads = kThreads, .shared_bytes = kSharedBytes, .stream = stream};
  SDAR_LAUNCH(shape, rank_ids_kernel, args.rows, args.buffers, args.vocabulary);
}

}  // namespace sdar::cuda
