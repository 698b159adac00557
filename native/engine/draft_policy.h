// How much is drafted for a request: learnt from what was accepted of its drafts so far and from nothing else, so that
// its forwards do not depend on the machine or, while all have pages, on others.
#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace sdar {

class DraftPolicy {
 public:
  static constexpr int32_t kMostSteps = 3;

  /// `cost`: of a forward of the draft model, in those of the target.
  explicit DraftPolicy(double cost) : cost_(cost) {}

  /// Forwards of the draft model for the next proposal of up to `room` tokens: as many as give most tokens for their
  /// cost, or 0 where none gives more than the target alone. Asked once for each forward of the target.
  int32_t steps(int32_t room);
  /// How many of the drafted tokens, of these confidences, are worth a row of the target.
  static int32_t worthwhile(std::span<const float> confidences);
  /// Of a proposal of up to `room` tokens that took so many forwards, `accepted` were kept.
  void observe(int32_t steps, int32_t room, int32_t accepted);

 private:
  double expected(int32_t steps) const;

  double cost_;
  std::array<double, kMostSteps + 1> accepted_{};  ///< by steps: moving average, 0 before the first
  std::array<bool, kMostSteps + 1> tried_{};
  int32_t pause_ = 0;       ///< of the target's forwards, until a draft is tried again
  int32_t next_pause_ = 4;  ///< grows as long as drafts do not pay
};

}  // namespace sdar
