// Stop strings, matched on the bytes of the generated text as it grows (Knuth, Morris and Pratt, for each of them): a
// byte costs the same however long they are.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sdar {

class StopMatcher {
 public:
  /// None of them is empty.
  explicit StopMatcher(const std::vector<std::string>& stops);

  /// Appends a token's bytes. True when a stop string now ends within them (and `armed`): matched_at() is where the
  /// earliest such one begins.
  bool append(std::string_view bytes, bool armed);
  int64_t matched_at() const { return matched_at_; }
  int64_t size() const { return size_; }
  /// Bytes from the start that can no longer become part of a stop string.
  int64_t released() const;

 private:
  struct Stop {
    std::string text;
    std::vector<uint32_t> border;  ///< [n]: the longest proper prefix of text's first n + 1 bytes that also ends them
    size_t matched = 0;            ///< bytes of text that the generated text ends with; less than all

    /// Whether the text ends with all of it after this byte.
    bool take(char byte);
  };

  std::vector<Stop> stops_;
  int64_t size_ = 0;
  int64_t matched_at_ = -1;
};

inline StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& text : stops) {
    Stop stop{.text = text, .border = std::vector<uint32_t>(text.size())};
    for (size_t i = 1, n = 0; i < text.size(); i++) {
      while (n > 0 && text[i] != text[n]) n = stop.border[n - 1];
      stop.border[i] = static_cast<uint32_t>(n += text[i] == text[n]);
    }
    stops_.push_back(std::move(stop));
  }
}

inline bool StopMatcher::Stop::take(char byte) {
  while (matched > 0 && text[matched] != byte) matched = border[matched - 1];
  matched += text[matched] == byte;
  if (matched < text.size()) return false;
  matched = border[matched - 1];
  return true;
}

inline bool StopMatcher::append(std::string_view bytes, bool armed) {
  int64_t first = -1;
  for (Stop& stop : stops_) {
    for (size_t i = 0; i < bytes.size(); i++) {
      if (!stop.take(bytes[i])) continue;
      const int64_t at = size_ + static_cast<int64_t>(i + 1) - static_cast<int64_t>(stop.text.size());
      if (first < 0 || at < first) first = at;
    }
  }
  size_ += static_cast<int64_t>(bytes.size());
  if (!armed || first < 0) return false;
  matched_at_ = first;
  return true;
}

inline int64_t StopMatcher::released() const {
  size_t held = 0;
  for (const Stop& stop : stops_) held = std::max(held, stop.matched);
  return size_ - static_cast<int64_t>(held);
}

}  // namespace sdar
