// A form's JSON as it was written: members in their order, numbers as their digits. util/json.h sorts and rounds them.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sdar::form {

struct Value {
  enum Kind : uint8_t { kNull, kBoolean, kNumber, kString, kArray, kObject };
  using Member = std::pair<std::string, Value>;

  Kind kind = kNull;
  bool boolean = false;
  std::string text{};             ///< of a string, its UTF-8; of a number, its digits
  std::vector<Value> items{};     ///< of an array
  std::vector<Member> members{};  ///< of an object

  /// Member of an object; null when absent or not an object.
  const Value* find(std::string_view name) const;
  bool is(Kind k) const { return kind == k; }
  /// Sets out and returns true for a number that is an integer from 0 to 2^53, however it is written.
  bool count(int64_t& out) const;
  /// JSON.stringify of it, but numbers as written in plain decimals.
  std::string json() const;
  /// For messages: shortened, nested values as [...] and {...}.
  std::string brief() const;
};

/// Equal as JSON Schema means it: 1 and 1.0 are, members may have any order.
bool equal(const Value& a, const Value& b);

/// Throws Error(INVALID_OPTION, "<at>: …") for what is not valid JSON, also for more than 200 levels and for a name that comes twice
/// in an object.
Value parse_value(std::string_view text, const std::string& at);

/// A JSON number without its exponent: ± digits · 10^-scale, no zeros at the ends but that of 0.
struct Decimal {
  bool negative = false;
  std::string digits = "0";
  int64_t scale = 0;  ///< at least 0
  bool zero() const { return digits == "0"; }
  bool operator==(const Decimal&) const = default;
};
/// False when the exponent makes it longer than 400 digits.
bool to_decimal(std::string_view number, Decimal& out);
/// Digits before and after the point, the latter without zeros at the end.
std::pair<std::string, std::string> parts_of(const Decimal& d);

}  // namespace sdar::form
