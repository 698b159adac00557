// How a block is denoised: per request.
#pragma once
#include <cstdint>

namespace sdar {

/// Sets of a block's positions are bits of 64.
constexpr int32_t kMaxBlockLength = 64;

/// Which masked positions a step fills; defined in denoise/choose.h.
enum class Strategy : uint8_t {
  low_confidence_dynamic,
  low_confidence_static,
  sequential,
  entropy_bounded,
  pairwise_factor,
  self_verified
};
constexpr int32_t kStrategies = 6;

struct DenoiseParams {
  Strategy strategy = Strategy::low_confidence_dynamic;
  int32_t steps = 0;            ///< S; 0: the block length
  float threshold = 0.9f;       ///< τ of low_confidence_dynamic and self_verified
  float entropy_bound = 0.35f;  ///< γ of entropy_bounded, nats
  float factor = 2;             ///< f of pairwise_factor
};

}  // namespace sdar
