#include "backend/cuda/kernels/device.cuh"
#include "card_limits.h"

namespace sdar::cuda {

constexpr int kTurns = 4;
constexpr uint32_t kOnes = 0x3f803f80u;  // two bf16
constexpr int kLimitThreads = 256;
static_assert(gpu_bench::kMmaWarps * kWarp == 256);

SDAR_KERNEL(kLimitThreads, 4, copy_memory, const Words4* from, Words4* to) {
  const int64_t first = int64_t{block_index_x()} * kLimitThreads * kTurns + thread_index();
  Words4 v[kTurns];
  SDAR_UNROLL
  for (int i = 0; i < kTurns; i++) v[i] = load_global_stream<Words4>(from + first + i * kLimitThreads);
  SDAR_UNROLL
  for (int i = 0; i < kTurns; i++) store_global<Words4>(to + first + i * kLimitThreads, v[i]);
}

/// Reads; the sum keeps the loads from being dropped and is stored when it is one value of 2^32.
SDAR_KERNEL(kLimitThreads, 4, read_memory, const Words4* from, uint32_t* out) {
  const int64_t first = int64_t{block_index_x()} * kLimitThreads * kTurns + thread_index();
  Words4 v[kTurns];
  SDAR_UNROLL
  for (int i = 0; i < kTurns; i++) v[i] = load_global_stream<Words4>(from + first + i * kLimitThreads);
  uint32_t sum = 0;
  SDAR_UNROLL
  for (int i = 0; i < kTurns; i++) sum += v[i].w[0] ^ v[i].w[1] ^ v[i].w[2] ^ v[i].w[3];
  if (sum == 0x9e3779b9u) store_global<uint32_t>(out, sum);
}

SDAR_KERNEL(256, 2, multiply_registers, float* out, int rounds) {
  float d[gpu_bench::kMmaPerRound][4] = {};
  // 1 … 2 of either sign.
  uint32_t a[4], b[2];
  SDAR_UNROLL
  for (int i = 0; i < 4; i++)
    a[i] = (static_cast<uint32_t>(thread_index() * 4 + i) * 0x9e3779b9u & 0x807f807fu) | kOnes;
  SDAR_UNROLL
  for (int i = 0; i < 2; i++)
    b[i] = (static_cast<uint32_t>(thread_index() * 2 + i) * 0x85ebca6bu & 0x807f807fu) | kOnes;
  for (int r = 0; r < rounds; r++) {
    SDAR_UNROLL
    for (int i = 0; i < gpu_bench::kMmaPerRound; i++) mma_m16n8k16_bf16(d[i], a, b);
  }
  float sum = 0;
  SDAR_UNROLL
  for (int i = 0; i < gpu_bench::kMmaPerRound; i++) sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
  store_global<float>(out + block_index_x() * block_threads() + thread_index(), sum);
}

}  // namespace sdar::cuda

namespace gpu_bench {

using namespace sdar::cuda;

namespace {
LaunchShape shape_of(int64_t bytes, Stream stream) {
  return {
      .grid_x = static_cast<int>(bytes / (16 * kLimitThreads * kTurns)), .threads = kLimitThreads, .stream = stream};
}
}  // namespace

void copy_memory(Stream stream, const void* from, void* to, int64_t bytes) {
  SDAR_LAUNCH(shape_of(bytes, stream), copy_memory_kernel, static_cast<const Words4*>(from), static_cast<Words4*>(to));
}

void read_memory(Stream stream, const void* from, uint32_t* out, int64_t bytes) {
  SDAR_LAUNCH(shape_of(bytes, stream), read_memory_kernel, static_cast<const Words4*>(from), out);
}

void multiply_registers(Stream stream, float* out, int blocks, int rounds) {
  const LaunchShape shape{.grid_x = blocks, .threads = kMmaWarps * kWarp, .stream = stream};
  SDAR_LAUNCH(shape, multiply_registers_kernel, out, rounds);
}

}  // namespace gpu_bench
