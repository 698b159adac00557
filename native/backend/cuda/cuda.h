// Entry of the CUDA backend. Its kernels lie in a library of their own, libsdar_cuda, which is opened when something
// here is first called: from where SDAR_CUDA_LIBRARY says, else beside the file that holds this code (the addon).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace sdar::cuda {

struct DeviceInfo {
  std::string name;
  std::string capability;   ///< "9.0"
  int64_t memory = 0;       ///< bytes
  std::string unavailable;  ///< why it cannot be used; empty: it can
};

/// What this machine has.
struct Probe {
  std::string library;          ///< the file that was opened, or none
  std::string driver, runtime;  ///< versions of CUDA: what the driver knows, what the library was made with
  std::vector<DeviceInfo> devices;
  std::string unavailable;  ///< why no GPU can be used, and what to do about it; empty: one can
  int32_t first = -1;       ///< the first GPU that can be used
};
Probe probe();

/// What of a model this backend cannot run, as "heads of 80 columns; allowed: 64, 128"; empty when it can.
std::string unsupported(const ModelShape& shape, WeightFormat weights, KvFormat kv);

struct Options {
  int32_t device = -1;  ///< −1: the first that can be used
  int threads = 0;      ///< that pack weights; 0: up to 16
  // Opt-in until bench/gpu has shown them right and faster; SDAR_CUDA_WARPGROUP_MMA=1 and SDAR_CUDA_PDL=1 do the same.
  bool warpgroup_mma = false;     ///< GEMMs by wgmma on sm_90
  bool wide_experts = false;      ///< an expert's weights are read once for 64 of its rows
  bool dependent_launch = false;  ///< programmatic dependent launches from sm_90 on
};
/// Throws Error: UNSUPPORTED_DEVICE saying exactly what is missing; OUT_OF_MEMORY, DEVICE_FAILED.
std::unique_ptr<Backend> make_backend(const Options& options);

}  // namespace sdar::cuda
