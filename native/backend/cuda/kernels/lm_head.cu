// Logits of up to 64 sampled rows per block and pass, reduced to partial results while they are in shared memory; no
// logits are stored but those asked for. The main loop and its stages are those of gemm.cu, without split-K.
//
// Share of peak: the main loop's 85 to 90 % of bandwidth. A block's reduction of 64 rows · 128 ids is some 1300
// instructions per warp, beside 16,000 of its loop over 2048 k; blocks of the same SM hide it.
// The logits reuse the stages' shared memory (34 KB at most).
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/gemm_tile.cuh"
#include "backend/cuda/kernels/lm_head.h"
#include "denoise/penalties.h"

namespace sdar::cuda {
namespace {

constexpr int kLanes = 8;                    // that share one row's tile of ids
constexpr int kEach = kLmHeadTile / kLanes;  // ids of one of them: lane j takes j, j + 8, …

/// Logits of the block in shared memory: [row][stride] f32. 2 · stride % 32 == 8: neither the fragments that are
/// written (8 ids of rows 2t) nor the reads below (8 ids of 4 rows, two apart) meet in a bank.
template <class T>
constexpr int kStride = T::kBlockRowTiles* kTileRows + 4;

template <class T>
SDAR_DEVICE void put_logits(const typename T::Accumulators& acc) {
  const Shared<float> to = shared_memory<float>(0) + (lane_index() % 4 * 2 * kStride<T> + lane_index() / 4);
  SDAR_UNROLL
  for (int r = 0; r < T::kRowTiles; r++) {
    SDAR_UNROLL
    for (int t = 0; t < T::kTokenTiles; t++) {
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) {
        const int column = (T::warp_row_tile() + r) * kTileRows + i / 2 * 8;
        const int row = (T::warp_token_tile() + t) * kTileTokens + i % 2;
        store_shared<float>(to + (row * kStride<T> + column), acc[r][t][i]);
      }
    }
  }
}

/// The logits of this lane that are of penalised ids.
SDAR_DEVICE void penalise(const SampledRows& rows, const DeviceSampledRow* sampled, int count, int first, int lane,
                          float (&logits)[kEach]) {
  const PenalisedToken* list = rows.penalised + load_global_cached<int32_t>(&sampled->penalised);
  const int offset = load_global_cached<int32_t>(&sampled->offset);
  const float repetition = load_global_cached<float>(&sampled->repetition);
  int low = 0, high = count;  // the first entry of an id of this tile
  while (low < high) {
    const int middle = (low + high) / 2;
    if (load_global_cached<int32_t>(&list[middle].id) < first) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (; low < count; low++) {
    const int id = load_global_cached<int32_t>(&list[low].id), at = id - first;
    if (at >= kLmHeadTile) break;
    if (load_global_cached<int32_t>(&list[low].from) > offset) continue;
    const bool replaced = low + 1 < count && load_global_cached<int32_t>(&list[low + 1].id) == id &&
                          load_global_cached<int32_t>(&list[low + 1].from) <= offset;
    if (replaced) continue;
    const float less = load_global_cached<float>(&list[low].less);
    SDAR_UNROLL
    for (int i = 0; i < kEach; i++) {
      if (at == i * kLanes + lane) logits[i] = penalised_logit(logits[i], repetition, less);
    }
  }
}

/// One row's tile of ids, first … first + 63; `logits` are this lane's. Lanes of a row that is none take part
/// in the shuffles.
SDAR_DEVICE void reduce(const LmHeadParams& a, int index, bool exists, int first, float (&logits)[kEach]) {
  const DeviceSampledRow* sampled = a.rows.data + index;
  const int lane = lane_index() % kLanes, vocabulary = a.weight.rows;
  const int bias = exists ? load_global_cached<int32_t>(&sampled->bias) : 0;
  const int bias_end = exists ? bias + load_global_cached<int32_t>(&sampled->bias_count) : 0;
  int low = bias, high = bias_end;  // the first bias of an id of this tile
  while (low < high) {
    const int middle = (low + high) / 2;
    if (load_global_cached<int32_t>(a.rows.bias_ids + middle) < first) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (; low < bias_end; low++) {
    const int at = load_global_cached<int32_t>(a.rows.bias_ids + low) - first;
    if (at >= kLmHeadTile) break;
    const float value = load_global_cached<float>(a.rows.bias_values + low);
    SDAR_UNROLL
    for (int i = 0; i < kEach; i++) {
      if (at == i * kLanes + lane) logits[i] += value;
    }
  }
  const int penalties = exists ? load_global_cached<int32_t>(&sampled->penalised_count) : 0;
  if (penalties > 0) penalise(a.rows, sampled, penalties, first, lane, logits);

  uint32_t suppressed = 0;  // bit i: logits[i]
  const int mask = exists ? load_global_cached<int32_t>(&sampled->mask) : -1;
  if (mask >= 0) {
    const uint64_t* words = a.rows.masks + int64_t{mask} * mask_words(vocabulary);
    const Words2 allowed = load_global_cached<Words2>(words + first / 64);
    SDAR_UNROLL
    for (int i = 0; i < kEach; i++) {
      suppressed |= (~allowed.w[i * kLanes / kWarp] >> (i * kLanes % kWarp + lane) & 1) << i;
    }
  }
  const int suppressed_begin = exists ? load_global_cached<int32_t>(&sampled->suppressed) : 0;
  const int suppressed_count = exists ? load_global_cached<int32_t>(&sampled->suppressed_count) : 0;
  for (int i = 0; i < suppressed_count; i++) {
    const int at = load_global_cached<int32_t>(a.rows.suppressed + suppressed_begin + i) - first;
    if (at >= 0 && at < kLmHeadTile && at % kLanes == lane) suppressed |= 1u << at / kLanes;
  }

  float max = -INFINITY, best = -INFINITY;
  int best_id = kNoId;
  bool finite = true;
  SDAR_UNROLL
  for (int i = 0; i < kEach; i++) {
    const int id = first + i * kLanes + lane;
    if (!in_range(id, vocabulary)) continue;
    finite = finite && absolute(logits[i]) < INFINITY;
    max = maximum(max, logits[i]);
    if (suppressed >> i & 1 || (best_id >= 0 && !(logits[i] > best))) continue;
    best = logits[i];
    best_id = id;
  }
  SDAR_UNROLL
  for (int distance = 1; distance < kLanes; distance *= 2) {
    max = maximum(max, shuffle_xor(kFullMask, max, distance));
    const float other = shuffle_xor(kFullMask, best, distance);
    const int other_id = shuffle_xor(kFullMask, best_id, distance);
    if (other_id >= 0 && (best_id < 0 || other > best || (other == best && other_id < best_id))) {
      best = other;
      best_id = other_id;
    }
    finite = shuffle_xor(kFullMask, static_cast<int>(finite), distance) && finite;
  }
  float sum = 0, weighted = 0;
  SDAR_UNROLL
  for (int i = 0; i < kEach; i++) {
    if (!in_range(first + i * kLanes + lane, vocabulary)) continue;
    const float below = logits[i] - max, weight = exp_fast(below);
    sum += weight;
    weighted = fused(weight, below, weighted);
  }
  SDAR_UNROLL
  for (int distance = 1; distance < kLanes; distance *= 2) {
    sum += shuffle_xor(kFullMask, sum, distance);
    weighted += shuffle_xor(kFullMask, weighted, distance);
  }
  if (!exists) return;
  if (lane == 0) {
    const int64_t place = int64_t{index} * lm_head_tiles(vocabulary) + first / kLmHeadTile;
    store_global<Floats4>(a.buffers.numbers + place * 4, {{max, best, sum, weighted}});
    store_global<int32_t>(a.buffers.best_ids + place, finite ? best_id : kNotFinite);
  }
  const int row = load_global_cached<int32_t>(&sampled->logits);
  if (!guard(row >= 0)) return;
  SDAR_UNROLL
  for (int i = 0; i < kEach; i++) {
    const int id = first + i * kLanes + lane;
    if (in_range(id, vocabulary)) store_global<float>(a.buffers.logits + int64_t{row} * vocabulary + id, logits[i]);
  }
}

template <WeightFormat format, int token_tiles>
SDAR_KERNEL(128, token_tiles == 8 ? 2 : 4, lm_head, LmHeadParams a) {
  using T = SmallTile<format, token_tiles>;
  const int count = load_global_cached<int32_t>(a.rows.count), k_tiles = a.weight.k_tiles();
  const GemmSource source = T::source(a.weight, a.activations, count);
  const int first_row = source.first_token_tile * kTileTokens;
  if (!in_range(first_row, count)) return;
  typename T::Accumulators acc;
  T::clear(acc);
  typename T::Pipeline pipe;
  T::start(source, 0, k_tiles, pipe);
  for (int i = 0; i < k_tiles; i++) {
    T::multiply(pipe, acc);
  }
  sync_block();  // the stages have been used
  put_logits<T>(acc);
  sync_block();

  // A warp takes 4 rows at a time, of 8 those of even or of odd number, and all their tiles of this block.
  constexpr int kTiles = T::kBlockRowTiles * kTileRows / kLmHeadTile;
  for (int four = warp_index(); four < T::kBlockTokenTiles * 2; four += T::kWarps) {
    const int row = four / 2 * 8 + four % 2 + lane_index() / kLanes * 2;
    const bool exists = in_range(first_row + row, count);
    for (int tile = 0; tile < kTiles; tile++) {
      const int first = source.first_row_tile * kTileRows + tile * kLmHeadTile;
      if (!in_range(first, a.weight.rows)) break;
      const Shared<float> from =
          shared_memory<float>(0) + (row * kStride<T> + tile * kLmHeadTile + lane_index() % kLanes);
      float logits[kEach];
      SDAR_UNROLL
      for (int i = 0; i < kEach; i++) logits[i] = load_shared<float>(from + i * kLanes);
      reduce(a, first_row + row, exists, first, logits);
    }
  }
}

template <WeightFormat format, int token_tiles>
void launch_tile(Stream stream, const LmHeadParams& args) {
  using T = SmallTile<format, token_tiles>;
  static_assert(T::kSharedBytes >= T::kBlockTokenTiles * kTileTokens * kStride<T> * 4);
  SDAR_LAUNCH(T::shape(stream, args.weight, args.rows.max_count), (lm_head_kernel<format, token_tiles>), args);
}

template <WeightFormat format>
void launch_format(Stream stream, const LmHeadParams& args) {
  const int32_t n = args.rows.max_count;
  if (n <= 8) return launch_tile<format, 1>(stream, args);
  if (n <= 32) return launch_tile<format, 4>(stream, args);
  launch_tile<format, 8>(stream, args);
}

}  // namespace

void lm_head(Stream stream, const LmHeadParams& args) {
  if (args.rows.max_count == 0) return;
  with_format(args.weight.format, [&]<WeightFormat format>() { launch_format<format>(stream, args); });
}

}  // namespace sdar::cuda
