// Regular expressions as ECMAScript writes them with the flag u: alternatives, quantifiers (greedy or lazy: the same
// texts), groups, classes, escapes, general categories as \p{…}, anchors, word boundaries, lookaheads. What looks behind, or back at
// a group, is refused by name.
#pragma once
#include <string>
#include <string_view>

#include "form/char_machine.h"

namespace sdar::form {

/// `at` is the pattern's place in the form, for errors (INVALID_OPTION). With `search` the machine matches every text that
/// has a match somewhere in it, as `pattern` of JSON Schema means; else a match must be the whole text.
CharNfa parse_regex(std::string_view pattern, bool search, const std::string& at);

/// The set of \p{name}; nothing when there is no such general category.
bool unicode_class(std::string_view name, CharSet& out);

}  // namespace sdar::form
