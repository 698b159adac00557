// Around the lm_head: which rows of the step are sampled (gather_rows, one block), and which tokens are kept
// (select_unmask, a warp per slot). Both are as long as a launch.
//
// select_unmask's lanes each hold the block's confidences and entropies in local memory, because denoise/choose.h walks
// over arrays.
#include "backend/cuda/kernels/denoise.h"
#include "backend/cuda/kernels/device.cuh"
#include "denoise/choose.h"
#include "denoise/philox.h"

namespace sdar::cuda {
namespace {

constexpr int kGatherThreads = kMaxSlots, kGatherWarps = kGatherThreads / kWarp;
constexpr int kSelectWarps = 4, kSelectThreads = kSelectWarps * kWarp;

SDAR_DEVICE uint64_t masked_of(const DenoiseSlot* slot) {
  const Words2 w = load_global<Words2>(&slot->masked);
  return load_global<int32_t>(&slot->row) < 0 ? 0 : uint64_t{w.w[1]} << 32 | w.w[0];
}

/// Σ over the lanes before this one.
SDAR_DEVICE int before_in_warp(int x) {
  int sum = x;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int other = shuffle_up(kFullMask, sum, distance);
    if (lane_index() >= distance) sum += other;
  }
  return sum - x;
}

/// `before`: of the block's `masked` positions those before `offset`.
SDAR_DEVICE void put_sampled(const GatherRowsParams& a, const DenoiseSlot* slot, int offset, int index, int before,
                             int masked) {
  const int position = load_global<int32_t>(&slot->position) + offset;
  const float temperature = load_global<float>(&slot->temperature);
  const int suppressed = load_global<int32_t>(&slot->suppressed_count);
  const bool early = position < load_global<int32_t>(&slot->free_from);
  const Words2 seed = load_global<Words2>(&slot->seed);
  DeviceSampledRow* to = a.sampled + index;
  store_global<double>(
      &to->uniform, philox_uniform(uint64_t{seed.w[1]} << 32 | seed.w[0], position, load_global<int32_t>(&slot->step),
                                   load_global<int32_t>(&slot->answer)));
  store_global<float>(&to->temperature, temperature);
  store_global<float>(&to->top_p, load_global<float>(&slot->top_p));
  store_global<float>(&to->min_p_range, load_global<float>(&slot->min_p_range));
  store_global<int32_t>(&to->top_k, load_global<int32_t>(&slot->top_k));
  store_global<int32_t>(&to->sampled_confidence, load_global<int32_t>(&slot->sampled_confidence));
  store_global<int32_t>(&to->suppressed, load_global<int32_t>(&slot->suppressed));
  store_global<int32_t>(&to->suppressed_count,
                        early ? suppressed + load_global<int32_t>(&slot->early_count) : suppressed);
  store_global<int32_t>(&to->bias, load_global<int32_t>(&slot->bias));
  store_global<int32_t>(&to->bias_count, load_global<int32_t>(&slot->bias_count));
  const int candidates = load_global<int32_t>(&slot->candidates), top = load_global<int32_t>(&slot->top);
  const bool tells_wanted = load_global<int32_t>(&slot->tells_wanted) != 0;
  const bool stores = temperature > 0 || a.all_logits || candidates > 0 || top > 0 || tells_wanted;
  store_global<int32_t>(&to->logits, stores ? index % kLmHeadChunk : -1);
  const int limits = load_global<int32_t>(&slot->limits), ranked = load_global<int32_t>(&slot->ranked);
  const Words2 limit = limits < 0 ? Words2{{~0u, ~0u}} : load_global<Words2>(a.limits + limits + offset);
  store_global<int32_t>(&to->mask, static_cast<int32_t>(limit.w[0]));
  store_global<int32_t>(&to->wanted, static_cast<int32_t>(limit.w[1]));
  store_global<int32_t>(&to->wanted_at, tells_wanted ? ranked + masked * candidates + before : -1);
  store_global<int32_t>(&to->candidates, candidates);
  store_global<int32_t>(&to->candidates_at, ranked + before * candidates);
  store_global<int32_t>(&to->top, top);
  store_global<int32_t>(&to->top_at, ranked + masked * (candidates + tells_wanted) + before * top);
  store_global<int32_t>(&to->penalised, load_global<int32_t>(&slot->penalised));
  store_global<int32_t>(&to->penalised_count, load_global<int32_t>(&slot->penalised_count));
  store_global<int32_t>(&to->offset, offset);
  store_global<float>(&to->repetition, load_global<float>(&slot->repetition));
  store_global<int32_t>(a.rows + index, load_global<int32_t>(&slot->row) + offset);
}

SDAR_KERNEL(kGatherThreads, 1, gather_rows, GatherRowsParams a) {
  const DenoiseTables& t = a.tables;
  // the first sampled row of each slot: a thread counts one slot's
  const int slot_index = thread_index();
  const int own = in_range(slot_index, t.count) ? count_bits(masked_of(t.slots + slot_index)) : 0;
  const Shared<int> firsts = shared_memory<int>(0), of_warps = shared_memory<int>(kMaxSlots * 4);
  int first = before_in_warp(own);
  if (lane_index() == kWarp - 1) store_shared<int>(of_warps + warp_index(), first + own);
  sync_block();
  int all = 0;
  for (int warp = 0; warp < kGatherWarps; warp++) {
    if (warp == warp_index()) first += all;
    all += load_shared<int>(of_warps + warp);
  }
  store_shared<int>(firsts + slot_index, first);
  if (in_range(slot_index, t.count)) store_global<int32_t>(&t.outcomes[slot_index].first, first);
  for (int chunk = thread_index(); chunk * kLmHeadChunk < a.max_count; chunk += kGatherThreads) {
    const int left = all - chunk * kLmHeadChunk;
    store_global<int32_t>(a.counts + chunk, left < 0 ? 0 : left < kLmHeadChunk ? left : kLmHeadChunk);
  }
  for (int i = all + thread_index(); in_range(i, a.max_count); i += kGatherThreads)
    store_global<int32_t>(a.rows + i, 0);
  sync_block();

  // a warp takes a slot, a lane two offsets of its block
  for (int index = warp_index(); in_range(index, t.count); index += kGatherWarps) {
    const DenoiseSlot* slot = t.slots + index;
    const int row = load_global<int32_t>(&slot->row);
    if (!guard(row >= 0)) continue;
    const uint64_t masked = masked_of(slot);
    const int length = load_global<int32_t>(&slot->block_length), begin = load_shared<int>(firsts + index);
    const bool keeps_ids = load_global<int32_t>(&slot->keeps_ids) != 0;
    for (int offset = lane_index(); in_range(offset, length); offset += kWarp) {
      const bool is_masked = masked >> offset & 1;
      store_global<int32_t>(
          a.ids + row + offset,
          is_masked && !keeps_ids ? t.mask_id : load_global<int32_t>(t.tokens + index * kMaxBlockLength + offset));
      if (!is_masked) continue;
      const int before = count_bits(masked & ((uint64_t{1} << offset) - 1));
      put_sampled(a, slot, offset, begin + before, before, count_bits(masked));
    }
  }
}

SDAR_KERNEL(kSelectThreads, 2, select_unmask, DenoiseTables t, const DeviceSampledToken* results) {
  const int index = block_index_x() * kSelectWarps + warp_index();
  if (!in_range(index, t.count)) return;
  DenoiseSlot* slot = t.slots + index;
  DenoiseOutcome* outcome = t.outcomes + index;
  const uint64_t masked = masked_of(slot);
  if (!guard(load_global<int32_t>(&slot->row) >= 0)) return;
  const DeviceSampledToken* first = results + load_global<int32_t>(&outcome->first);

  float confidence[kMaxBlockLength], entropy[kMaxBlockLength];
  bool finite = true;
  int token[2] = {0, 0};
  for (int half = 0; half < 2; half++) {
    const int offset = half * kWarp + lane_index();
    float own[2] = {0, 0};
    if (masked >> offset & 1) {
      const DeviceSampledToken* result = first + count_bits(masked & ((uint64_t{1} << offset) - 1));
      finite = finite && load_global_cached<int32_t>(&result->finite) != 0;
      own[0] = load_global_cached<float>(&result->confidence);
      own[1] = load_global_cached<float>(&result->entropy);
      token[half] = load_global_cached<int32_t>(&result->token);
    }
    for (int i = 0; i < kWarp; i++) {
      confidence[half * kWarp + i] = shuffle(kFullMask, own[0], i);
      entropy[half * kWarp + i] = shuffle(kFullMask, own[1], i);
    }
  }
  finite = all(kFullMask, finite);
  DenoiseParams params;
  params.strategy = static_cast<Strategy>(load_global<uint8_t>(&slot->params.strategy));
  params.steps = load_global<int32_t>(&slot->params.steps);
  params.threshold = load_global<float>(&slot->params.threshold);
  params.entropy_bound = load_global<float>(&slot->params.entropy_bound);
  params.factor = load_global<float>(&slot->params.factor);
  const int step = load_global<int32_t>(&slot->step);
  const uint64_t filled =
      finite ? choose_positions(params, load_global<int32_t>(&slot->block_length), step, masked, confidence, entropy)
             : 0;
  for (int half = 0; half < 2; half++) {
    const int offset = half * kWarp + lane_index();
    if (filled >> offset & 1) store_global<int32_t>(t.tokens + index * kMaxBlockLength + offset, token[half]);
  }
  sync_warp(kFullMask);  // all have read the slot
  if (lane_index() != 0) return;
  const uint64_t left = masked & ~filled;
  store_global<Words2>(&slot->masked, {{static_cast<uint32_t>(left), static_cast<uint32_t>(left >> 32)}});
  store_global<int32_t>(&slot->step, step + 1);
  store_global<Words2>(&outcome->filled, {{static_cast<uint32_t>(filled), static_cast<uint32_t>(filled >> 32)}});
  store_global<Words2>(&outcome->masked, {{static_cast<uint32_t>(masked), static_cast<uint32_t>(masked >> 32)}});
  store_global<int32_t>(&outcome->finite, finite);
}

}  // namespace

void gather_rows(Stream stream, const GatherRowsParams& args) {
  const LaunchShape shape{.threads = kGatherThreads, .shared_bytes = (kMaxSlots + kGatherWarps) * 4, .stream = stream};
  SDAR_LAUNCH(shape, gather_rows_kernel, args);
}

void select_unmask(Stream stream, const SelectUnmaskParams& args) {
  if (args.tables.count == 0) return;
  const LaunchShape shape{
      .grid_x = ceil_div(args.tables.count, kSelectWarps), .threads = kSelectThreads, .stream = stream};
  SDAR_LAUNCH(shape, select_unmask_kernel, args.tables, args.results);
}

}  // namespace sdar::cuda
