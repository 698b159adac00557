// Merges the chunks of query rows that were shared out over blocks: in ascending order, as attention.cu does within a
// block. A warp per query row and KV head; partial results are read from L2.
#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/attention_tile.cuh"
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/layout.h"

namespace sdar::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;

template <int head_dim>
SDAR_KERNEL(kThreads, 8, attention_merge, AttentionMergeParams a) {
  pdl_trigger();
  constexpr int kPairs = head_dim / (2 * kWarp);  // of columns per lane
  const MergeItem* item = a.items + block_index_x();
  const int kv_head = block_index_y(), group = a.heads / a.kv_heads;
  const int segment_index = load_global_cached<int32_t>(&item->segment);
  if (!guard(segment_index >= 0)) return;
  const DeviceSegment* segment = a.segments + segment_index;
  const int within = block_index_z() * kWarps + warp_index();
  const int query = load_global_cached<int32_t>(&item->first) + within;
  if (!in_range(query, load_global_cached<int32_t>(&segment->rows) * group)) return;

  const int chunks = load_global_cached<int32_t>(&item->chunks), stride = attention_partial_floats(head_dim);
  const float* place =
      a.partials + (int64_t{load_global_cached<int32_t>(&item->partial)} * a.kv_heads + kv_head) * stride;
  float max = kNoKeys, sum = 0, out[kPairs][2] = {};
  for (int chunk = 0; chunk < chunks; chunk++, place += int64_t{a.kv_heads} * stride) {
    const Floats2 max_and_sum = load_global<Floats2>(place + kFragmentRows * head_dim + within * 2);
    if (max_and_sum.f[0] == kNoKeys) continue;
    const MergeFactors f = merge_max<head_dim>(max, max_and_sum.f[0]);
    sum = merge_sum(f, sum, max_and_sum.f[1]);
    SDAR_UNROLL
    for (int i = 0; i < kPairs; i++) {
      const Floats2 pair = load_global<Floats2>(place + within * head_dim + (i * kWarp + lane_index()) * 2);
      out[i][0] = merge_sum(f, out[i][0], pair.f[0]);
      out[i][1] = merge_sum(f, out[i][1], pair.f[1]);
    }
  }
  const float scale = reciprocal(sum);
  const int token = load_global_cached<int32_t>(&segment->row) + query / group;
  const int head = kv_head * group + query % group, columns = padded_k(a.heads * head_dim);
  SDAR_UNROLL
  for (int i = 0; i < kPairs; i++) {
    const int column = head * head_dim + (i * kWarp + lane_index()) * 2;
    store_global<uint32_t>(a.tiles + activation_index(token, column, columns),
                           pack_bf16(out[i][0] * scale, out[i][1] * scale));
  }
}

template <int head_dim>
void launch_dim(Stream stream, const AttentionMergeParams& args) {
  const LaunchShape shape{.grid_x = args.item_count,
                          .grid_y = args.kv_heads,
                          .grid_z = kFragmentRows / kWarps,
                          .threads = kThreads,
                          .stream = stream};
  SDAR_LAUNCH(shape, attention_merge_kernel<head_dim>, args);
}

}  // namespace

void attention_merge(Stream stream, const AttentionMergeParams& args) {
  if (args.item_count == 0) return;
  args.head_dim == 128 ? launch_dim<128>(stream, args) : launch_dim<64>(stream, args);
}

}  // namespace sdar::cuda
