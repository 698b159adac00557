// The thin layer through which kernels reach the hardware: each access is one named function. nvcc compiles it to the
// instruction; with SDAR_CUDA_HOST defined, a plain C++ compiler takes the scalar emulation of test/simt instead, which
// gives each thread a fiber and checks every access.
//
// How a kernel NAME.cu is written (embed.cu is the example, test/native/cuda_embed_test.cc its oracle test):
//   #include "backend/cuda/kernels/device.cuh"
//   SDAR_KERNEL(256, 2, scale, ScaleParams a) {          // at most 256 threads per block, at least 2 blocks per SM
//     const int i = block_index_x() * block_threads() + thread_index();
//     if (!in_range(i, a.n)) return;                     // no barrier after a return
//     store_global<float>(a.y + i, 2 * load_global<float>(a.x + i));
//   }
//   void scale(Stream stream, const ScaleParams& args) {  // declared in a header, listed in kernels.h
//     const LaunchShape shape{.grid_x = ceil_div(args.n, 256), .threads = 256, .stream = stream};
//     SDAR_LAUNCH(shape, scale_kernel, args);
//   }
// - Threads per block: a multiple of 32, in one dimension. A template kernel puts `template <…>` before SDAR_KERNEL.
// - Memory is touched only by these functions: a device pointer cannot be dereferenced on the host, and Shared<T> has
//   no operator*. The width of an access is that of its explicit type: load_global<Words4>(p) loads 16 bytes.
// - Shared memory is dynamic only, cut by byte offsets: shared_memory<float>(offset).
// - Every bound check is in_range(i, n), in loops too, every other mask guard(condition): scripts/mutate-cuda.mjs drops
//   each of them in turn, like each barrier, wait and fence, and a test must fail. Do not check what cannot happen.
// - Warp-wide functions (shuffles, votes, sync_warp, ldmatrix, mma) are called by all lanes of the mask together; mma
//   and ldmatrix by all 32. They order no memory, sync_warp does.
// - cp_async: commit, wait, then a barrier before another thread reads. Every group is waited for before the kernel ends.
// - Values that cross blocks: store, sync_block, then one thread calls count_arrival(counter).
// - Programmatic dependent launch: a launch with .pdl begins while the one before it runs (sm_90 on); all its threads
//   call pdl_wait() first, and may issue weights before. A kernel that such a launch follows calls pdl_trigger() at its
//   start.
// - Locals start uninitialised on the device; the host build fills them with a pattern.
// - What a block takes of an SM (threads, shared memory, blocks at once) is claimed in bench/gpu/occupancy.json, which
//   the tests and scripts/cuda-report.mjs hold it to.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/device_types.h"

#ifdef SDAR_CUDA_HOST
#include <simt/emulation.h>
#else
#include "backend/cuda/kernels/instructions.cuh"
#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/warpgroup.cuh"
#endif

namespace sdar::cuda {

SDAR_DEVICE int lane_index() { return thread_index() % kWarp; }
SDAR_DEVICE int warp_index() { return thread_index() / kWarp; }

/// x, in a way that keeps the compiler from preparing all addresses that depend on it before the main loop, where
/// registers are needed for accumulators.
SDAR_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/// Two bf16 in one word: `low` in bits 0…15.
SDAR_DEVICE float low_bf16(uint32_t pair) { return bits_to_f32(pair << 16); }
SDAR_DEVICE float high_bf16(uint32_t pair) { return bits_to_f32(pair & 0xffff0000u); }
SDAR_DEVICE float bf16_to_float(uint16_t h) { return bits_to_f32(static_cast<uint32_t>(h) << 16); }
SDAR_DEVICE float round_bf16(float x) { return bf16_to_float(float_to_bf16(x)); }

/// The nibbles at bits shift…shift+3 and shift+16…shift+19 of `q`, unsigned 0…15 with zero point 8, as bf16 q − 8
/// (exact): 0x4300 is 128 in bf16, whose last place is 1.
SDAR_DEVICE uint32_t int4_pair_to_bf16(uint32_t q, int shift) {
  const uint32_t biased = and_or(q >> shift, 0x000f000fu, 0x43004300u);
  return fma_bf16x2(biased, 0x3f803f80u, 0xc308c308u);  // · 1 − 136
}
/// Byte `index` (0…3) of `q`, unsigned with zero point 128, as f32 q − 128 (exact): 0x4b000000 is 2^23.
SDAR_DEVICE float int8_to_float(uint32_t q, int index) {
  return bits_to_f32(byte_permute(q, 0x4b000000u, 0x7540u + static_cast<uint32_t>(index))) - 8388736.0f;
}

/// RMSNorm's factor; NaN where the squares overflow: 0 would make plausible zeros of what went wrong.
SDAR_DEVICE float norm_factor(float mean_of_squares, float eps) {
  return mean_of_squares < INFINITY ? rsqrt_fast(mean_of_squares + eps) : NAN;
}

/// Sum or maximum over the lanes of a full warp, the same bits in every lane: pairs at distance 16, 8, 4, 2, 1.
SDAR_DEVICE float warp_sum(float x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x += shuffle_xor(kFullMask, x, distance);
  return x;
}
SDAR_DEVICE float warp_max(float x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float other = shuffle_xor(kFullMask, x, distance);
    x = other > x ? other : x;
  }
  return x;
}

/// Which arrival at `counter` (zero before the launch) this is: makes what this block stored before a sync_block
/// visible to whoever arrives later. By one thread; a sync_block hands what it then sees to the others.
SDAR_DEVICE uint32_t count_arrival(uint32_t* counter) {
  thread_fence();
  const uint32_t arrival = atomic_add(counter, 1u);
  thread_fence();
  return arrival;
}

}  // namespace sdar::cuda
