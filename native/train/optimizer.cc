#include "train/optimizer.h"

#include <cmath>
#include <numbers>

namespace sdar::train {
namespace {

constexpr int64_t kPart = 1 << 15;

}  // namespace

double Schedule::rate(int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (decay == Decay::constant) return peak;
  const auto left = static_cast<double>(steps - step), length = static_cast<double>(steps - warmup);
  const double share = std::clamp(left / length, 0.0, 1.0);
  return decay == Decay::linear ? peak * share : peak * 0.5 * (1 - std::cos(std::numbers::pi * share));
}

double norm_of(Compute& compute, const std::vector<float>& gradients) {
  const auto n = static_cast<int64_t>(gradients.size());
  std::vector<double> parts(static_cast<size_t>((n + kPart - 1) / kPart));
  compute.split(n, kPart, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = begin; i < end; i++) {
      const double g = gradients[static_cast<size_t>(i)];
      sum += g * g;
    }
    parts[static_cast<size_t>(begin / kPart)] = sum;
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  return std::sqrt(sum);
}

void adamw_step(Compute& compute, const Layout& layout, const AdamW& o, int64_t step, double rate, double scale,
                const std::vector<float>& gradients, Moments& moments, std::vector<float>& weights) {
  const auto beta1 = static_cast<float>(o.beta1), beta2 = static_cast<float>(o.beta2);
  const auto rest1 = static_cast<float>(1 - o.beta1), rest2 = static_cast<float>(1 - o.beta2);
  const auto times = static_cast<double>(step + 1);
  // The moments start at zero, which is corrected here (Kingma & Ba, arXiv 1412.6980).
  const auto size = static_cast<float>(rate / (1 - std::pow(o.beta1, times)));
  const auto correction = static_cast<float>(1 / (1 - std::pow(o.beta2, times)));
  const auto epsilon = static_cast<float>(o.epsilon), factor = static_cast<float>(scale);
  for (const Parameter& p : layout.parameters()) {
    const auto kept = static_cast<float>(p.vector ? 1 : 1 - rate * o.weight_decay);
    compute.split(p.elements(), kPart, [&](int64_t begin, int64_t end) {
      const float* g = gradients.data() + p.offset;
      float *m = moments.first.data() + p.offset, *v = moments.second.data() + p.offset, *w = weights.data() + p.offset;
      for (int64_t i = begin; i < end; i++) {
        const float x = g[i] * factor;
        m[i] = beta1 * m[i] + rest1 * x;
        v[i] = beta2 * v[i] + rest2 * x * x;
        w[i] = w[i] * kept - size * m[i] / (std::sqrt(v[i] * correction) + epsilon);
      }
    });
  }
}

}  // namespace sdar::train
