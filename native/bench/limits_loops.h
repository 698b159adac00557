// Loops that reach the limits of an instruction set: one instruction on registers only, and reads one after the other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "bench/limits.h"

namespace sdar {

struct MultiplyLoop {
  const char* instruction = nullptr;
  void (*run)(int64_t rounds) = nullptr;
  int64_t operations = 0;  ///< of a round; a multiply-add counts as two
};

struct LimitLoops {
  const char* isa;
  MultiplyLoop multiply[4];                           ///< by WeightFormat
  void (*read)(const std::byte* data, size_t bytes);  ///< whole cache lines
};

/// For an instruction set of cpu.h that this machine runs.
const LimitLoops& limit_loops(const std::string& isa);

/// All sets that this build has loops for; an entry without a name ends them.
const LimitLoops* built_limit_loops();

}  // namespace sdar
