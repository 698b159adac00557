// What the machine itself can do, for a benchmark to measure beside the kernels.
#pragma once
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

}  // namespace sdar
