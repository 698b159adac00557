// Plain types of the device layer, without CUDA's headers.
#pragma once
#include <cstdint>

#include "util/host_device.h"

struct CUstream_st;

namespace sdar::cuda {

/// The queue that kernels are launched into: cudaStream_t is a pointer to this struct.
using Stream = CUstream_st*;

/// Carriers for 8- and 16-byte accesses.
struct alignas(8) Words2 {
  uint32_t w[2];
};
struct alignas(16) Words4 {
  uint32_t w[4];
};
struct alignas(8) Floats2 {
  float f[2];
};
struct alignas(16) Floats4 {
  float f[4];
};

inline constexpr uint32_t kFullMask = 0xffffffffu;
inline constexpr int kWarp = 32;

/// Tokens in shared memory as wgmma's second operand: tiles of 8 tokens, [8][32] bf16 whose 16-byte parts are swapped
/// as in 64-byte swizzling (part ^ row / 2), each 512-byte aligned. `first`: the address of a tile's 512 bytes, or 32
/// bytes on for its second 16 k; the next tile lies `stride` bytes on. Source: PTX ISA, "Matrix Descriptor Format".
SDAR_HOST_DEVICE constexpr uint64_t token_descriptor(uint32_t first, int stride) {
  constexpr uint64_t kSwizzle64 = 2, kUnused = 1;
  return kSwizzle64 << 62 | static_cast<uint64_t>((stride & 0x3ffff) >> 4) << 32 | kUnused << 16 |
         (first & 0x3ffffu) >> 4;
}

struct LaunchShape {
  int grid_x = 1, grid_y = 1, grid_z = 1;
  int threads = 32;      ///< per block
  int shared_bytes = 0;  ///< dynamic shared memory per block
  Stream stream = nullptr;
  /// Programmatic dependent launch: it may begin while the launch before it runs, where the device can. Every thread
  /// calls pdl_wait, and before that touches no memory but what no launch writes.
  bool pdl = false;
};

}  // namespace sdar::cuda
