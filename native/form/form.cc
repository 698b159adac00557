#include "form/form.h"

#include <algorithm>

#include "form/char_machine.h"
#include "form/compilers.h"
#include "form/regex.h"
#include "util/error.h"

namespace sdar::form {
namespace {

constexpr size_t kMostDeterministic = 4096;  // states; a larger automaton stays as it is and is made out as it is used

[[noreturn]] void refuse(const std::string& what) { throw Error(code::kInvalidOption, what); }

const std::string& text_of(const Value& form, const char* name) {
  const Value* member = form.find(name);
  if (!member || !member->is(Value::kString))
    refuse(std::string("format.") + name +
           (member ? " is " + member->brief() + "; it must be a string" : " is missing"));
  return member->text;
}

Whitespace whitespace_of(const Value& form, Whitespace otherwise) {
  const Value* member = form.find("whitespace");
  if (!member) return otherwise;
  if (member->is(Value::kString) && member->text == "none") return Whitespace::kNone;
  if (member->is(Value::kString) && member->text == "space") return Whitespace::kSpace;
  if (member->is(Value::kString) && member->text == "some") return Whitespace::kSome;
  refuse("format.whitespace is " + member->brief() + "; it must be \"none\", \"space\" or \"some\"");
}

void check_members(const Value& form, std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : form.members)
    if (name != "type" && std::ranges::find(known, name) == known.end())
      refuse("format." + name.substr(0, 80) + " is not a member of a format of this type");
}

uint32_t add_form(Builder& builder, const Value& form) {
  const std::string& type = text_of(form, "type");
  if (type == "regex") {
    check_members(form, {"pattern"});
    return add_regex(builder, text_of(form, "pattern"), "format.pattern");
  }
  if (type == "choice") {
    check_members(form, {"choices"});
    const Value* choices = form.find("choices");
    if (!choices) refuse("format.choices is missing");
    return add_choice(builder, *choices, "format.choices");
  }
  if (type == "grammar") {
    check_members(form, {"grammar"});
    return add_grammar(builder, text_of(form, "grammar"), "format.grammar");
  }
  if (type == "json") {
    check_members(form, {"whitespace"});
    return add_json(builder, whitespace_of(form, Whitespace::kSome));
  }
  if (type == "json_schema") {
    check_members(form, {"schema", "whitespace"});
    const Value* schema = form.find("schema");
    if (!schema) refuse("format.schema is missing");
    return add_schema(builder, *schema, whitespace_of(form, Whitespace::kSpace), "format.schema");
  }
  if (type == "answer") return add_answer(builder, form, add_form);
  refuse("format.type is " + form.find("type")->brief() +
         "; it must be \"json_schema\", \"json\", \"regex\", \"choice\" or \"grammar\"");
}

}  // namespace

uint32_t add_regex(Builder& builder, std::string_view pattern, const std::string& at) {
  builder.at(at);
  const CharNfa nfa = parse_regex(pattern, false, at);
  const uint32_t rule = builder.rule("regex");
  const uint32_t start = builder[rule].start, accept = builder[rule].accept;
  if (const auto dfa = CharDfa::of(nfa, kMostDeterministic, at))
    dfa->lower(builder, start, accept, Encoding::kUtf8);
  else
    nfa.lower(builder, start, accept, Encoding::kUtf8);
  return rule;
}

uint32_t add_choice(Builder& builder, const Value& choices, const std::string& at) {
  builder.at(at);
  if (!choices.is(Value::kArray) || choices.items.empty() || choices.items.size() > kMaxChoices)
    refuse(at + " must be a list of 1 to " + std::to_string(kMaxChoices) + " strings");
  std::vector<std::string> texts;
  for (size_t i = 0; i < choices.items.size(); i++) {
    const Value& choice = choices.items[i];
    if (!choice.is(Value::kString) || choice.text.empty())
      refuse(at + "[" + std::to_string(i) + "] is " + choice.brief() + "; it must be a string that is not empty");
    texts.push_back(choice.text);
  }
  const uint32_t rule = builder.rule("choice");
  builder.texts(builder[rule].start, texts, builder[rule].accept);
  return rule;
}

std::shared_ptr<const Program> compile(std::string_view json) {
  if (json.size() > kMaxFormBytes)
    refuse("format has " + std::to_string(json.size()) + " bytes as JSON; at most " + std::to_string(kMaxFormBytes) +
           " are allowed");
  const Value form = parse_value(json, "format");
  if (!form.is(Value::kObject)) refuse("format is " + form.brief() + "; it must be an object with a type");
  const WorkLimit limit;
  Builder builder("format");
  const uint32_t root = add_form(builder, form);
  return std::make_shared<const Program>(builder.finish(root));
}

}  // namespace sdar::form
