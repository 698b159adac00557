// The published shapes as the CUDA backend packs them, for the roofline model, which is no C++.
#pragma once
#include <nlohmann/json.hpp>

namespace gpu_bench {

/// {shape: {settings of the model, "matrices": {name: {kind, rows, cols, parts, bytes: {format: packed bytes}}},
/// "weightBytes": {format: all weights}}}; a matrix is that of one layer, or of one expert; parts are those that a sum
/// over k is split into. roofline/models.json is this, and a test holds it to it.
nlohmann::ordered_json describe_models();

}  // namespace gpu_bench
