// Stop strings against a plain search of the whole text, and what they cost however long they are.
#include "engine/stop_matcher.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "check.h"

using sdar::StopMatcher;

namespace {

/// The same by searching all of the text again.
struct Plain {
  std::vector<std::string> stops;
  std::string text;
  int64_t matched_at = -1;

  bool append(const std::string& bytes, bool armed) {
    const size_t before = text.size();
    text += bytes;
    for (const std::string& stop : stops) {
      for (size_t end = before + 1; armed && end <= text.size(); end++) {
        if (end < stop.size() || text.compare(end - stop.size(), stop.size(), stop) != 0) continue;
        const auto at = static_cast<int64_t>(end - stop.size());
        if (matched_at < 0 || at < matched_at) matched_at = at;
      }
    }
    return matched_at >= 0;
  }
  int64_t released() const {
    size_t held = 0;
    for (const std::string& stop : stops)
      for (size_t n = 1; n < stop.size() && n <= text.size(); n++)
        if (text.compare(text.size() - n, n, stop, 0, n) == 0) held = std::max(held, n);
    return static_cast<int64_t>(text.size() - held);
  }
};

}  // namespace

TEST("random texts of few letters are matched and held back as a search of the whole text says") {
  std::mt19937 random(7);
  const auto letters = [&](int most) {
    std::string s(random() % most + 1, 'a');
    for (char& c : s) c = static_cast<char>('a' + random() % 2);
    return s;
  };
  int matches = 0, unarmed = 0;
  for (int round = 0; round < 4000; round++) {
    std::vector<std::string> stops;
    for (uint32_t i = random() % 4; i > 0; i--) stops.push_back(letters(7));
    StopMatcher matcher(stops);
    Plain plain{.stops = stops, .text = {}};
    for (int token = 0; token < 12; token++) {
      const std::string bytes = random() % 8 ? letters(4) : "";
      const bool armed = token >= round % 6;
      const bool found = plain.append(bytes, armed);
      CHECK(matcher.append(bytes, armed) == found);
      CHECK(matcher.size() == static_cast<int64_t>(plain.text.size()));
      if (found) CHECK(matcher.matched_at() == plain.matched_at);
      matches += found;
      if (found) break;
      unarmed += !armed && !bytes.empty();
      CHECK(matcher.released() == plain.released());
    }
  }
  CHECK(matches > 1000 && unarmed > 1000);
}

TEST("long stop strings that nearly match at every byte are compared a bounded number of times") {
  std::vector<std::string> stops;
  for (int i = 0; i < 64; i++) stops.push_back(std::string(1000, 'a') + static_cast<char>(0x80 + i));
  StopMatcher matcher(stops);
  // By plain search this would be 6.4e12 comparisons.
  const std::string text(10'000, 'a');
  for (int i = 0; i < 10; i++) CHECK(!matcher.append(text, true));
  CHECK(matcher.released() == matcher.size() - 1000);
  CHECK(matcher.append("\x80", true) && matcher.matched_at() == 99'000);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
