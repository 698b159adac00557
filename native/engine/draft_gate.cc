#include "engine/draft_gate.h"

#include <algorithm>

namespace sdar {

/// On a busy machine some requests take many times as long: a mean would be theirs.
double DraftGate::Kind::median() const {
  std::array<double, kRecent> sorted = rates;
  const auto count = std::min<int64_t>(ended, kRecent), middle = count / 2;
  std::nth_element(sorted.begin(), sorted.begin() + middle, sorted.begin() + count);
  return sorted[middle];
}

bool DraftGate::next() {
  const Kind &plain = kinds_[false], &drafted = kinds_[true];
  bool draft = plain.begun >= drafted.begun;  // in turns at first
  if (plain.ended >= kFirst && drafted.ended >= kFirst) {
    draft = drafted.median() < plain.median();
    if (++asked_ % kRetry == 0) draft = !draft;
  }
  kinds_[draft].begun++;
  return draft;
}

void DraftGate::observe(bool drafted, int32_t tokens, double seconds) {
  if (tokens <= 0) return;
  Kind& kind = kinds_[drafted];
  kind.rates[kind.ended++ % kRecent] = seconds / tokens;
}

}  // namespace sdar
