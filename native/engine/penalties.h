// Tokens that a request has already, as its penalties count them: those of the prompt for repetition, generated ones for
// all three. A generated token counts once its position is filled, whichever side of a masked one it is on.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "backend/step.h"

namespace sdar {

class TokenPenalties {
 public:
  static bool wanted(const SamplingParams& p) {
    return p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
  }
  TokenPenalties(const SamplingParams& params, std::span<const int32_t> prompt);

  /// A token was generated. Drops what was proposed.
  void add(int32_t id);
  /// tokens[i] counts in the rows of the window after row i, where bit i of `counted` is set: proposals of a draft, or a
  /// block's draft that is verified.
  void propose(std::span<const int32_t> tokens, uint64_t counted = ~uint64_t{0});
  /// As StepSequence::penalised; valid until the next call of another.
  std::span<const PenalisedToken> tokens() const { return proposed_.empty() ? decided_ : proposed_; }

 private:
  size_t find(int32_t id) const;
  float less(int32_t count) const;

  float presence_, frequency_;
  std::vector<PenalisedToken> decided_;  ///< ascending
  std::vector<int32_t> counts_;          ///< how often each of them was generated
  std::vector<PenalisedToken> proposed_;
};

}  // namespace sdar
