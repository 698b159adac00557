#include "form/char_set.h"

#include <algorithm>

namespace sdar::form {

void CharSet::add(char32_t low, char32_t high) {
  if (low > high) return;
  // The common case: classes are written in ascending order.
  if (ranges_.empty() || low > ranges_.back().high + 1) {
    ranges_.push_back({low, high});
    return;
  }
  const auto first =
      std::lower_bound(ranges_.begin(), ranges_.end(), low, [](const Range& r, char32_t c) { return r.high + 1 < c; });
  auto last = first;
  for (; last != ranges_.end() && last->low <= high + 1; ++last) {
    low = std::min(low, last->low);
    high = std::max(high, last->high);
  }
  if (first == last) {
    ranges_.insert(first, {low, high});
  } else {
    *first = {low, high};
    ranges_.erase(first + 1, last);
  }
}

void CharSet::add(const CharSet& other) {
  for (const Range& r : other.ranges_) add(r.low, r.high);
}

bool CharSet::contains(char32_t c) const {
  const auto at =
      std::lower_bound(ranges_.begin(), ranges_.end(), c, [](const Range& r, char32_t x) { return r.high < x; });
  return at != ranges_.end() && at->low <= c;
}

CharSet CharSet::complement() const {
  CharSet out;
  char32_t next = 0;
  for (const Range& r : ranges_) {
    if (r.low > next) out.ranges_.push_back({next, r.low - 1});
    next = r.high + 1;
  }
  if (next <= kLastCodePoint) out.ranges_.push_back({next, kLastCodePoint});
  return out;
}

CharSet CharSet::intersect(const CharSet& other) const {
  CharSet out;
  for (size_t i = 0, j = 0; i < ranges_.size() && j < other.ranges_.size();) {
    const Range &a = ranges_[i], &b = other.ranges_[j];
    const char32_t low = std::max(a.low, b.low), high = std::min(a.high, b.high);
    if (low <= high) out.ranges_.push_back({low, high});
    if (a.high < b.high)
      i++;
    else
      j++;
  }
  return out;
}

}  // namespace sdar::form
