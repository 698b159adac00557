// The portable backend: every op in plain loops. It is the oracle the fast kernels are tested against, and what runs
// where no instruction set fits.
#pragma once
#include <memory>

#include "backend/host_step.h"

namespace sdar::cpu {

/// Computes on the calling thread whatever `threads` says, and reports threads() == 1.
std::unique_ptr<HostBackend> make_reference_backend(int threads);

}  // namespace sdar::cpu
