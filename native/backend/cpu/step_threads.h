// How many threads compute a step. Short steps are often faster on fewer: handing rows from core to core costs as much
// as another core saves. How much differs from machine to machine, so it is measured. Results never depend on it.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

namespace sdar::cpu {

class StepThreads {
 public:
  explicit StepThreads(int most) {
    for (int threads = std::max(most, 1);; threads /= 2) {
      choices_.push_back(threads);
      if (threads == 1) break;
    }
    for (auto& size : sizes_) size.means.resize(choices_.size());
  }

  /// Threads for a step of so many rows.
  int choose(int32_t rows) {
    work_ = rows + kFixedRows;
    size_ = &sizes_[static_cast<size_t>(std::bit_width(static_cast<uint32_t>(std::max(rows, 1) - 1)))];
    choice_ = size_->next();
    return choices_[choice_];
  }

  /// What the step took for which choose() was called last.
  void took(double seconds) { size_->add(choice_, seconds / work_, seconds); }

 private:
  /// A step of one row takes about as long as this many rows take beyond the first.
  static constexpr int kFixedRows = 8;
  /// All threads compute longer steps, where the cost of handing over is small and that of trying is not.
  static constexpr double kShortSeconds = 1e-3;
  static constexpr int kFirstTries = 4;
  /// Steps between two tries of something else, where it was nearly as fast, and where it was not.
  static constexpr int kTryNear = 32, kTryFar = 256;
  static constexpr double kNear = 1.3;

  struct Mean {
    double value = 0;
    int count = 0;
    void add(double each) {
      // What the system took the processor away from counts as twice as long, not as a hundred times.
      if (count >= kFirstTries) each = std::min(each, 2 * value);
      value += (each - value) / std::min(++count, 16);
    }
  };

  /// Steps of about the same number of rows.
  struct Size {
    std::vector<Mean> means;  ///< seconds for each unit of work, by choice
    double all_seconds = 0;   ///< of the last step by all threads
    int steps = 0;

    size_t next() {
      steps++;
      if (means.size() == 1 || means[0].count < kFirstTries || all_seconds > kShortSeconds) return 0;
      for (size_t i = 1; i < means.size(); i++)
        if (means[i].count < kFirstTries) return i;
      const auto least =
          std::min_element(means.begin(), means.end(), [](const Mean& a, const Mean& b) { return a.value < b.value; });
      const auto best = static_cast<size_t>(least - means.begin());
      const size_t other = static_cast<size_t>(steps / kTryNear) % means.size();
      const int every = means[other].value < kNear * least->value ? kTryNear : kTryFar;
      return steps % every == 0 ? other : best;
    }
    void add(size_t choice, double each, double seconds) {
      means[choice].add(each);
      if (choice == 0) all_seconds = seconds;
    }
  };

  std::vector<int> choices_;  ///< descending
  std::array<Size, 33> sizes_;
  Size* size_ = &sizes_[0];
  size_t choice_ = 0;
  int work_ = 1;
};

}  // namespace sdar::cpu
