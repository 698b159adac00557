#include "engine/draft_policy.h"

#include <algorithm>

namespace sdar {
namespace {

constexpr double kHopeful = 4;       ///< tokens that the first draft is expected to bring
constexpr double kStepBrings = 1.2;  ///< times as many as one step fewer, until it has been tried
constexpr double kRecent = 0.3;      ///< weight of a proposal in the moving average
constexpr double kWorth = 1.1;       ///< tokens per forward below which rows cost more than they bring
constexpr double kUnlikely = 0.05;   ///< a token that is kept less often is not judged
constexpr int32_t kLongestPause = 64;

}  // namespace

double DraftPolicy::expected(int32_t steps) const {
  if (tried_[steps]) return accepted_[steps];
  return steps == 1 ? kHopeful : kStepBrings * expected(steps - 1);
}

int32_t DraftPolicy::steps(int32_t room) {
  if (pause_ > 0) {
    pause_--;
    return 0;
  }
  int32_t best = 0;
  double most = kWorth;
  for (int32_t s = 1; s <= kMostSteps; s++) {
    const double tokens = 1 + std::min(expected(s), static_cast<double>(room)), value = tokens / (1 + s * cost_);
    if (value > most) best = s, most = value;
  }
  return best;
}

int32_t DraftPolicy::worthwhile(std::span<const float> confidences) {
  double kept = 1;
  int32_t n = 0;
  for (; n < static_cast<int32_t>(confidences.size()); n++) {
    kept *= confidences[n];
    if (kept < kUnlikely) break;
  }
  return n;
}

void DraftPolicy::observe(int32_t steps, int32_t room, int32_t accepted) {
  double& average = accepted_[steps];
  // What filled its room might have gone on.
  const double seen = accepted == room ? std::max<double>(accepted, expected(steps)) : accepted;
  average = tried_[steps] ? average + kRecent * (seen - average) : seen;
  tried_[steps] = true;
  const bool pays = (1 + expected(steps)) / (1 + steps * cost_) > kWorth;
  if (pays) {
    next_pause_ = 4;
  } else {
    pause_ = next_pause_;
    next_pause_ = std::min(2 * next_pause_, kLongestPause);
    tried_ = {};  // the next try alone will tell
  }
}

}  // namespace sdar
