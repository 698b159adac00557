// x = table[ids]: one thread widens 8 values of one row.
// Bytes: rows · hidden · (2 read + 4 written), and 4 per thread for its id; limited by launch time below some 64 rows
// of 2560 (1 MB), by memory above. 18 registers, no shared memory: full occupancy.
#include "backend/cuda/device.cuh"
#include "backend/cuda/embed.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 8;

SDAR_KERNEL(kThreads, 8, embed, const uint16_t* table, const int32_t* ids, float* x, int rows, int hidden) {
  const int pieces = hidden / kPerThread;
  const int64_t piece = int64_t{block_index_x()} * kThreads + thread_index();
  if (!in_range(piece, int64_t{rows} * pieces)) return;
  const int row = static_cast<int>(piece / pieces);
  const int column = static_cast<int>(piece % pieces) * kPerThread;
  const int64_t id = load_global_cached<int32_t>(ids + row);
  const Words4 pairs = load_global_stream<Words4>(table + id * hidden + column);
  float* to = x + int64_t{row} * hidden + column;
  SDAR_UNROLL
  for (int i = 0; i < 4; i += 2) {
    const Floats4 wide = {
        {low_bf16(pairs.w[i]), high_bf16(pairs.w[i]), low_bf16(pairs.w[i + 1]), high_bf16(pairs.w[i + 1])}};
    store_global<Floats4>(to + 2 * i, wide);
  }
}

}  // namespace

void embed(Stream stream, const EmbedArgs& args) {
  const int64_t pieces = int64_t{args.rows} * (args.hidden / kPerThread);
  if (pieces == 0) return;
  const LaunchShape shape{
      .grid_x = static_cast<int>((pieces + kThreads - 1) / kThreads), .threads = kThreads, .stream = stream};
  SDAR_LAUNCH(shape, embed_kernel, args.table, args.ids, args.x, args.rows, args.hidden);
}

}  // namespace sdar::cuda
