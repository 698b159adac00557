// Sets of code points, as a regular expression's classes name them.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

namespace sdar::form {

inline constexpr char32_t kLastCodePoint = 0x10ffff;

class CharSet {
 public:
  struct Range {
    char32_t low, high;  ///< both belong to it
    bool operator==(const Range&) const = default;
  };

  CharSet() = default;
  CharSet(std::initializer_list<Range> ranges) {
    for (const Range& r : ranges) add(r.low, r.high);
  }
  static CharSet all() { return {{0, kLastCodePoint}}; }
  static CharSet of(char32_t c) { return {{c, c}}; }

  void add(char32_t low, char32_t high);
  void add(const CharSet& other);
  bool empty() const { return ranges_.empty(); }
  bool contains(char32_t c) const;
  /// Ascending, none touches the next.
  const std::vector<Range>& ranges() const { return ranges_; }

  CharSet complement() const;
  CharSet intersect(const CharSet& other) const;
  CharSet without(const CharSet& other) const { return intersect(other.complement()); }
  bool operator==(const CharSet&) const = default;

 private:
  std::vector<Range> ranges_;
};

}  // namespace sdar::form
