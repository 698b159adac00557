// x += bias: one thread adds 4 columns of one row. Only models with attention_bias launch it.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/rowwise.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 256, kPerThread = 4;

SDAR_KERNEL(kThreads, 8, add_bias, AddBiasParams a) {
  const int vectors = a.hidden / kPerThread;
  const int64_t vector = int64_t{block_index_x()} * kThreads + thread_index();
  if (!in_range(vector, int64_t{a.rows} * vectors)) return;
  float* x = a.x + vector * kPerThread;
  const Floats4 bias = load_global_cached<Floats4>(a.bias + static_cast<int>(vector % vectors) * kPerThread);
  Floats4 sum = load_global<Floats4>(x);
  SDAR_UNROLL
  for (int i = 0; i < kPerThread; i++) sum.f[i] += bias.f[i];
  store_global<Floats4>(x, sum);
}

}  // namespace

void add_bias(Stream stream, const AddBiasParams& args) {
  const int64_t vectors = int64_t{args.rows} * (args.hidden / kPerThread);
  if (vectors == 0) return;
  const LaunchShape shape{
      .grid_x = static_cast<int>((vectors + kThreads - 1) / kThreads), .threads = kThreads, .stream = stream};
  SDAR_LAUNCH(shape, add_bias_kernel, args);
}

}  // namespace sdar::cuda
