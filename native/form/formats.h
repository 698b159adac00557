// The formats of JSON Schema's `format` that are enforced, as regular expressions of the whole string.
#pragma once
#include <string>
#include <string_view>

namespace sdar::form {

/// Null when the format is not enforced.
const char* format_pattern(std::string_view name);
/// Names of those that are, for messages.
std::string format_names();

}  // namespace sdar::form
