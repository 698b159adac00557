#include "train/optimizer.h"

#include <cmath>
#include <numbers>

namespace sdar::train {
namespace {

constexpr int64_t kPart = 1 << 15;

double norm_of(Compute& compute, const float* x, int64_t n) {
  std::vector<double> parts(static_cast<size_t>((n + kPart - 1) / kPart));
  compute.split(n, kPart, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = begin; i < end; i++) sum += static_cast<double>(x[i]) * x[i];
    parts[static_cast<size_t>(begin / kPart)] = sum;
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  return std::sqrt(sum);
}

/// AdamW's numbers of one step.
class AdamWStep {
 public:
  AdamWStep(const AdamW& o, int64_t step, double rate, double scale)
      : beta1_(static_cast<float>(o.beta1)),
        beta2_(static_cast<float>(o.beta2)),
        rest1_(static_cast<float>(1 - o.beta1)),
        rest2_(static_cast<float>(1 - o.beta2)),
        // The moments start at zero, which is corrected here (Kingma & Ba, arXiv 1412.6980).
        size_(static_cast<float>(rate / (1 - std::pow(o.beta1, static_cast<double>(step + 1))))),
        correction_(static_cast<float>(1 / (1 - std::pow(o.beta2, static_cast<double>(step + 1))))),
        epsilon_(static_cast<float>(o.epsilon)),
        scale_(static_cast<float>(scale)),
        kept_(static_cast<float>(1 - rate * o.weight_decay)) {}

  void take(Compute& compute, const Parameter& p, const float* g, float* m, float* v, float* w) const {
    const float kept = p.vector ? 1 : kept_;
    compute.split(p.elements(), kPart, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const float x = g[i] * scale_;
        m[i] = beta1_ * m[i] + rest1_ * x;
        v[i] = beta2_ * v[i] + rest2_ * x * x;
        w[i] = w[i] * kept - size_ * m[i] / (std::sqrt(v[i] * correction_) + epsilon_);
      }
    });
  }

 private:
  float beta1_, beta2_, rest1_, rest2_, size_, correction_, epsilon_, scale_, kept_;
};

}  // namespace

double Schedule::rate(int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (decay == Decay::constant) return peak;
  const auto left = static_cast<double>(steps - step), length = static_cast<double>(steps - warmup);
  const double share = std::clamp(left / length, 0.0, 1.0);
  return decay == Decay::linear ? peak * share : peak * 0.5 * (1 - std::cos(std::numbers::pi * share));
}

double norm_of(Compute& compute, const std::vector<float>& gradients) {
  return norm_of(compute, gradients.data(), static_cast<int64_t>(gradients.size()));
}

int64_t second_moments(const Layout& layout, OptimizerKind optimizer) {
  int64_t floats = 0;
  for (const Parameter& p : layout.parameters())
    if (optimizer == OptimizerKind::adamw || !is_muons(p)) floats += p.elements();
  return floats;
}

Moments moments_of(const Layout& layout, OptimizerKind optimizer) {
  return {std::vector<float>(static_cast<size_t>(layout.size())),
          std::vector<float>(static_cast<size_t>(second_moments(layout, optimizer)))};
}

void adamw_step(Compute& compute, const Layout& layout, const AdamW& options, int64_t step, double rate, double scale,
                const std::vector<float>& gradients, Moments& moments, std::vector<float>& weights) {
  const AdamWStep adamw(options, step, rate, scale);
  for (const Parameter& p : layout.parameters())
    adamw.take(compute, p, gradients.data() + p.offset, moments.first.data() + p.offset,
               moments.second.data() + p.offset, weights.data() + p.offset);
}

void muon_step(Compute& compute, const Layout& layout, const Muon& options, const AdamW& adamw_options, int64_t step,
               double rate, double scale, const std::vector<float>& gradients, Moments& moments,
               std::vector<float>& weights) {
  const AdamWStep adamw(adamw_options, step, rate, scale);
  const auto momentum = static_cast<float>(options.momentum), factor = static_cast<float>(scale);
  const auto kept = static_cast<float>(1 - rate * adamw_options.weight_decay);
  float* second = moments.second.data();
  std::vector<float> update;
  for (const Parameter& p : layout.parameters()) {
    const float* g = gradients.data() + p.offset;
    float *m = moments.first.data() + p.offset, *w = weights.data() + p.offset;
    if (!is_muons(p)) {
      adamw.take(compute, p, g, m, second, w);
      second += p.elements();
      continue;
    }
    update.resize(static_cast<size_t>(p.elements()));
    compute.split(p.elements(), kPart, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const float x = g[i] * factor;
        m[i] = momentum * m[i] + x;
        update[static_cast<size_t>(i)] = x + momentum * m[i];
      }
    });
    orthogonalise(compute, p.rows, p.cols, update.data());
    // About the size of AdamW's updates, whatever the shape.
    const auto size = static_cast<float>(rate * 0.2 * std::sqrt(static_cast<double>(std::max(p.rows, p.cols))));
    compute.split(p.elements(), kPart, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) w[i] = w[i] * kept - size * update[static_cast<size_t>(i)];
    });
  }
}

void orthogonalise(Compute& compute, int64_t rows, int64_t cols, float* x) {
  constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f;
  const int64_t n = std::min(rows, cols), elements = rows * cols;
  const bool wide = rows <= cols;
  const View normal{x, cols, 1}, turned{x, 1, cols};
  const auto square = static_cast<size_t>(n * n);
  std::vector<float> gram(square), polynomial(square), next(static_cast<size_t>(elements));
  const auto norm = static_cast<float>(norm_of(compute, x, elements) + 1e-7);
  for (int64_t i = 0; i < elements; i++) x[i] /= norm;
  for (int step = 0; step < 5; step++) {
    // x becomes a·x + (b·G + c·G²)·x, G = x·xᵀ; from the other side where that is smaller.
    multiply(compute, n, n, std::max(rows, cols), wide ? normal : turned, wide ? turned : normal, gram.data(), n);
    const View g{gram.data(), n, 1};
    multiply(compute, n, n, n, g, g, polynomial.data(), n);
    for (size_t i = 0; i < square; i++) polynomial[i] = kB * gram[i] + kC * polynomial[i];
    for (int64_t i = 0; i < elements; i++) next[static_cast<size_t>(i)] = kA * x[i];
    const View p{polynomial.data(), n, 1};
    multiply(compute, rows, cols, n, wide ? p : normal, wide ? normal : p, next.data(), cols, next.data());
    std::copy(next.begin(), next.end(), x);
  }
}

}  // namespace sdar::train
