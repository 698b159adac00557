// Products of a warpgroup (wgmma), which run on by themselves: the host computes them as late as it may, at the wait,
// from the registers and the shared memory of then. Until then the sums hold NaN.
#pragma once
#include <cstdint>

#include "simt/sites.h"

namespace sdar::cuda_host {

/// One product of a warp: its 16 rows of the warpgroup's 64.
struct Product {
  const Site* site = nullptr;
  float* d = nullptr;  ///< [tiles][4]
  const uint32_t* a = nullptr;
  uint32_t a_issued[4] = {};
  uint64_t descriptor = 0;  ///< of the second operand
  int64_t first = 0;        ///< of it: the first token tile in shared memory
  int stride = 0, tiles = 0;
  bool accumulate = false;
};

void issue_product(const Site& site, const Product& product);
void commit_products(const Site& site);
void wait_for_products(const Site& site, int pending);
/// wgmma.fence: registers are in order.
void fence_registers();
/// When a thread ends: nothing is under way, and the four warps of its group have issued as many products.
void check_products_done();

}  // namespace sdar::cuda_host
