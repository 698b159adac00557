// RMSNorm of f32 rows, rounded to bf16 in the order the GEMM reads: one block per row, 8 columns per thread and pass.
// The residual has been added to x by the GEMM before (Epilogue::add).
//
// A row is read again from L1. Limited by launch time at 64 tokens, by memory (90 % of bandwidth) from some 1000 tokens
// on.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/rowwise.h"

namespace sdar::cuda {
namespace {

constexpr int kThreads = 256, kPerThread = 8;

SDAR_KERNEL(kThreads, 6, rms_norm, NormParams a) {
  pdl_trigger();
  const int token = block_index_x();
  const int row = a.rows ? load_global_cached<int32_t>(a.rows + token) : token;
  const float* x = a.x + int64_t{row} * a.hidden;

  float sum = 0;
  const int vectors = a.hidden / kPerThread;
  for (int vector = thread_index(); in_range(vector, vectors); vector += kThreads) {
    SDAR_UNROLL
    for (int half = 0; half < kPerThread; half += 4) {
      const Floats4 v = load_global<Floats4>(x + vector * kPerThread + half);
      SDAR_UNROLL
      for (int i = 0; i < 4; i++) sum = fused(v.f[i], v.f[i], sum);
    }
  }
  const Shared<float> sums = shared_memory<float>(0);
  sum = warp_sum(sum);
  if (lane_index() == 0) store_shared<float>(sums + warp_index(), sum);
  sync_block();
  sum = 0;
  SDAR_UNROLL
  for (int warp = 0; warp < kThreads / kWarp; warp++) sum += load_shared<float>(sums + warp);
  const float scale = norm_factor(sum / static_cast<float>(a.hidden), a.eps);

  const int padded = padded_k(a.hidden);
  for (int vector = thread_index(); in_range(vector, vectors); vector += kThreads) {
    const int k = vector * kPerThread;
    Words4 pairs;
    SDAR_UNROLL
    for (int half = 0; half < 2; half++) {
      const Floats4 v = load_global<Floats4>(x + k + half * 4), w = load_global_cached<Floats4>(a.norm + k + half * 4);
      SDAR_UNROLL
      for (int i = 0; i < 2; i++) {
        pairs.w[half * 2 + i] = pack_bf16(v.f[2 * i] * scale * w.f[2 * i], v.f[2 * i + 1] * scale * w.f[2 * i + 1]);
      }
    }
    store_global<Words4>(a.tiles + activation_index(token, k, padded), pairs);
  }
}

}  // namespace

void rms_norm(Stream stream, const NormParams& args) {
  if (args.tokens == 0) return;
  const LaunchShape shape{
      .grid_x = args.tokens, .threads = kThreads, .shared_bytes = kThreads / kWarp * 4, .stream = stream};
  SDAR_LAUNCH(shape, rms_norm_kernel, args);
}

}  // namespace sdar::cuda
