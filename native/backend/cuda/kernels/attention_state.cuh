// Softmax sums in parts: how two of them become one.
#pragma once
#include "backend/cuda/kernels/device.cuh"

namespace sdar::cuda {

constexpr float kNoKeys = -INFINITY;  ///< largest score of a row that has seen no key

/// exp2(x · kLog2Scale) = exp(x / sqrt(head_dim)).
template <int head_dim>
inline constexpr float kLog2Scale = head_dim == 64 ? 1.44269504f * 0.125f : 1.44269504f * 0.0883883476f;

/// Factors that bring sums relative to `max` and to `other` to the larger of both, which `max` becomes. `other` is
/// finite; where max is kNoKeys its factor is 0, and sums of a chunk merged into nothing stay what they are.
struct MergeFactors {
  float own, other;
};
template <int head_dim>
SDAR_DEVICE MergeFactors merge_max(float& max, float other) {
  const float larger = maximum(max, other);
  const MergeFactors factors{exp2_fast((max - larger) * kLog2Scale<head_dim>),
                             exp2_fast((other - larger) * kLog2Scale<head_dim>)};
  max = larger;
  return factors;
}
SDAR_DEVICE float merge_sum(const MergeFactors& f, float own, float other) {
  return fused(other, f.other, own * f.own);
}

}  // namespace sdar::cuda
