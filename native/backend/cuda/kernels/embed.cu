// x = table[ids]: one thread widens 8 values of one row, those that lie side by side in a weight tile.
//
// In int8 a row is 8 of every 16 bytes, which are read whole. Limited by launch time below some 64 rows of 2560 (1 MB).
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/layout.h"
#include "backend/cuda/kernels/rowwise.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 8;
SDAR_HOST_DEVICE constexpr int threads_per_row(int hidden) {
  return ceil_div(hidden, kSliceK) * (kSliceK / kPerThread);
}

template <WeightFormat format>
SDAR_KERNEL(kThreads, 8, embed, EmbedParams a) {
  const int hidden = a.table.cols, vectors = threads_per_row(hidden);
  const int64_t vector = int64_t{block_index_x()} * kThreads + thread_index();
  if (!in_range(vector, int64_t{a.rows} * vectors)) return;
  const int row = static_cast<int>(vector / vectors);
  const int column = static_cast<int>(vector % vectors) * kPerThread;
  const int id = load_global_cached<int32_t>(a.ids + row), line = id % kTileRows;
  const uint8_t* tile = a.table.data + (int64_t{id / kTileRows} * a.table.k_tiles() + column / weight_tile_k(format)) *
                                           weight_tile_bytes(format);
  const int in_tile = column % weight_tile_k(format), lane = line % 8 * 4 + in_tile % kSliceK / 8;
  float* to = a.x + int64_t{row} * hidden;
  if constexpr (format == WeightFormat::bf16) {
    if (!in_range(column / kPerThread, hidden / kPerThread)) return;
    const Words4 pairs = load_global_stream<Words4>(tile + in_tile / kSliceK * 1024 + line / 8 * 512 + lane * 16);
    SDAR_UNROLL
    for (int i = 0; i < 4; i += 2) {
      store_global<Floats4>(to + column + 2 * i, {{low_bf16(pairs.w[i]), high_bf16(pairs.w[i]),
                                                   low_bf16(pairs.w[i + 1]), high_bf16(pairs.w[i + 1])}});
    }
  } else {
    const Words4 both = load_global_stream<Words4>(tile + in_tile / kSliceK * 512 + lane * 16);  // lines g and g + 8
    const float scale = load_global_cached<float>(tile + weight_tile_data_bytes(format) + line * 4);
    const int first = column - in_tile % kSliceK + lane % 4 * 2;
    SDAR_UNROLL
    for (int i = 0; i < 4; i++) {
      if (!in_range((first + i * 8) / 2, hidden / 2)) continue;
      const uint32_t bytes = (line < 8 ? both.w[i / 2] : both.w[2 + i / 2]) >> i % 2 * 8;
      store_global<Floats2>(to + first + i * 8, {{static_cast<float>(static_cast<int8_t>(bytes)) * scale,
                                                  static_cast<float>(static_cast<int8_t>(bytes >> 16)) * scale}});
    }
  }
}

}  // namespace

void embed(Stream stream, const EmbedParams& args) {
  const int64_t vectors = int64_t{args.rows} * threads_per_row(args.table.cols);
  if (vectors == 0) return;
  const LaunchShape shape{
      .grid_x = static_cast<int>((vectors + kThreads - 1) / kThreads), .threads = kThreads, .stream = stream};
  if (args.table.format == WeightFormat::int8) {
    SDAR_LAUNCH(shape, embed_kernel<WeightFormat::int8>, args);
  } else {
    SDAR_LAUNCH(shape, embed_kernel<WeightFormat::bf16>, args);
  }
}

}  // namespace sdar::cuda
