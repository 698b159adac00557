#include "train/initial.h"

#include <cmath>
#include <numbers>

#include "denoise/philox.h"

namespace sdar::train {
namespace {

constexpr uint32_t kPurpose = 0x696e6974u;

/// Two normal numbers, by Box and Muller.
void normal_pair(uint64_t seed, uint64_t number, double out[2]) {
  const PhiloxWords words =
      philox4x32_10({{static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32), 0, kPurpose}}, seed);
  const double u = (static_cast<double>(uint64_t{words.w[0]} << 21 | words.w[1] >> 11) + 0.5) * 0x1p-53;
  const double v = static_cast<double>(words.w[2]) * 0x1p-32 * 2 * std::numbers::pi;
  const double radius = std::sqrt(-2 * std::log(u));
  out[0] = radius * std::cos(v);
  out[1] = radius * std::sin(v);
}

}  // namespace

std::vector<float> initial_weights(const ModelConfig& config, const Layout& layout, uint64_t seed) {
  std::vector<float> weights(static_cast<size_t>(layout.size()));
  for (const Parameter& p : layout.parameters()) {
    float* to = weights.data() + p.offset;
    if (p.vector) {
      std::fill_n(to, p.elements(), p.name.ends_with(".bias") ? 0.0f : 1.0f);
      continue;
    }
    const bool residual = p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
    const double deviation = residual ? 0.02 / std::sqrt(2.0 * config.shape.layers) : 0.02;
    double pair[2];
    for (int64_t i = 0; i < p.elements(); i++) {
      if (i % 2 == 0) normal_pair(seed, static_cast<uint64_t>(p.offset + i), pair);
      to[i] = static_cast<float>(deviation * pair[i % 2]);
    }
  }
  return weights;
}

}  // namespace sdar::train
