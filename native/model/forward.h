// The forward pass of an SDAR model (Qwen3 with block attention) as calls of ops. A plain function without state or
// clock: what is computed, recorded or timed is the ops' affair.
#pragma once
#include <cstdint>

#include "backend/ops.h"
#include "model/weights.h"

namespace sdar {

/// The ops of a step of `rows` rows; `with_lm_head`: of a step with sampled rows.
void forward(Ops& ops, const ModelWeights& weights, int32_t rows, bool with_lm_head);

}  // namespace sdar
