// What is measured on the card itself, apart from the engine. device/ has it; no_device.cc stands in where nvcc was not
// found.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "budget.h"
#include "options.h"

namespace gpu_bench {

/// Makes the card current and describes it: {name, architecture, multiprocessors, …}. Throws Error(UNSUPPORTED_DEVICE)
/// that says what is missing: a build with nvcc, a driver, a card.
nlohmann::ordered_json open_card(const Options& options);

/// {copy, read: bytes per second; mma: operations per second; …}
nlohmann::ordered_json measure_limits();

/// A list of {kernel, shape, weights, tokens, microseconds, bytes, operations, ofBandwidth, ofTensorPeak, …}; what it
/// is measured against is in `limits`.
nlohmann::ordered_json measure_kernels(const Options& options, const nlohmann::ordered_json& limits, Budget& budget);

/// Clocks in MHz, watts, degrees and throttling now; null where nobody can say.
nlohmann::ordered_json card_state();
/// {used, free, total} bytes of the card; null without one.
nlohmann::ordered_json card_memory();

/// Runs the oracle tests on the device, printing TAP; the exit status.
int run_oracle_tests(int argc, char** argv);

/// A named range on a profiler's time line, where NVTX was there at compile time.
class Range {
 public:
  explicit Range(const std::string& name);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};
bool has_ranges();

}  // namespace gpu_bench
