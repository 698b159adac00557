// AdamW with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101); Muon (Jordan et al., 2024,
// https://kellerjordan.github.io/posts/muon), scaled so that AdamW's learning rate and weight decay serve it (Liu et al.,
// arXiv 2502.16982). Weights and moments are f32. Learning rates; clipping by the gradients' common norm.
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

/// `muon` is for the matrices of layers; AdamW has the rest: embedding, head, norms, biases.
enum class OptimizerKind : uint8_t { adamw, muon };
inline constexpr std::array kOptimizers{"adamw", "muon"};

struct Muon {
  double momentum = 0.95;  ///< of Nesterov's kind
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
  std::vector<float> first;   ///< as the parameters; Muon's momentum where it has them
  std::vector<float> second;  ///< as the parameters that AdamW has
};
/// Zeros.
Moments moments_of(const Layout& layout, OptimizerKind optimizer);
/// How many of the second there are.
int64_t second_moments(const Layout& layout, OptimizerKind optimizer);
/// Whether Muon has the parameter.
inline bool is_muons(const Parameter& parameter) { return parameter.in_layer(); }

/// √Σ g², in double, of sums over fixed parts.
double norm_of(Compute& compute, const std::vector<float>& gradients);

/// Step `step` (from 0) with gradients · scale.
void adamw_step(Compute& compute, const Layout& layout, const AdamW& options, int64_t step, double rate, double scale,
                const std::vector<float>& gradients, Moments& moments, std::vector<float>& weights);
/// The same with Muon where it has the parameters. Of `adamw` the weight decay is for both.
void muon_step(Compute& compute, const Layout& layout, const Muon& options, const AdamW& adamw, int64_t step,
               double rate, double scale, const std::vector<float>& gradients, Moments& moments,
               std::vector<float>& weights);
/// x [rows, cols] becomes about U·Vᵀ of its singular value decomposition U·S·Vᵀ, with singular values of 0.7 to 1.2, by
/// five Newton-Schulz steps of Muon's quintic.
void orthogonalise(Compute& compute, int64_t rows, int64_t cols, float* x);

}  // namespace sdar::train
