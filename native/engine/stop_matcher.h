// Stop strings, matched on the bytes of the generated text as it grows.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sdar {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// Appends a token's bytes. True when a stop string now ends within them (and `armed`): matched_at() is where the
  /// earliest such one begins.
  bool append(std::string_view bytes, bool armed);
  int64_t matched_at() const { return matched_at_; }
  int64_t size() const { return static_cast<int64_t>(text_.size()); }
  /// Bytes from the start that can no longer become part of a stop string.
  int64_t released() const;

 private:
  std::vector<std::string> stops_;
  std::string text_;
  int64_t matched_at_ = -1;
};

inline bool StopMatcher::append(std::string_view bytes, bool armed) {
  const size_t before = text_.size();
  text_.append(bytes);
  if (!armed || bytes.empty()) return false;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    // A match that ends in the new bytes starts at most stop.size() - 1 before them.
    const size_t from = before >= stop.size() - 1 ? before - (stop.size() - 1) : 0;
    first = std::min(first, text_.find(stop, from));
  }
  if (first == std::string::npos) return false;
  matched_at_ = static_cast<int64_t>(first);
  return true;
}

inline int64_t StopMatcher::released() const {
  size_t held = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, text_.size()); n > held; n--) {
      if (text_.compare(text_.size() - n, n, stop, 0, n) == 0) held = n;
    }
  }
  return static_cast<int64_t>(text_.size() - held);
}

}  // namespace sdar
