// Choice of a token from the logits of one row at temperature > 0, without a full sort.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/cpu/kernels/kernels.h"
#include "backend/host_step.h"

namespace sdar::cpu {

/// 1 / T for T > 0, bounded so that products with differences of logits stay finite.
inline float inverse_temperature(float temperature) { return std::min(1.0f / temperature, 1e30f); }

struct Choice {
  int32_t token = 0;
  double probability = 0;  ///< after truncation and renormalisation
};

/// Samples as backend/step.h says; one per thread, for its scratch memory.
class Sampler {
 public:
  /// `best` is the largest logit that may be chosen. Every logit is finite.
  Choice sample(const Kernels& kernels, std::span<const float> logits, float best, const SampledRow& request);

 private:
  /// The last id kept, in order of falling logit, then rising id.
  struct Cut {
    float logit;
    int32_t id;
    bool keeps(float other, int32_t other_id) const { return other > logit || (other == logit && other_id <= id); }
  };
  /// Of logits whose ids may all be chosen but those of weights_ below 0.
  Choice sample(std::span<const float> logits, float best, int64_t allowed, const SampledRow& request);
  /// Leaves the allowed ids that are not suppressed in allowed_, their logits in allowed_logits_.
  void gather_allowed(std::span<const float> logits, const SampledRow& request);
  Cut cut_by_count(std::span<const float> logits, float best, float scale, int64_t count);
  Cut cut_by_mass(std::span<const float> logits, float best, float scale, float top_p, const Cut& within);
  /// The ids of a bucket that `within` keeps.
  void collect(std::span<const float> logits, float best, float scale, int bucket, const Cut& within);

  std::vector<float> weights_;  ///< exp((logit − best) / T); −1 when suppressed
  std::vector<int32_t> ids_, allowed_;
  std::vector<float> allowed_logits_;
  std::vector<uint64_t> mask_;
};

}  // namespace sdar::cpu
