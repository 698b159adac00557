// Stop strings, matched on the bytes of the generated text as it grows.
#pragma once
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

}  // namespace sdar
