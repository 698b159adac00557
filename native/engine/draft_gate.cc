#include "engine/draft_gate.h"

namespace sdar {
namespace {

constexpr double kKept = 0.9;  ///< of what older requests count, with each that ends

}  // namespace

bool DraftGate::next() {
  Kind &plain = kinds_[false], &drafted = kinds_[true];
  bool draft = plain.begun >= drafted.begun;  // in turns at first
  if (plain.ended >= kFirst && drafted.ended >= kFirst) {
    draft = drafted.seconds * plain.tokens < plain.seconds * drafted.tokens;
    if (++asked_ % kRetry == 0) draft = !draft;
  }
  kinds_[draft].begun++;
  return draft;
}

void DraftGate::observe(bool drafted, int32_t tokens, double seconds) {
  if (tokens <= 0) return;
  Kind& kind = kinds_[drafted];
  kind.ended++;
  kind.tokens = kKept * kind.tokens + tokens;
  kind.seconds = kKept * kind.seconds + seconds;
}

}  // namespace sdar
