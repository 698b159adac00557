// The parts of a run that need no CUDA headers. Each returns what goes into results.json under its name.
#pragma once
#include <nlohmann/json.hpp>

#include "budget.h"
#include "options.h"

namespace gpu_bench {

/// Runs this executable again as `oracle`, so that a kernel that breaks the device breaks nothing else:
/// {passed, failed, skipped, seconds, failures: [text]}.
nlohmann::ordered_json oracle_section(const Options& options, Budget& budget);

/// {closed: [one object per shape, batch, block and rate], poisson: [per shape and load], models: [per shape]}; a shape
/// that cannot be loaded is listed in budget.skipped.
nlohmann::ordered_json engine_section(const Options& options, Budget& budget);

/// Host, build and versions.
nlohmann::ordered_json describe_host();

}  // namespace gpu_bench
