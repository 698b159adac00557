// What the tests of the SIMT executor share: how a fault is expected, and one kernel.
#pragma once
#include <algorithm>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cuda/kernels/device.cuh"
#include "check.h"
#include "simt/executor.h"
#include "simt/memory.h"
#include "util/error.h"

namespace sdar::cuda {

using cuda_host::Buffer;
using cuda_host::each_order;

constexpr int kThreads = 128;

/// `launch` throws an Error of one of these codes whose message holds `part`.
inline void check_fault(std::initializer_list<std::string> codes, const char* part,
                        const std::function<void()>& launch) {
  try {
    launch();
    check::fail(__FILE__, __LINE__, *codes.begin() + " was not found: " + part);
  } catch (const Error& e) {
    if (std::find(codes.begin(), codes.end(), e.code()) == codes.end() || !std::strstr(e.what(), part))
      check::fail(__FILE__, __LINE__, "expected " + *codes.begin() + ", " + part + ": " + e.code() + " " + e.what());
  }
}

inline std::vector<float> ramp(int n) {
  std::vector<float> v(n);
  std::iota(v.begin(), v.end(), 0.0f);
  return v;
}

/// y[i] = x[n − 1 − i] by way of shared memory.
template <bool barrier, bool all_write>
SDAR_KERNEL(kThreads, 4, reverse, const float* x, float* y) {
  const int i = thread_index(), n = block_threads();
  const auto s = shared_memory<float>(0);
  if (all_write || i % 32 != 5) store_shared<float>(s + i, load_global<float>(x + i));
  if (barrier) sync_block();
  store_global<float>(y + i, load_shared<float>(s + (n - 1 - i)));
}
template <bool barrier, bool all_write>
void reverse(const float* x, float* y) {
  SDAR_LAUNCH((LaunchShape{.threads = kThreads, .shared_bytes = kThreads * 4}), reverse_kernel<barrier, all_write>, x,
              y);
}

}  // namespace sdar::cuda
