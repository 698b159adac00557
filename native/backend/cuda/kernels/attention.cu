// Block attention over paged keys and values: each warp takes 16 query rows (positions × heads of a KV group) and walks
// over pages of 64 slots, which the warps of a block share; Q·Kᵀ and P·V by mma.m16n8k16, online softmax in registers.
//
// Share of peak, narrow (one block of 4 tokens, 4 heads per KV head: the 16 rows are full): a page of head_dim 128 is
// 32 KB and costs its warp 128 mma, 64 ldmatrix and some 700 other instructions, about 1800 clocks: 18 bytes a clock,
// two warps per SM give 36 where A100's HBM brings 10 and H100's 15; a page is in flight while one is computed, 64 KB
// per SM where 15 are needed: 80 % of bandwidth once there are two items per SM.
// Wide: 64 rows share each page: 128 mma of 8 clocks (A100) per warp and page against the same 700 instructions on four
// schedulers: 45 % of tensor peak; prefill attention is a tenth of the prefill of 4B at 4096 tokens.
#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/attention_tile.cuh"
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/layout.h"

namespace sdar::cuda {
namespace {

template <int head_dim, int warps>
SDAR_KERNEL((warps * kWarp), warps == 1 ? 2 : 1, attention, AttentionParams a) {
  pdl_trigger();
  using A = AttentionTile<head_dim, warps>;
  const AttentionItem* item = a.items + block_index_x();
  const int kv_head = block_index_y(), group = a.heads / a.pages.kv_heads;
  const int segment_index = load_global_cached<int32_t>(&item->segment);
  if (!guard(segment_index >= 0)) return;  // padding of a replayed graph
  const DeviceSegment* segment = a.tables.segments + segment_index;
  const int first_row = load_global_cached<int32_t>(&segment->row), rows = load_global_cached<int32_t>(&segment->rows);
  const int position = load_global_cached<int32_t>(&segment->position);
  const int block_length = load_global_cached<int32_t>(&segment->block_length);
  const int32_t* page_ids = a.tables.page_ids + load_global_cached<int32_t>(&segment->pages);
  const int first = load_global_cached<int32_t>(&item->first), queries = rows * group;
  const int partial = load_global_cached<int32_t>(&item->partial);
  const int per_page = tokens_per_page(block_length), end = position + rows;

  // the last query row of the block says how far the pages go
  const int last = first + warps * kFragmentRows <= queries ? first + warps * kFragmentRows - 1 : queries - 1;
  const int page_begin = load_global_cached<int32_t>(&item->chunk) * kChunkPages;
  const int all_pages = ceil_div(visible_end(position + last / group, block_length), per_page);
  const int chunks_end = load_global_cached<int32_t>(&item->chunk_end) * kChunkPages;
  const int page_end = chunks_end < all_pages ? chunks_end : all_pages;
  const auto issue = [&](int page) {
    const int id = load_global_cached<int32_t>(page_ids + page);
    A::load_page(a.pages.data + a.pages.slots(id, a.layer, false, kv_head),
                 a.pages.data + a.pages.slots(id, a.layer, true, kv_head), page % A::kStages,
                 end - page * per_page < per_page ? end - page * per_page : per_page);
  };
  issue(page_begin);
  cp_async_commit();

  const int own = first + warp_index() * kFragmentRows;  // first query row of this warp
  uint32_t q[head_dim / 16][4];
  int visible[2];
  int64_t output[2];  // row of q and column of the output, in heads
  SDAR_UNROLL
  for (int row = 0; row < 2; row++) {
    const int query = own + lane_index() / 4 + row * 8;
    const bool exists = in_range(query, queries);
    visible[row] = visible_end(position + query / group, block_length);
    output[row] = int64_t{first_row + query / group} * a.heads + kv_head * group + query % group;
    const uint16_t* from = a.q + output[row] * head_dim + lane_index() % 4 * 2;
    SDAR_UNROLL
    for (int k = 0; k < head_dim / 16; k++) {
      q[k][row] = exists ? load_global<uint32_t>(from + k * 16) : 0;
      q[k][row + 2] = exists ? load_global<uint32_t>(from + k * 16 + 8) : 0;
    }
  }
  const int all_see = visible_end(position + own / group, block_length);  // what the warp's first row sees, all see

  typename A::State state;
  A::clear(state);
  float max[2] = {kNoKeys, kNoKeys}, sum[2] = {0, 0};
  SDAR_UNROLL
  for (int i = 0; i < A::kColumns * 4; i++) store_shared<float>(A::total(i), 0);
  for (int page = page_begin; page < page_end; page++) {
    cp_async_wait<0>();
    sync_block();  // the page is here for all; the one before it has been used by all
    if (in_range(page + 1, page_end)) issue(page + 1);
    cp_async_commit();
    const int begin = page * per_page, stage = page % A::kStages;
    float scores[A::kRowTiles][4];
    A::multiply_keys(stage, q, scores);
    if (all_see - begin < kPageSlots || per_page < kPageSlots) {
      const int slots[2] = {visible[0] - begin < per_page ? visible[0] - begin : per_page,
                            visible[1] - begin < per_page ? visible[1] - begin : per_page};
      A::mask(slots, scores);
    }
    uint32_t weights[A::kRowTiles][2];
    A::update_softmax(scores, state, weights);
    A::multiply_values(stage, weights, state);
    if (partial < 0 && (page + 1 == page_end || (page + 1) % kChunkPages == 0)) {
      A::reduce_sums(state);
      A::merge(state, max, sum);
      A::clear(state);
    }
  }

  const int lane = opaque(lane_index());
  if (partial >= 0) {
    A::reduce_sums(state);
    float* place = a.partials + (int64_t{partial} * a.pages.kv_heads + kv_head) * attention_partial_floats(head_dim);
    SDAR_UNROLL
    for (int row = 0; row < 2; row++) {
      const int r = lane / 4 + row * 8;
      SDAR_UNROLL
      for (int c = 0; c < A::kColumns; c++) {
        const Floats2 pair = {{state.out[c][2 * row], state.out[c][2 * row + 1]}};
        store_global<Floats2>(place + r * head_dim + c * 8 + lane % 4 * 2, pair);
      }
      if (lane % 4 == 0) {
        const Floats2 pair = {{state.max[row], state.sum[row]}};
        store_global<Floats2>(place + kFragmentRows * head_dim + r * 2, pair);
      }
    }
    return;
  }
  const int columns = padded_k(a.heads * head_dim);
  SDAR_UNROLL
  for (int row = 0; row < 2; row++) {
    if (!in_range(own + lane / 4 + row * 8, queries)) continue;
    const float scale = reciprocal(sum[row]);
    const int token = static_cast<int>(output[row] / a.heads), head = static_cast<int>(output[row] % a.heads);
    SDAR_UNROLL
    for (int c = 0; c < A::kColumns; c++) {
      const int column = head * head_dim + c * 8 + lane % 4 * 2;
      store_global<uint32_t>(a.tiles + activation_index(token, column, columns),
                             pack_bf16(load_shared<float>(A::total(c * 4 + 2 * row)) * scale,
                                       load_shared<float>(A::total(c * 4 + 2 * row + 1)) * scale));
    }
  }
}

template <int head_dim, int warps>
void launch_items(Stream stream, const AttentionParams& args) {
  const LaunchShape shape{.grid_x = args.item_count,
                          .grid_y = args.pages.kv_heads,
                          .threads = warps * kWarp,
                          .shared_bytes = AttentionTile<head_dim, warps>::kSharedBytes,
                          .stream = stream};
  SDAR_LAUNCH(shape, (attention_kernel<head_dim, warps>), args);
}

}  // namespace

void attention_narrow(Stream stream, const AttentionParams& args) {
  if (args.item_count == 0) return;
  args.pages.head_dim == 128 ? launch_items<128, 1>(stream, args) : launch_items<64, 1>(stream, args);
}

void attention_wide(Stream stream, const AttentionParams& args) {
  if (args.item_count == 0) return;
  args.pages.head_dim == 128 ? launch_items<128, 4>(stream, args) : launch_items<64, 4>(stream, args);
}

}  // namespace sdar::cuda
