// Instruction sets of this machine that this build has kernels for.
#pragma once
#include <string>
#include <vector>

#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels/kernels.h"

namespace sdar::cpu {

/// The set to use: `wanted`, else the environment's SDAR_ISA, else the best one.
/// Throws Error(INVALID_OPTION) when this machine or build does not have it.
std::string choose_isa(const std::string& wanted);

}  // namespace sdar::cpu
