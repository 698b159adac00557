// What each type of form adds to a program. `at` is where it stands in the form, for errors.
#pragma once
#include <string>
#include <string_view>

#include "form/program.h"
#include "form/value.h"

namespace sdar::form {

enum class Whitespace { kNone, kSpace, kSome };

/// A rule for each; `add_json` is any value.
uint32_t add_regex(Builder& builder, std::string_view pattern, const std::string& at);
uint32_t add_choice(Builder& builder, const Value& choices, const std::string& at);
uint32_t add_grammar(Builder& builder, std::string_view grammar, const std::string& at);
uint32_t add_json(Builder& builder, Whitespace whitespace);
uint32_t add_schema(Builder& builder, const Value& schema, Whitespace whitespace, const std::string& at);
/// `add_form` adds a form of any other type.
using AddForm = uint32_t (*)(Builder& builder, const Value& form);
uint32_t add_answer(Builder& builder, const Value& form, AddForm add_form);

}  // namespace sdar::form
