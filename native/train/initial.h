// The weights that a network begins with.
#pragma once
#include <cstdint>
#include <vector>

#include "model/config.h"
#include "train/parameters.h"

namespace sdar::train {

/// Norms are 1, biases 0, all else is normal with a deviation of 0.02, in what is added to the residual (o_proj,
/// down_proj) of 0.02 / √(2 · layers). Source: GPT-2 (Radford et al. 2019). Each element is a function of seed and place.
std::vector<float> initial_weights(const ModelConfig& config, const Layout& layout, uint64_t seed);

}  // namespace sdar::train
