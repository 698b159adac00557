// From the logits of one row to its token and numbers, over the whole vocabulary.
#pragma once
#include <span>

#include "backend/host_step.h"

namespace sdar::cpu::reference {

/// Adds the request's bias to `logits` [vocabulary], then chooses as backend/step.h says. Probabilities are computed in
/// double, sums run over ids in ascending order. Also not finite: every id is suppressed.
SampledToken choose_token(std::span<float> logits, const SampledRow& request);

}  // namespace sdar::cpu::reference
