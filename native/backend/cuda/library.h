// The library with the kernels, opened on demand.
#pragma once
#include <string>

#include "backend/cuda/abi/abi.h"

namespace sdar::cuda {

struct Library {
  const SdarCudaInterface* interface = nullptr;
  std::string file;
  std::string unavailable;  ///< why there is no interface, and what to do
};
/// Kept once it is open.
Library open_library();

/// Where the library of the addon at `addon` is: in the same folder, or, where that is prebuilds/PLATFORM, in the
/// package's build/Release, if it has been built for this machine, or in the package sdar-engine-cuda beside it.
std::string file_beside(const std::string& addon);

/// Takes the place of the library from now on, in tests and where the kernels are linked in; null: no longer.
void use_interface(const SdarCudaInterface* interface);

}  // namespace sdar::cuda
