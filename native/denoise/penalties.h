// What penalties make of the logits of tokens that a request has already. One header for host and device.
#pragma once
#include <cstdint>

#include "util/host_device.h"

namespace sdar {

/// An id whose logit is penalised in rows of the active block from offset `from` on, until the list's next entry of the
/// same id.
struct PenalisedToken {
  int32_t id = 0;
  int32_t from = 0;
  float less = 0;  ///< presence and frequency: taken off the logit
};

/// Repetition first, as in CTRL (Keskar et al., 2019), then presence and frequency, as OpenAI documents them.
SDAR_HOST_DEVICE inline float penalised_logit(float logit, float repetition, float less) {
  return (logit > 0 ? logit / repetition : logit * repetition) - less;
}

}  // namespace sdar
