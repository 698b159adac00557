// x = table[ids]: one thread widens 8 values of one row, those that lie side by side in a slab.
//
// Bytes (as code: cost.h): rows · hidden · (2 read + 4 written), 4 per thread for its id and, int8, for its scale. In
// int8 a row is 8 of every 16 bytes, which are read whole. Limited by launch time below some 64 rows of 2560 (1 MB).
// Occupancy: embed<bf16>: 256 threads, 0 shared, 8 blocks on sm_80, 6 on sm_86, 8 on sm_90
// Occupancy: embed<int8>: 256 threads, 0 shared, 8 blocks on sm_80, 6 on sm_86, 8 on sm_90
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/embed.h"
#include "backend/cuda/kernels/layout.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 8;
SDAR_HOST_DEVICE constexpr int threads_per_row(int hidden) {
  return ceil_div(hidden, kPieceK) * (kPieceK / kPerThread);
}

template <WeightFormat format>
SDAR_KERNEL(kThreads, 8, embed, EmbedParams a) {
  const int hidden = a.table.cols, pieces = threads_per_row(hidden);
  const int64_t piece = int64_t{block_index_x()} * kThreads + thread_index();
  if (!in_range(piece, int64_t{a.rows} * pieces)) return;
  const int row = static_cast<int>(piece / pieces);
  const int column = static_cast<int>(piece % pieces) * kPerThread;
  const int id = load_global_cached<int32_t>(a.ids + row), line = id % kTileRows;
  const uint8_t* slab =
      a.table.data + (int64_t{id / kTileRows} * a.table.slabs() + column / slab_k(format)) * slab_bytes(format);
  const int in_slab = column % slab_k(format), lane = line % 8 * 4 + in_slab % kPieceK / 8;
  float* to = a.x + int64_t{row} * hidden;
  if constexpr (format == WeightFormat::bf16) {
    if (!in_range(column / kPerThread, hidden / kPerThread)) return;
    const Words4 pairs = load_global_stream<Words4>(slab + in_slab / kPieceK * 1024 + line / 8 * 512 + lane * 16);
    SDAR_UNROLL
    for (int i = 0; i < 4; i += 2) {
      store_global<Floats4>(to + column + 2 * i, {{low_bf16(pairs.w[i]), high_bf16(pairs.w[i]),
                                                   low_bf16(pairs.w[i + 1]), high_bf16(pairs.w[i + 1])}});
    }
  } else {
    const Words4 both = load_global_stream<Words4>(slab + in_slab / kPieceK * 512 + lane * 16);  // lines g and g + 8
    const float scale = load_global_cached<float>(slab + slab_data_bytes(format) + line * 4);
    const int first = column - in_slab % kPieceK + lane % 4 * 2;
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
  const int64_t pieces = int64_t{args.rows} * threads_per_row(args.table.cols);
  if (pieces == 0) return;
  const LaunchShape shape{
      .grid_x = static_cast<int>((pieces + kThreads - 1) / kThreads), .threads = kThreads, .stream = stream};
  if (args.table.format == WeightFormat::int8) {
    SDAR_LAUNCH(shape, embed_kernel<WeightFormat::int8>, args);
  } else {
    SDAR_LAUNCH(shape, embed_kernel<WeightFormat::bf16>, args);
  }
}

}  // namespace sdar::cuda
