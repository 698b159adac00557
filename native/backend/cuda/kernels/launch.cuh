// SDAR_LAUNCH as CUDA. Included by device.cuh alone.
#pragma once
#include <cuda_runtime.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "backend/cuda/kernels/device_types.h"
#include "util/error.h"

/// SDAR_LAUNCH(shape, kernel, arguments…); a template kernel is named with its arguments: NAME_kernel<4, 8>.
#define SDAR_LAUNCH(shape, ...) ::sdar::cuda::launch(shape, __VA_ARGS__)

namespace sdar::cuda {

namespace detail {
/// A programmatic dependent launch was refused: no more are tried.
inline std::atomic<bool> pdl_refused{false};

/// Whether the code of `kernel` that this device runs has pdl_wait: made for sm_90 or later. Code for sm_80 that the
/// driver translates for a newer device does not.
inline bool has_pdl_wait(const void* kernel) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, bool> known;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  const std::lock_guard lock(mutex);
  const auto [at, fresh] = known.try_emplace({kernel, device}, false);
  if (fresh) {
    cudaFuncAttributes attributes;
    at->second = cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.ptxVersion >= 90;
  }
  return at->second;
}

template <class... P>
cudaError_t launch(const LaunchShape& s, bool pdl, void (*kernel)(P...), P... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(s.grid_x, s.grid_y, s.grid_z);
  config.blockDim = dim3(s.threads);
  config.dynamicSmemBytes = static_cast<size_t>(s.shared_bytes);
  config.stream = s.stream;
  config.attrs = &attribute;
  config.numAttrs = pdl ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}
}  // namespace detail

template <class... P, class... A>
void launch(const LaunchShape& s, void (*kernel)(P...), A... arguments) {
  constexpr int kDefaultLimit = 48 * 1024;
  cudaError_t status = cudaSuccess;
  if (s.shared_bytes > kDefaultLimit)
    status = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  s.shared_bytes);
  if (status == cudaSuccess) {
    const bool pdl = s.pdl && !detail::pdl_refused && detail::has_pdl_wait(reinterpret_cast<const void*>(kernel));
    status = detail::launch<P...>(s, pdl, kernel, static_cast<P>(arguments)...);
    if (pdl && status != cudaSuccess && status != cudaErrorMemoryAllocation) {
      detail::pdl_refused = true;
      cudaGetLastError();
      status = detail::launch<P...>(s, false, kernel, static_cast<P>(arguments)...);
    }
  }
  if (status == cudaSuccess) return;
  cudaGetLastError();  // one that does not stick is forgotten
  throw Error(status == cudaErrorMemoryAllocation ? code::kOutOfMemory : code::kDeviceFailed,
              std::string("launch: ") + cudaGetErrorString(status));
}

}  // namespace sdar::cuda
