// Gradients against central differences of a loss, along directions.
#pragma once
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "check.h"

namespace gradients {

inline std::vector<float> random_values(int64_t n, uint32_t seed, float mean = 0, float spread = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(mean, spread);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

inline double product(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

/// `loss` depends on the n floats at x, which are moved and put back. Of the direction one part is the gradient itself,
/// along which errors of rounding are smallest, and one is random, which sees what the gradient may lack. `step`: by how
/// much of its own length x is moved; the error of the difference is of its fourth power.
inline void check(const std::function<double()>& loss, float* x, size_t n, const float* gradient, const char* what,
                  double step = 0.02, double tolerance = 1e-3) {
  const std::vector<float> before(x, x + n), noise = random_values(static_cast<int64_t>(n), 77);
  const double length = std::sqrt(product(gradient, gradient, n));
  if (!(length > 0)) return check::fail(__FILE__, __LINE__, std::string(what) + ": no gradient");
  const double noise_length = std::sqrt(product(noise.data(), noise.data(), n));
  std::vector<float> direction(n);
  for (size_t i = 0; i < n; i++)
    direction[i] = static_cast<float>(gradient[i] / length + 0.7 * noise[i] / noise_length);
  const double h =
      step * std::sqrt(product(before.data(), before.data(), n) / product(direction.data(), direction.data(), n));
  const auto at = [&](double t) {
    for (size_t i = 0; i < n; i++) x[i] = before[i] + static_cast<float>(t * direction[i]);
    return loss();
  };
  const double difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  std::copy(before.begin(), before.end(), x);
  const double expected = product(gradient, direction.data(), n);
  if (!(std::abs(difference - expected) <= tolerance * std::abs(difference)))
    check::fail(
        __FILE__, __LINE__,
        std::string(what) + ": difference " + std::to_string(difference) + ", gradient " + std::to_string(expected));
}
inline void check(const std::function<double()>& loss, std::vector<float>& x, const std::vector<float>& gradient,
                  const char* what, double step = 0.02) {
  check(loss, x.data(), x.size(), gradient.data(), what, step);
}

}  // namespace gradients
