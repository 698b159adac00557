// Whether a request is drafted for at all, by the clock: DraftPolicy counts forwards, which tells little of time where a
// forward of many rows takes as much longer, as it does when weights lie in the processor's cache.
#pragma once
#include <array>
#include <cstdint>

namespace sdar {

class DraftGate {
 public:
  /// Requests of each kind that are measured before one is preferred.
  static constexpr int32_t kFirst = 4;
  /// One request of so many is of the other kind, in case that has become the faster one.
  static constexpr int32_t kRetry = 24;

  /// Requests of each kind that are remembered.
  static constexpr int32_t kRecent = 8;

  /// Whether the next request is drafted for: while the median one that was took fewer seconds a token than others.
  bool next();
  /// A request that ended: what it and its drafts took of the steps that decided its tokens.
  void observe(bool drafted, int32_t tokens, double seconds);

 private:
  struct Kind {
    int64_t begun = 0, ended = 0;
    std::array<double, kRecent> rates{};  ///< seconds a token of the last that ended
    double median() const;
  };
  std::array<Kind, 2> kinds_;  ///< by whether they were drafted for
  int64_t asked_ = 0;
};

}  // namespace sdar
