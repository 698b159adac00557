// How the minutes are spent, and what found no place in them.
#pragma once
#include <chrono>
#include <string>
#include <vector>

namespace gpu_bench {

class Budget {
 public:
  explicit Budget(double minutes) : began_(Clock::now()), seconds_(60 * minutes) {}

  double spent() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }
  double left() const { return seconds_ - spent(); }

  /// Gives the part that begins now `share` of what is left.
  void begin_part(double share) { part_end_ = spent() + share * left(); }
  double part_left() const { return part_end_ - spent(); }

  /// False when so many seconds are not left to the part; what they were for is then listed.
  bool allows(double seconds, const std::string& what) {
    if (part_left() >= seconds) return true;
    skipped.push_back(what + ": no time left");
    return false;
  }

  std::vector<std::string> skipped;

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point began_;
  double seconds_;
  double part_end_ = 0;
};

}  // namespace gpu_bench
