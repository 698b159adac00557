// Plain types of the device layer.
#pragma once
#include <cstdint>

#include "backend/cuda/stream.h"

namespace sdar::cuda {

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

struct LaunchShape {
  int grid_x = 1, grid_y = 1, grid_z = 1;
  int threads = 32;      ///< per block
  int shared_bytes = 0;  ///< dynamic shared memory per block
  Stream stream = nullptr;
  /// It may begin while the launch before it runs, where the card can: every thread calls wait_for_launches, and
  /// before that touches no memory but what no launch writes.
  bool early = false;
};

}  // namespace sdar::cuda
