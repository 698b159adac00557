// From a kernel's number to its launch; linked with the kernels, on a device or under the SIMT executor.
#include <cstring>
#include <iterator>
#include <string>

#include "backend/cuda/kernels/kernels.h"
#include "util/error.h"

namespace sdar::cuda {
namespace {

template <Kernel kernel, void (*function)(Stream, const ParamsOf<kernel>&)>
void launch(Stream stream, const void* bytes_of_params, size_t bytes) {
  ParamsOf<kernel> params;
  if (bytes != sizeof params) {
    throw Error(code::kInternal, "kernel " + std::to_string(static_cast<int>(kernel)) + " takes " +
                                     std::to_string(sizeof params) + " bytes of parameters, not " +
                                     std::to_string(bytes));
  }
  std::memcpy(&params, bytes_of_params, bytes);
  function(stream, params);
}

#define SDAR_LAUNCHER(name) &launch<Kernel::name, cuda::name>,
constexpr void (*kLaunchers[])(Stream, const void*, size_t) = {SDAR_CUDA_KERNELS(SDAR_LAUNCHER)};
#undef SDAR_LAUNCHER

}  // namespace

void launch_kernel(Stream stream, int32_t kernel, const void* params, size_t bytes) {
  if (kernel < 0 || static_cast<size_t>(kernel) >= std::size(kLaunchers))
    throw Error(code::kInternal, "there is no kernel " + std::to_string(kernel));
  kLaunchers[kernel](stream, params, bytes);
}

}  // namespace sdar::cuda
