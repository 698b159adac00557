// Warpgroup MMA (wgmma), which runs on by itself: the host computes it as late as it may, at the wait, from the registers
// and the shared memory of then. Until then the accumulators hold NaN.
#pragma once
#include <cstdint>

#include "simt/sites.h"

namespace sdar::cuda_host {

/// One MMA of a warp: its 16 rows of the warpgroup's 64.
struct WarpgroupMma {
  const Site* site = nullptr;
  float* d = nullptr;  ///< [tiles][4]
  const uint32_t* a = nullptr;
  uint32_t a_issued[4] = {};
  uint64_t descriptor = 0;  ///< of the second operand
  int64_t first = 0;        ///< of it: the first token tile in shared memory
  int stride = 0, tiles = 0;
  bool accumulate = false;
};

void issue_mma(const Site& site, const WarpgroupMma& mma);
void commit_mma(const Site& site);
void wait_for_mma(const Site& site, int pending);
/// wgmma.fence: registers are in order.
void fence_registers();
/// When a thread ends: nothing is in flight, and the four warps of its group have issued as many.
void check_mma_done();

}  // namespace sdar::cuda_host
