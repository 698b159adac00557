// What the machine itself can do, for a benchmark to measure beside the kernels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "backend/formats.h"

namespace sdar {

/// Short measurements (10 to 30 ms each) with as many threads as the kernels have, to be taken in turns with them.
class LimitProbe {
 public:
  virtual ~LimitProbe() = default;
  /// Bytes per second of reading memory that no cache holds.
  virtual double read_bandwidth() = 0;
  /// Operations per second, two for each multiply-add, of the instruction that the kernels multiply weights of this
  /// format with, its operands in registers.
  virtual double multiply_rate(WeightFormat format) = 0;
  /// Name of that instruction.
  virtual const char* multiply_instruction(WeightFormat format) const = 0;
};

/// Measures with `threads` threads the limits of what the kernels of `isa` use.
std::unique_ptr<LimitProbe> make_limit_probe(int threads, const std::string& isa);

// Loops that reach the limits of an instruction set: one instruction on registers only, and reads one after the other.
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
