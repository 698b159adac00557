// The form that an answer must have: compiled once, then asked by any number of requests.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "form/program.h"

namespace sdar::form {

/// What `{type: …}` describes, as JSON:
///   {"type": "regex", "pattern": "…"}          ECMAScript, flag u; the whole text must match
///   {"type": "choice", "choices": ["…", …]}    one of these texts
///   {"type": "json"}                           any JSON value
///   {"type": "json_schema", "schema": {…}}     a JSON value that is valid (JSON Schema, draft 2020-12)
///   {"type": "grammar", "grammar": "…"}        GBNF
///   {"type": "answer", "reasoning": …, "calls": …, "format": …}   what an answer of a conversation is made of; each may be
///       null. reasoning {"open", "close", "opened"}: first comes `open` (unless the prompt ended with it: `opened`), text without
///       `close`, `close`, line ends; without `opened` all of it may be left out. calls {"mark", "begin", "end", "between", "tools":
///       [{"name", "schema"}], "choice", "parallel"}: a call is begin, {"name": …, "arguments": …} and end; begin begins with mark,
///       which text does not have. choice "auto": text with calls in it, or, with a format, that or calls; "none": no call;
///       "required": calls alone. More than one, with `between` where there is no
///       text, if parallel. format: a form of another type, in the place of text
/// `json` and `json_schema` take "whitespace": "none" is what JSON.stringify writes; "space" has a space after each comma and
/// colon, as Python's json.dumps writes it and most models have learnt it; "some" lets a space or a line break with at most
/// 20 spaces stand where JSON allows any amount. json_schema has "space" without it, json "some".
/// Throws Error(INVALID_OPTION): names the place in the form, what is wrong there, and what is allowed. Takes bounded time
/// and memory, whatever the form.
std::shared_ptr<const Program> compile(std::string_view json);

/// Texts longer than this are no forms.
inline constexpr size_t kMaxFormBytes = size_t{4} << 20;
inline constexpr size_t kMaxChoices = 100'000;

}  // namespace sdar::form
