// The library with the kernels, opened on demand.
#pragma once
#include <string>

#include "backend/cuda/abi.h"

namespace sdar::cuda {

struct Library {
  const SdarCudaInterface* interface = nullptr;
  std::string file;
  std::string problem;  ///< why there is no interface, and what to do
};
/// Kept once it is open.
Library open_library();

/// Takes the place of the library from now on, in tests and where the kernels are linked in; null: no longer.
void use_interface(const SdarCudaInterface* interface);

}  // namespace sdar::cuda
