// AdamW with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), f32 weights and moments; learning rates;
// clipping by the gradients' common norm.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "train/compute.h"
#include "train/parameters.h"

namespace sdar::train {

struct AdamW {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;  ///< of matrices; norms have none
};

enum class Decay : uint8_t { constant, linear, cosine };
inline constexpr std::array kDecays{"constant", "linear", "cosine"};

/// Rises linearly over `warmup` steps to `peak`, then falls to zero at step `steps` (or stays, where constant).
struct Schedule {
  double peak = 3e-4;
  int64_t warmup = 0, steps = 1;
  Decay decay = Decay::linear;

  /// Of step 0 … steps - 1: never zero, so that no step is for nothing.
  double rate(int64_t step) const;
};

struct Moments {
  std::vector<float> first, second;  ///< as the parameters
};

/// √Σ g², in double, of sums over fixed parts.
double norm_of(Compute& compute, const std::vector<float>& gradients);

/// Step `step` (from 0) with gradients · scale.
void adamw_step(Compute& compute, const Layout& layout, const AdamW& options, int64_t step, double rate, double scale,
                const std::vector<float>& gradients, Moments& moments, std::vector<float>& weights);

}  // namespace sdar::train
