#include "backend/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "backend/backend.h"

namespace sdar {

namespace {

/// Of each pair, the share of the stretched frequency: 0 for those that turn often, 1 for those that hardly do.
std::vector<float> yarn_shares(const ModelShape& shape) {
  const RopeScaling& scaling = shape.rope_scaling;
  const double dim = shape.head_dim, base = shape.rope_theta;
  // The dimension that turns so many times in the original context.
  const auto dimension = [&](double turns) {
    return dim * std::log(scaling.original_context / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  double low = dimension(scaling.beta_fast), high = dimension(scaling.beta_slow);
  if (scaling.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  std::vector<float> shares(static_cast<size_t>(shape.head_dim) / 2);
  for (size_t i = 0; i < shares.size(); i++)
    shares[i] = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
  return shares;
}

}  // namespace

std::vector<float> inverse_frequencies(const ModelShape& shape) {
  const RopeScaling& scaling = shape.rope_scaling;
  std::vector<float> frequencies(static_cast<size_t>(shape.head_dim) / 2);
  const bool linear = scaling.kind == RopeScaling::Kind::linear;
  const std::vector<float> shares = scaling.kind == RopeScaling::Kind::yarn
                                        ? yarn_shares(shape)
                                        : std::vector<float>(frequencies.size(), linear ? 1.0f : 0.0f);
  const auto factor = static_cast<float>(scaling.factor);
  for (size_t i = 0; i < frequencies.size(); i++) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(shape.head_dim);
    const float kept = 1.0f / std::pow(shape.rope_theta, exponent);
    frequencies[i] = kept / factor * shares[i] + kept * (1 - shares[i]);
  }
  return frequencies;
}

Rotation rotation(float inverse_frequency, int32_t position, float attention_factor) {
  // The angle of a far position has rounding errors that belong to the model.
  const float angle = static_cast<float>(position) * inverse_frequency;
  return {std::cos(angle) * attention_factor, std::sin(angle) * attention_factor};
}

}  // namespace sdar
