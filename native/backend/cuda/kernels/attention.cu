// Block attention over paged keys and values: each warp takes 16 query rows (positions × heads of a KV group) and walks
// over pages of 64 slots, which the warps of a block share; Q·Kᵀ and P·V by mma.m16n8k16, softmax in registers.
//
// Bytes of an item (as code: cost.h): 4 · head_dim per filled slot of its pages for keys and values, read once per
// block; q and output 4 · head_dim per query row; with partial results 16 · 4 · (head_dim + 2) per chunk.
// mma of an item: warps · pages · head_dim (half for Q·Kᵀ, half for P·V).
// Share of peak, narrow (one block of 4 tokens, 4 heads per KV head: the 16 rows are full): a page of head_dim 128 is
// 32 KB and costs its warp 128 mma, 64 ldmatrix and some 700 other instructions, about 1800 clocks: 18 bytes a clock,
// two warps per SM give 36 where A100's HBM brings 10 and H100's 15; a page is in flight while one is computed, 64 KB
// per SM where 15 are needed: 80 % of bandwidth once there are two items per SM.
// Wide: 64 rows share each page: 128 mma of 8 clocks (A100) per warp and page against the same 700 instructions on four
// schedulers: 45 % of tensor peak; prefill attention is a tenth of the prefill of 4B at 4096 tokens.
// Occupancy: attention<128, 1>: 32 threads, 73728 shared, 2 blocks on sm_80, 1 on sm_86, 3 on sm_90
// Occupancy: attention<128, 4>: 128 threads, 98304 shared, 1 block on sm_80, 1 on sm_86, 2 on sm_90
// Occupancy: attention<64, 1>: 32 threads, 36864 shared, 4 blocks on sm_80, 2 on sm_86, 6 on sm_90
// Occupancy: attention<64, 4>: 128 threads, 49152 shared, 2 blocks on sm_80, 2 on sm_86, 2 on sm_90
#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/attention_state.cuh"
#include "backend/cuda/kernels/computed_here.cuh"
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/layout.h"

namespace sdar::cuda {
namespace {

constexpr int kStages = 2;
constexpr int kRowTiles = kPageSlots / 8;  // of 8 keys

template <int head_dim, int warps>
struct Attend {
  static constexpr int kPieces = head_dim / 8;   // of 16 bytes in a key or value
  static constexpr int kColumns = head_dim / 8;  // tiles of 8 output columns
  static constexpr int kVectorBytes = head_dim * 2, kTileBytes = kPageSlots * kVectorBytes;
  static constexpr int kStageBytes = 2 * kTileBytes;  // keys, values
  static constexpr int kTotals = kStages * kStageBytes, kTotalBytes = kColumns * 4 * kWarp * 4;
  static constexpr int kSharedBytes = kTotals + warps * kTotalBytes;

  /// Of the two rows g and g + 8 of this lane: relative to `max`, Σ of the weights of its own columns of keys, and
  /// Σ weight · value for columns 8c + 2t, + 1.
  struct State {
    float max[2], sum[2], out[kColumns][4];
  };
  SDAR_DEVICE static void clear(State& s) {
    s.max[0] = s.max[1] = kNoKeys;
    s.sum[0] = s.sum[1] = 0;
    SDAR_UNROLL
    for (int i = 0; i < kColumns * 4; i++) s.out[i / 4][i % 4] = 0;
  }

  /// 16 bytes `piece` of a slot lie at piece ^ (slot & 7): the 8 rows of an ldmatrix fall into different banks.
  SDAR_DEVICE static int place(int slot, int piece) { return slot * kVectorBytes + (piece ^ (slot & 7)) * 16; }

  /// Asks for the first `valid` slots of a page; the others become zeros, whatever lies in them.
  SDAR_DEVICE static void load_page(const uint16_t* keys, const uint16_t* values, int stage, int valid) {
    const Shared<uint8_t> to = shared_memory<uint8_t>(stage * kStageBytes);
    for (int i = computed_here(thread_index()); i < kPageSlots * kPieces; i += warps * kWarp) {
      const int slot = i / kPieces, at = place(slot, i % kPieces);
      const bool exists = in_range(slot, valid);
      cp_async_16(to + at, keys + i * 8, exists);
      cp_async_16(to + (kTileBytes + at), values + i * 8, exists);
    }
  }

  /// scores[tile of keys]: q · key, unscaled.
  SDAR_DEVICE static void multiply_keys(int stage, const uint32_t (&q)[head_dim / 16][4],
                                        float (&scores)[kRowTiles][4]) {
    const Shared<uint8_t> keys = shared_memory<uint8_t>(stage * kStageBytes);
    const int lane = computed_here(lane_index());
    SDAR_UNROLL
    for (int tile = 0; tile < kRowTiles; tile++) {
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) scores[tile][i] = 0;
      SDAR_UNROLL
      for (int k = 0; k < head_dim / 32; k++) {
        uint32_t r[4];
        ldmatrix_x4(r, keys + (tile * 8 * kVectorBytes + place(lane % 8, k * 4 + lane / 8)));
        const uint32_t first[2] = {r[0], r[1]}, second[2] = {r[2], r[3]};
        mma_m16n8k16_bf16(scores[tile], q[2 * k], first);
        mma_m16n8k16_bf16(scores[tile], q[2 * k + 1], second);
      }
    }
  }

  /// Hides the keys from slot visible[row] on.
  SDAR_DEVICE static void mask(const int (&visible)[2], float (&scores)[kRowTiles][4]) {
    SDAR_UNROLL
    for (int tile = 0; tile < kRowTiles; tile++) {
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) {
        const int slot = tile * 8 + lane_index() % 4 * 2 + i % 2;
        if (!in_range(slot, visible[i / 2])) scores[tile][i] = kNoKeys;
      }
    }
  }

  /// Takes a page's scores into the state's max and sum; weights: bf16 pairs of rows g and g + 8. Scores that are all
  /// hidden change no bit of the state.
  SDAR_DEVICE static void soften(const float (&scores)[kRowTiles][4], State& s, uint32_t (&weights)[kRowTiles][2]) {
    SDAR_UNROLL
    for (int row = 0; row < 2; row++) {
      float max = s.max[row];
      SDAR_UNROLL
      for (int tile = 0; tile < kRowTiles; tile++) {
        max = maximum(max, maximum(scores[tile][2 * row], scores[tile][2 * row + 1]));
      }
      SDAR_UNROLL
      for (int distance = 1; distance <= 2; distance *= 2) {  // the four lanes of a row
        max = maximum(max, shuffle_xor(kFullMask, max, distance));
      }
      const float base = max == kNoKeys ? 0.0f : max;
      const float factor = exp2_fast((s.max[row] - base) * kLog2Scale<head_dim>);
      float sum = s.sum[row] * factor;
      SDAR_UNROLL
      for (int tile = 0; tile < kRowTiles; tile++) {
        const uint32_t pair = pack_bf16(exp2_fast((scores[tile][2 * row] - base) * kLog2Scale<head_dim>),
                                        exp2_fast((scores[tile][2 * row + 1] - base) * kLog2Scale<head_dim>));
        sum += low_bf16(pair) + high_bf16(pair);
        weights[tile][row] = pair;
      }
      s.max[row] = max;
      s.sum[row] = sum;
      SDAR_UNROLL
      for (int c = 0; c < kColumns; c++) s.out[c][2 * row] *= factor, s.out[c][2 * row + 1] *= factor;
    }
  }

  SDAR_DEVICE static void multiply_values(int stage, const uint32_t (&weights)[kRowTiles][2], State& s) {
    const Shared<uint8_t> values = shared_memory<uint8_t>(stage * kStageBytes + kTileBytes);
    const int lane = computed_here(lane_index());
    SDAR_UNROLL
    for (int k = 0; k < kPageSlots / 16; k++) {
      const uint32_t a[4] = {weights[2 * k][0], weights[2 * k][1], weights[2 * k + 1][0], weights[2 * k + 1][1]};
      SDAR_UNROLL
      for (int c = 0; c < kColumns; c += 2) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, values + (k * 16 * kVectorBytes + place(lane % 16, c + lane / 16)));
        const uint32_t left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
        mma_m16n8k16_bf16(s.out[c], a, left);
        mma_m16n8k16_bf16(s.out[c + 1], a, right);
      }
    }
  }

  /// The sums of a row over the four lanes that share its keys.
  SDAR_DEVICE static void share_sums(State& s) {
    SDAR_UNROLL
    for (int row = 0; row < 2; row++) {
      SDAR_UNROLL
      for (int distance = 1; distance <= 2; distance *= 2) s.sum[row] += shuffle_xor(kFullMask, s.sum[row], distance);
    }
  }

  /// The place in shared memory of value i of this lane's total.
  SDAR_DEVICE static Shared<float> total(int i) {
    return shared_memory<float>(kTotals + warp_index() * kTotalBytes + (i * kWarp + lane_index()) * 4);
  }
  /// Merges a chunk into the totals.
  SDAR_DEVICE static void merge(const State& s, float (&max)[2], float (&sum)[2]) {
    SDAR_UNROLL
    for (int row = 0; row < 2; row++) {
      if (s.max[row] == kNoKeys) continue;
      const MergeFactors f = merge_max<head_dim>(max[row], s.max[row]);
      sum[row] = merge_sum(f, sum[row], s.sum[row]);
      SDAR_UNROLL
      for (int c = 0; c < kColumns; c++) {
        SDAR_UNROLL
        for (int i = 2 * row; i < 2 * row + 2; i++) {
          const Shared<float> at = total(c * 4 + i);
          store_shared<float>(at, merge_sum(f, load_shared<float>(at), s.out[c][i]));
        }
      }
    }
  }
};

template <int head_dim, int warps>
SDAR_KERNEL((warps * kWarp), warps == 1 ? 2 : 1, attention, AttentionParams a) {
  let_next_begin();
  using A = Attend<head_dim, warps>;
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
  const auto ask = [&](int page) {
    const int id = load_global_cached<int32_t>(page_ids + page);
    A::load_page(a.pages.data + a.pages.slots(id, a.layer, false, kv_head),
                 a.pages.data + a.pages.slots(id, a.layer, true, kv_head), page % kStages,
                 end - page * per_page < per_page ? end - page * per_page : per_page);
  };
  ask(page_begin);
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
    if (in_range(page + 1, page_end)) ask(page + 1);
    cp_async_commit();
    const int begin = page * per_page, stage = page % kStages;
    float scores[kRowTiles][4];
    A::multiply_keys(stage, q, scores);
    if (all_see - begin < kPageSlots || per_page < kPageSlots) {
      const int slots[2] = {visible[0] - begin < per_page ? visible[0] - begin : per_page,
                            visible[1] - begin < per_page ? visible[1] - begin : per_page};
      A::mask(slots, scores);
    }
    uint32_t weights[kRowTiles][2];
    A::soften(scores, state, weights);
    A::multiply_values(stage, weights, state);
    if (partial < 0 && (page + 1 == page_end || (page + 1) % kChunkPages == 0)) {
      A::share_sums(state);
      A::merge(state, max, sum);
      A::clear(state);
    }
  }

  const int lane = computed_here(lane_index());
  if (partial >= 0) {
    A::share_sums(state);
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
                          .shared_bytes = Attend<head_dim, warps>::kSharedBytes,
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
