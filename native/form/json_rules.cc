#include "form/json_rules.h"

namespace sdar::form {
namespace {

constexpr int kMostIndent = 20;

}  // namespace

void JsonRules::space(uint32_t from, uint32_t to) {
  if (whitespace_ != Whitespace::kSome) return builder_.empty(from, to);
  if (!space_) {
    space_ = builder_.rule("space");
    const uint32_t start = builder_[*space_].start, accept = builder_[*space_].accept;
    builder_.empty(start, accept);
    builder_.bytes(start, ' ', ' ', accept);
    uint32_t at = builder_.state();
    builder_.bytes(start, '\n', '\n', at);
    for (int i = 0; i < kMostIndent; i++) {
      const uint32_t next = builder_.state();
      builder_.empty(at, accept);
      builder_.bytes(at, ' ', ' ', next);
      builder_.bytes(at, '\t', '\t', next);
      at = next;
    }
    builder_.empty(at, accept);
  }
  builder_.call(from, *space_, to);
}

void JsonRules::punctuation(uint32_t from, char c, uint32_t to) {
  const uint32_t after = builder_.state();
  builder_.bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), after);
  if (whitespace_ == Whitespace::kSpace && (c == ',' || c == ':')) return builder_.bytes(after, ' ', ' ', to);
  space(after, to);
}

void JsonRules::closing(uint32_t from, char c, uint32_t to) {
  const uint32_t before = builder_.state();
  space(from, before);
  builder_.bytes(before, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
}

uint32_t JsonRules::string() {
  if (string_) return *string_;
  string_ = builder_.rule("string");
  const uint32_t body = builder_.state();
  builder_.bytes(builder_[*string_].start, '"', '"', body);
  builder_.bytes(body, '"', '"', builder_[*string_].accept);
  builder_.chars(body, CharSet{{0x20, kLastCodePoint}}.without({{'"', '"'}, {'\\', '\\'}}), body, Encoding::kUtf8);
  const uint32_t escape = builder_.state();
  builder_.bytes(body, '\\', '\\', escape);
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'})
    builder_.bytes(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), body);

  const CharSet hex = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, d = {{'D', 'D'}, {'d', 'd'}};
  const auto digit = [&](uint32_t from, const CharSet& set, uint32_t to) {
    builder_.chars(from, set, to, Encoding::kUtf8);
  };
  const uint32_t two = builder_.state(), one = builder_.state(),
                 three = builder_.state();  // hexadecimal digits to come
  digit(three, hex, two), digit(two, hex, one), digit(one, hex, body);
  const uint32_t first = builder_.state(), after_d = builder_.state();
  builder_.bytes(escape, 'u', 'u', first);
  digit(first, hex.without(d), three);
  digit(first, d, after_d);
  digit(after_d, {{'0', '7'}}, two);
  // D800 to DBFF, and the other half of the pair.
  const uint32_t high_two = builder_.state(), high_one = builder_.state(), high = builder_.state();
  digit(after_d, {{'8', '9'}, {'A', 'B'}, {'a', 'b'}}, high_two);
  digit(high_two, hex, high_one), digit(high_one, hex, high);
  const uint32_t low = builder_.state(), low_d = builder_.state();
  builder_.text(high, "\\u", low);
  digit(low, d, low_d);
  digit(low_d, {{'C', 'F'}, {'c', 'f'}}, two);
  return *string_;
}

uint32_t JsonRules::number(bool integer) {
  auto& rule = integer ? integer_ : number_;
  if (rule) return *rule;
  rule = builder_.rule(integer ? "integer" : "number");
  NumberRange range;
  range.integer = integer;
  numbers(range, builder_.at()).lower(builder_, builder_[*rule].start, builder_[*rule].accept, Encoding::kUtf8);
  return *rule;
}

uint32_t JsonRules::value() {
  if (value_) return *value_;
  value_ = builder_.rule("value");
  const uint32_t start = builder_[*value_].start, accept = builder_[*value_].accept;
  for (const char* word : {"null", "true", "false"}) builder_.text(start, word, accept);
  for (const uint32_t rule : {string(), number(false), array(), object()}) builder_.call(start, rule, accept);
  return *value_;
}

uint32_t JsonRules::array() {
  const uint32_t rule = builder_.rule("array");
  const uint32_t first = builder_.state(), item = builder_.state(), after = builder_.state();
  punctuation(builder_[rule].start, '[', first);
  builder_.bytes(first, ']', ']', builder_[rule].accept);
  builder_.empty(first, item);
  builder_.call(item, value(), after);
  punctuation(after, ',', item);
  closing(after, ']', builder_[rule].accept);
  return rule;
}

uint32_t JsonRules::object() {
  const uint32_t rule = builder_.rule("object");
  const uint32_t first = builder_.state(), name = builder_.state(), after_name = builder_.state(),
                 item = builder_.state(), after = builder_.state();
  punctuation(builder_[rule].start, '{', first);
  builder_.bytes(first, '}', '}', builder_[rule].accept);
  builder_.empty(first, name);
  builder_.call(name, string(), after_name);
  punctuation(after_name, ':', item);
  builder_.call(item, value(), after);
  punctuation(after, ',', name);
  closing(after, '}', builder_[rule].accept);
  return rule;
}

uint32_t add_json(Builder& builder, Whitespace whitespace) { return JsonRules(builder, whitespace).value(); }

}  // namespace sdar::form
