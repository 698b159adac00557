// The syntax of a regular expression, as a tree.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "form/char_set.h"

namespace sdar::form {

enum class Assertion : uint8_t { kNone, kStart, kEnd, kBoundary, kNoBoundary };

struct RegexNode {
  enum Kind : uint8_t { kEmpty, kSet, kConcat, kAlternatives, kRepeat, kAssert, kLook, kRule } kind;
  CharSet set{};
  std::vector<uint32_t> kids{};
  int64_t least = 0, most = 0;  ///< of a repetition; most below 0: no bound
  Assertion assertion = Assertion::kNone;
  bool negated = false;  ///< of a lookahead
  uint32_t rule = 0;     ///< of a grammar
};

struct RegexSyntax {
  std::vector<RegexNode> nodes;
  uint32_t root = 0;
  bool has_boundaries = false;  ///< \b or \B
};

/// Throws Error(INVALID_OPTION), with `at` and the place in the pattern.
RegexSyntax parse_regex_syntax(std::string_view pattern, const std::string& at);

}  // namespace sdar::form
