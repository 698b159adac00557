// JSON numbers within bounds, as automata on their digits.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "form/char_machine.h"
#include "form/value.h"

namespace sdar::form {

struct NumberRange {
  bool integer = false;
  std::optional<Decimal> low, high;
  bool low_open = false, high_open = false;  ///< the bound itself is left out
  std::vector<Decimal> multiples;            ///< of all of these, positive

  bool free() const { return !low && !high && multiples.empty(); }
  void at_least(const Decimal& bound, bool open);
  void at_most(const Decimal& bound, bool open);
};

int compare(const Decimal& a, const Decimal& b);

/// The numbers of the range, in plain decimals: at most 21 digits before the point and 24 after it, so that no number is
/// without end. With exponents, within a double's range, only where there are neither bounds nor multiples. Throws Error(INVALID_OPTION), with `at`, where the multiples need too many states.
CharDfa numbers(const NumberRange& range, const std::string& at);

}  // namespace sdar::form
