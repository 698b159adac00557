// Models known by name, for benchmarks and checkpoints with random weights.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace sdar {

/// sdar-nano, sdar-1.7b, sdar-4b, sdar-8b, sdar-30b-a3b.
std::vector<std::string> shape_names();

/// The settings of a published model, of which the first `layers` layers are kept; 0: all.
/// Throws Error(INVALID_OPTION) that lists what is allowed.
ModelConfig shape_config(const std::string& name, int32_t layers = 0);

}  // namespace sdar
