// How many prompt positions may share a step with running requests, so that a long prompt does not stall their tokens.
#pragma once
#include <algorithm>
#include <cstdint>

namespace sdar {

/// Learns from steps as they run what a position of a prompt costs beside a step without one. Results of requests do
/// not depend on it: how a prompt is cut never changes a number.
class PrefillBudget {
 public:
  /// Positions for which a step is expected to take at most kStretch times what it takes without, or kUnnoticed longer.
  /// Where more requests wait for their prompts than run, as at the start of a burst, the stretch grows with them.
  int32_t rows(int64_t prompts, int64_t running) const {
    if (row_ <= 0 || decode_ <= 0) return kUnknown;
    const double many =
        std::max(1.0, static_cast<double>(prompts) / static_cast<double>(std::max<int64_t>(running, 1)));
    const double seconds = std::max((kStretch - 1) * decode_ * many, kUnnoticed);
    return static_cast<int32_t>(std::clamp(seconds / row_, double{kLeast}, double{kMost}));
  }

  /// A step that took so many seconds.
  void observe(int32_t prefill_rows, int32_t decode_rows, double seconds) {
    if (prefill_rows == 0) {
      decode_ = mixed(decode_, seconds);
    } else if (decode_rows == 0) {
      if (prefill_rows >= kUnknown) row_ = mixed(row_, seconds / prefill_rows);  // in small ones other costs prevail
    } else if (decode_ > 0) {
      row_ = mixed(row_, std::max(seconds - decode_, 0.05 * seconds) / prefill_rows);
    } else {
      row_ = mixed(row_, seconds / (prefill_rows + decode_rows));
    }
  }

  static constexpr int32_t kLeast = 8, kUnknown = 64, kMost = 512;
  /// Below the 2 that users are promised: a step varies.
  static constexpr double kStretch = 1.4;
  /// Seconds. Small models take steps so short that nobody sees them double, but everybody sees prompts wait.
  static constexpr double kUnnoticed = 0.003;

 private:
  static double mixed(double before, double now) { return before > 0 ? 0.8 * before + 0.2 * now : now; }

  double decode_ = 0;  ///< seconds of a step without prompts
  double row_ = 0;     ///< seconds of a position
};

}  // namespace sdar
