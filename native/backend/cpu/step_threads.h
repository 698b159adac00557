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
    return choices_[size_->next()];
  }

  /// What the step took for which choose() was called last.
  void took(double seconds) { size_->add(seconds / work_, seconds); }

 private:
  /// A step of one row takes about as long as this many rows take beyond the first.
  static constexpr int kFixedRows = 8;
  /// All threads compute longer steps, where the cost of handing over is small and that of trying is not.
  static constexpr double kShortSeconds = 1e-3;
  /// So many steps in a row are computed by the same number of threads. The first ones of all, and the first one after
  /// others, count for nothing: caches have yet to be filled, and threads to wake up.
  static constexpr int kRound = 3;
  static constexpr int kFirstSteps = 6;
  /// Rounds between two that try something else, where it was nearly as fast, and where it was not.
  static constexpr int kTryNear = 16, kTryFar = 64;
  static constexpr double kNear = 1.3;

  struct Mean {
    static constexpr int kMost = 8;
    double value = 0;
    int count = 0;  ///< up to kMost
    void add(double each) {
      // What the system took the processor away from counts as twice as long, not as a hundred times.
      if (count > 0) each = std::min(each, 2 * value);
      count = std::min(count + 1, kMost);
      value += (each - value) / count;
    }
  };

  /// Steps of about the same number of rows.
  struct Size {
    std::vector<Mean> means;  ///< seconds for each unit of work, by choice
    double all_seconds = 0;   ///< of the last step by all threads
    int64_t steps = 0;
    size_t choice = 0;
    bool counts = false;  ///< this step does

    size_t next() {
      const size_t before = choice;
      const int64_t round = steps++ / kRound;
      const bool begins = (steps - 1) % kRound == 0;
      if (means.size() == 1 || round == 0 || all_seconds > kShortSeconds) {
        choice = 0;
      } else if (begins) {
        choice = choose(round);
      }
      counts = round > 0 && choice == before;
      return choice;
    }
    void add(double each, double seconds) {
      if (counts) means[choice].add(each);
      if (choice == 0) all_seconds = seconds;
    }

   private:
    size_t choose(int64_t round) const {
      const size_t best = least(&Mean::value), fewest = least(&Mean::count);
      // In turns, so that what the machine does meanwhile slows all down alike.
      if (means[fewest].count < kFirstSteps) return fewest;
      const size_t other = static_cast<size_t>(round / kTryNear) % means.size();
      const int every = means[other].value < kNear * means[best].value ? kTryNear : kTryFar;
      return round % every == 0 ? other : best;
    }
    template <class T>
    size_t least(T Mean::*of) const {
      const auto less = [of](const Mean& a, const Mean& b) { return a.*of < b.*of; };
      return static_cast<size_t>(std::min_element(means.begin(), means.end(), less) - means.begin());
    }
  };

  std::vector<int> choices_;  ///< descending
  std::array<Size, 33> sizes_;
  Size* size_ = &sizes_[0];
  int work_ = 1;
};

}  // namespace sdar::cpu
