// Biases, q/k-norm, RoPE and page write: one warp per row and head, q, k and v alike; nothing is read twice.
//
// At 64 rows of SDAR-4B about as long as its launch; at 512 rows limited by memory (80 % of bandwidth).
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/layout.h"
#include "backend/cuda/kernels/rowwise.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

/// Lane l holds columns kEach · l … of the first and of the second half of a head: the pairs that RoPE rotates.
template <int head_dim>
SDAR_KERNEL(kThreads, 8, rope, RopeParams a) {
  constexpr int kHalf = head_dim / 2, kEach = kHalf / kWarp;
  const int heads = a.heads + 2 * a.pages.kv_heads, work = block_index_x() * kWarps + warp_index();
  if (!in_range(work, a.rows * heads)) return;
  const int row = work / heads, head = work % heads;
  const int segment_index = load_global_cached<int32_t>(a.tables.row_segment + row);
  if (!guard(segment_index >= 0)) return;
  const DeviceSegment* segment = a.tables.segments + segment_index;
  const int position =
      load_global_cached<int32_t>(&segment->position) + row - load_global_cached<int32_t>(&segment->row);

  const int column = lane_index() * kEach;
  const float* from = a.qkv + int64_t{work} * head_dim + column;
  float x[2][kEach];
  SDAR_UNROLL
  for (int half = 0; half < 2; half++) {
    SDAR_UNROLL
    for (int i = 0; i < kEach; i++) x[half][i] = load_global<float>(from + half * kHalf + i);
  }
  if (a.q_bias) {
    const int kv = a.pages.kv_heads, key = head - a.heads, value = key - kv;
    const float* bias = (key < 0     ? a.q_bias + head * head_dim
                         : value < 0 ? a.k_bias + key * head_dim
                                     : a.v_bias + value * head_dim) +
                        column;
    SDAR_UNROLL
    for (int i = 0; i < 2 * kEach; i++)
      x[i / kEach][i % kEach] += load_global_cached<float>(bias + i / kEach * kHalf + i % kEach);
  }

  if (head < a.heads + a.pages.kv_heads) {
    float sum = 0;
    SDAR_UNROLL
    for (int i = 0; i < 2 * kEach; i++) sum = fused(x[i / kEach][i % kEach], x[i / kEach][i % kEach], sum);
    const float scale = norm_factor(warp_sum(sum) / head_dim, a.eps);
    const float* norm = (head < a.heads ? a.q_norm : a.k_norm) + column;
    const float* rotation = a.rotations + (int64_t{position} * kHalf + column) * 2;
    SDAR_UNROLL
    for (int i = 0; i < kEach; i++) {
      const Floats2 cos_sin = load_global_cached<Floats2>(rotation + 2 * i);
      const float low = x[0][i] * scale * load_global_cached<float>(norm + i);
      const float high = x[1][i] * scale * load_global_cached<float>(norm + kHalf + i);
      x[0][i] = low * cos_sin.f[0] - high * cos_sin.f[1];
      x[1][i] = high * cos_sin.f[0] + low * cos_sin.f[1];
    }
  }

  uint16_t* to;
  if (head < a.heads) {
    to = a.q + (int64_t{row} * a.heads + head) * head_dim;
  } else {
    const int index = head - a.heads, per_page = tokens_per_page(load_global_cached<int32_t>(&segment->block_length));
    const int page = load_global_cached<int32_t>(a.tables.page_ids + load_global_cached<int32_t>(&segment->pages) +
                                                 position / per_page);
    const bool value = index >= a.pages.kv_heads;
    to = a.pages.data + a.pages.slots(page, a.layer, value, index % a.pages.kv_heads) + position % per_page * head_dim;
  }
  SDAR_UNROLL
  for (int half = 0; half < 2; half++) {
    if constexpr (kEach == 2) {
      store_global<uint32_t>(to + half * kHalf + column, pack_bf16(x[half][0], x[half][1]));
    } else {
      store_global<uint16_t>(to + half * kHalf + column, float_to_bf16(x[half][0]));
    }
  }
}

template <int head_dim>
void launch_dim(Stream stream, const RopeParams& args) {
  const int work = args.rows * (args.heads + 2 * args.pages.kv_heads);
  const LaunchShape shape{.grid_x = ceil_div(work, kWarps), .threads = kThreads, .stream = stream};
  SDAR_LAUNCH(shape, rope_kernel<head_dim>, args);
}

}  // namespace

void rope(Stream stream, const RopeParams& args) {
  if (args.rows == 0) return;
  args.pages.head_dim == 128 ? launch_dim<128>(stream, args) : launch_dim<64>(stream, args);
}

}  // namespace sdar::cuda
