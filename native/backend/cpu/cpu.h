// Entry of the CPU backend.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backend/host_step.h"

namespace sdar::cpu {

/// Instruction sets this machine can run, best first, always ending in "portable" (plain loops, the oracle).
/// Names: avx512amx, avx512bf16, avx512vnni, avx512, avx2vnni, avx2, neoni8mm, neondot, neon, portable.
std::vector<std::string> instruction_sets();
/// The set to use: `wanted`, else the environment's SDAR_ISA, else the best one. Throws Error(INVALID_OPTION) when this
/// machine or build does not have it.
std::string choose_isa(const std::string& wanted);

struct Options {
  int threads = 0;  ///< 0: the physical cores this process may use (affinity and cgroup quota)
  std::string isa;  ///< empty: environment SDAR_ISA, else the best one; anything not in instruction_sets() is an Error
  const Backend* beside = nullptr;  ///< computes in turns with the new one, which takes its threads where it has any
};

std::unique_ptr<HostBackend> make_backend(const Options& options);
/// The portable backend: every op in plain loops. It is the oracle that the fast kernels are tested against, and what
/// runs where no instruction set fits. Computes on the calling thread whatever `threads` says: threads() is 1.
std::unique_ptr<HostBackend> make_reference_backend(int threads);

}  // namespace sdar::cpu
