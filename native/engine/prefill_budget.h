// How many prompt positions may share a step with running requests, so that a long prompt does not stall their tokens.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace sdar {

/// Learns from steps as they run what they cost: seconds = base + a rate for each kind of row. Results of requests do
/// not depend on it: how a prompt is cut never changes a number.
class PrefillBudget {
 public:
  struct Rows {
    int32_t prompt = 0, decode = 0;  ///< of prompts, and of requests that generate
    int32_t head = 0;                ///< of them all, those for which the head runs: masked positions
  };

  /// Positions of prompts for which a step is expected to take at most kStretch times what steps without usually take,
  /// or kUnnoticed longer: fewer beside requests that all begin a block, more in the steps between. Where more requests
  /// wait for their prompts than run, as at the start of a burst, the stretch grows with them.
  /// without: the rows of the step before prompts are added.
  int32_t rows(int64_t prompts, int64_t running, const Rows& without) const {
    if (!saw_prompt_ || !saw_decode_) return kUnknown;
    const double many =
        std::max(1.0, static_cast<double>(prompts) / static_cast<double>(std::max<int64_t>(running, 1)));
    const double stretch = (kStretch - 1) * many, now = expected({0, without.decode, without.head});
    const double seconds = std::max({(1 + stretch) * usual_ - now, stretch / 8 * now, kUnnoticed});
    if (cost_[kPrompt] * kMost <= seconds) return kMost;
    return std::max(static_cast<int32_t>(seconds / cost_[kPrompt]), kLeast);
  }

  /// A step that took so many seconds. Recursive least squares with drifting costs (a Kalman filter): what steps do not
  /// tell, such as the base where all have the same rows, stays as it was and becomes less certain.
  void observe(const Rows& rows, double seconds) {
    const Vector x = terms(rows);
    const double all = x[kDecode] + x[kPrompt];
    if (all <= 0 || seconds <= 0) return;
    const Vector most{seconds, seconds / all, seconds / all, seconds / all};  // each cost's, had it to explain all
    if (!saw_prompt_ && !saw_decode_) {
      for (size_t i = 0; i < kTerms; i++) {
        cost_[i] = i == kHead ? 0 : most[i] / 2;
        variance_[i][i] = most[i] / 2 * most[i] / 2;
      }
    }
    saw_prompt_ |= rows.prompt > 0;
    saw_decode_ |= rows.decode > 0;

    for (size_t i = 0; i < kTerms; i++) {
      const double size = std::max(cost_[i], kSmall * most[i]);
      variance_[i][i] += kDrift[i] * size * kDrift[i] * size;
      if (variance_[i][i] <= size * size) continue;
      const double less = size / std::sqrt(variance_[i][i]);  // at least its size is known
      for (size_t j = 0; j < kTerms; j++) variance_[i][j] *= less, variance_[j][i] *= less;
    }
    const double error = seconds - expected(rows);
    double noise = kNoise * std::max(expected(rows), seconds);
    if (rows.decode == 0) noise += cost_[kBase] / 2;  // where no head runs, the base is another
    double variance = noise * noise;
    Vector gain{};
    for (size_t i = 0; i < kTerms; i++) {
      for (size_t j = 0; j < kTerms; j++) gain[i] += variance_[i][j] * x[j];
      variance += gain[i] * x[i];
    }
    variance = std::max(variance, std::abs(error) * std::sqrt(variance) / kOutlier);
    for (size_t i = 0; i < kTerms; i++) {
      cost_[i] = std::max(cost_[i] + gain[i] * error / variance, 0.0);
      for (size_t j = 0; j < kTerms; j++) variance_[i][j] -= gain[i] * gain[j] / variance;
    }
    if (rows.decode == 0) return;
    const double without = expected({0, rows.decode, rows.head});
    usual_ = usual_ > 0 ? usual_ + (2 * without < usual_ ? kSooner : kRecent) * (without - usual_) : without;
  }

  static constexpr int32_t kLeast = 8, kUnknown = 64, kMost = 512;
  /// Below the 2 that users are promised: a step varies.
  static constexpr double kStretch = 1.4;
  /// Seconds. Small models take steps so short that nobody sees them double, but everybody sees prompts wait.
  static constexpr double kUnnoticed = 0.003;

 private:
  enum Term : size_t { kBase, kDecode, kPrompt, kHead, kTerms };
  using Vector = std::array<double, kTerms>;

  static Vector terms(const Rows& r) { return {1, double(r.decode), double(r.prompt), double(r.head)}; }
  double expected(const Rows& rows) const {
    const Vector x = terms(rows);
    double sum = 0;
    for (size_t i = 0; i < kTerms; i++) sum += cost_[i] * x[i];
    return sum;
  }

  static constexpr double kNoise = 0.05;  ///< of a step's seconds
  /// Of each cost, in a step. A prompt's rows cost more the further it is.
  static constexpr Vector kDrift{0.02, 0.02, 0.03, 0.02};
  static constexpr double kSmall = 0.3;   ///< costs below this part of the most they can be drift as if they were it
  static constexpr double kOutlier = 2;   ///< errors beyond so many deviations count as if they had as many
  static constexpr double kRecent = 0.1;  ///< weight of a step in the usual one
  /// And of one that takes less than half: first steps are slow, for kernels are loaded and caches are cold.
  static constexpr double kSooner = 0.4;

  Vector cost_{};
  std::array<Vector, kTerms> variance_{};
  double usual_ = 0;  ///< seconds of a step without prompts
  bool saw_prompt_ = false, saw_decode_ = false;
};

}  // namespace sdar
