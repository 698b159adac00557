// Which masked positions of the active block a denoising step fills. One header for host and device: plain loops over
// at most 64 positions. Source: SDAR's generate.py with its defects resolved.
#pragma once
#include <cstdint>

#include "denoise/strategy.h"
#include "util/host_device.h"

namespace sdar {

SDAR_HOST_DEVICE inline int32_t count_bits(uint64_t bits) {
  int32_t n = 0;
  for (; bits; bits &= bits - 1) n++;
  return n;
}

/// n_s = floor(B/S) + (s < B mod S), at least 1; 1 for s >= S. S = `steps`, 0 means B.
SDAR_HOST_DEVICE inline int32_t fills_at_step(int32_t block_length, int32_t steps, int32_t step) {
  if (steps <= 0) steps = block_length;
  if (step >= steps) return 1;
  const int32_t n = block_length / steps + (step < block_length % steps ? 1 : 0);
  return n > 1 ? n : 1;
}

/// The position among `candidates` (not empty) of highest score, times `sign`; the lowest on a tie.
SDAR_HOST_DEVICE inline int32_t best_position(uint64_t candidates, const float* score, float sign) {
  int32_t best = -1;
  for (int32_t i = 0; i < 64; i++) {
    if (candidates >> i & 1 && (best < 0 || sign * score[i] > sign * score[best])) best = i;
  }
  return best;
}

/// Tokens that verifying a draft is expected to bring: the first masked one is replaced when it is rejected, each later
/// one is reached when all before it are accepted, which their confidences are taken as the probabilities of.
SDAR_HOST_DEVICE inline float verified_tokens(uint64_t masked, const float* confidence) {
  float tokens = 0, reached = 1;
  for (int32_t i = 0; i < 64; i++) {
    if (!(masked >> i & 1)) continue;
    tokens += reached;
    reached *= confidence[i];
  }
  return tokens;
}

/// `masked`: bit i says that offset i of the block is masked; confidence and entropy [block_length] are read there
/// only. Returns the offsets to fill, a subset of `masked`, empty only if `masked` is or a draft is to be verified.
/// block_length <= 64. Ties go to the lower position.
/// - low_confidence_dynamic: all of confidence > threshold if they are at least n_s, else the n_s of highest confidence
/// - low_confidence_static: the n_s of highest confidence
/// - sequential: the n_s leftmost
/// - entropy_bounded: in order of rising entropy, as long as their sum is < entropy_bound; at least one
/// - pairwise_factor: in order of falling confidence, the k-th as long as k(k-1)/2 · (1 - confidence) < factor; at least
///   n_s. So the fewer are filled together, the less sure they need be: a wrong guess matters to every pair it is part
///   of, and what is left over is decided with the others in view. A larger factor fills a superset. Fast-dLLM's factor
///   rule ("Fast-dLLM: Training-free Acceleration of Diffusion LLM", 2025) has k + 1 in the place of k(k-1)/2.
/// - self_verified: none, which has the draft verified by a second forward, where that is expected to bring more tokens
///   a forward; else what low_confidence_dynamic fills. Source: "S2D2: Fast Decoding for Diffusion LLMs via Training-Free
///   Self-Speculation", arXiv 2603.25702; the rule is ours.
SDAR_HOST_DEVICE inline uint64_t choose_positions(const DenoiseParams& params, int32_t block_length, int32_t step,
                                                  uint64_t masked, const float* confidence, const float* entropy) {
  int32_t wanted = fills_at_step(block_length, params.steps, step);
  const int32_t left = count_bits(masked);
  if (wanted > left) wanted = left;
  uint64_t chosen = 0;

  if (params.strategy == Strategy::entropy_bounded) {
    double sum = 0;
    while (chosen != masked) {
      const int32_t next = best_position(masked & ~chosen, entropy, -1);
      sum += entropy[next];
      if (chosen && !(sum < params.entropy_bound)) break;
      chosen |= uint64_t{1} << next;
    }
    return chosen;
  }

  if (params.strategy == Strategy::pairwise_factor) {
    for (int32_t k = 1; chosen != masked; k++) {
      const int32_t next = best_position(masked & ~chosen, confidence, 1);
      const float risk = static_cast<float>(k * (k - 1) / 2) * (1 - confidence[next]);
      if (k > wanted && !(risk < params.factor)) break;
      chosen |= uint64_t{1} << next;
    }
    return chosen;
  }

  if (params.strategy == Strategy::low_confidence_dynamic || params.strategy == Strategy::self_verified) {
    for (int32_t i = 0; i < block_length; i++) {
      if (masked >> i & 1 && confidence[i] > params.threshold) chosen |= uint64_t{1} << i;
    }
    const int32_t sure = count_bits(chosen);
    if (params.strategy == Strategy::self_verified && chosen != masked &&
        verified_tokens(masked, confidence) > static_cast<float>(2 * (sure > wanted ? sure : wanted)))
      return 0;
    if (sure >= wanted) return chosen;
    chosen = 0;
  }

  for (; wanted > 0; wanted--) {
    const uint64_t rest = masked & ~chosen;
    chosen |= params.strategy == Strategy::sequential ? rest & (~rest + 1)  // the lowest bit
                                                      : uint64_t{1} << best_position(rest, confidence, 1);
  }
  return chosen;
}

}  // namespace sdar
