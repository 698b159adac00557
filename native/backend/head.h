// Final norm + lm_head at the wanted rows, reduced to one token and its numbers per row.
#pragma once
#include <cstdint>
#include <span>

#include "backend/weights.h"

namespace sdar {

enum class Confidence : uint8_t { model, sampled };

/// What is wanted at one row. Pointers are valid during the step.
struct SampledRow {
  int32_t row = 0;
  float temperature = 0;  ///< 0: greedy
  int32_t top_k = 0;      ///< 0: all
  float top_p = 1;        ///< 1: all
  double uniform = 0;     ///< in [0, 1), used when temperature > 0
  Confidence confidence = Confidence::model;
  /// ids never chosen (the mask id; end ids before minTokens); they keep their probability
  std::span<const int32_t> suppressed{};
  std::span<const int32_t> bias_ids{};  ///< ascending; bias is added to the logits before anything else
  std::span<const float> bias_values{};
};

/// Token and confidence. Temperature 0: argmax (lowest id on a tie) and its probability in softmax(logits). Else a
/// sample of softmax(logits / T) after top-k, then top-p, by the inverse of the cumulative sum in order of id;
/// confidence is its probability in softmax(logits / T) before truncation (model) or after it (sampled).
struct SampledToken {
  int32_t token = 0;
  float confidence = 0;
  float logprob = 0;    ///< log probability of the token in softmax(logits)
  float entropy = 0;    ///< of softmax(logits / T), T = 0 read as 1; nats
  float max = 0;        ///< largest logit
  float logsumexp = 0;  ///< of the logits
  bool finite = true;   ///< false: a NaN or infinity was among the logits; the rest means nothing
};

/// x [M, hidden]; results[i] answers requests[i]. `logits`, when set, receives [requests, vocabulary] f32 (bias added).
/// The order of sums over the vocabulary depends on the shape alone.
struct LmHeadArgs {
  const float* x = nullptr;
  const Weight* norm = nullptr;
  const Weight* weight = nullptr;  ///< linear or table [vocabulary, hidden]
  std::span<const SampledRow> requests{};
  std::span<SampledToken> results{};
  float* logits = nullptr;
};

}  // namespace sdar
