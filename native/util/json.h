// JSON texts as values: strict (UTF-8, no name twice with two values, bounded depth). The only user of the vendored parser is
// json.cc.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace sdar {

struct Json {
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  ///< ascending by name
  /// An integer that does not fit int64 is a double.
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value = nullptr;

  bool operator==(const Json&) const = default;

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value); }
  const bool* boolean() const { return std::get_if<bool>(&value); }
  const int64_t* integer() const { return std::get_if<int64_t>(&value); }
  const std::string* string() const { return std::get_if<std::string>(&value); }
  const Array* array() const { return std::get_if<Array>(&value); }
  const Object* object() const { return std::get_if<Object>(&value); }
  /// Integer or double as a double; false when neither.
  bool number(double& out) const;
  /// Member of an object; null when absent or not an object.
  const Json* find(std::string_view name) const;
  /// The value as JSON, for messages: nested values as [...] and {...}, long strings shortened.
  std::string brief() const;
};

/// Throws Error(code, "<where>: not valid JSON: …") for anything else than one JSON value of at most 64 levels. A byte
/// order mark before it is passed over; so is a name that comes again in its object with an equal value.
Json parse_json(std::string_view text, const std::string& where, const char* code);

}  // namespace sdar
