#include "form/value.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "form/char_machine.h"
#include "util/error.h"

namespace sdar::form {
namespace {

constexpr size_t kMostDepth = 200;
constexpr int64_t kMostDigits = 400;

class Reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  Value root;
  std::string error;

  bool null() override { return add({}); }
  bool boolean(bool v) override { return add({.kind = Value::kBoolean, .boolean = v}); }
  bool number_integer(number_integer_t v) override { return add({.kind = Value::kNumber, .text = std::to_string(v)}); }
  bool number_unsigned(number_unsigned_t v) override {
    return add({.kind = Value::kNumber, .text = std::to_string(v)});
  }
  bool number_float(number_float_t, const string_t& text) override {
    return add({.kind = Value::kNumber, .text = text});
  }
  bool string(string_t& v) override { return add({.kind = Value::kString, .text = std::move(v)}); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Value::kObject); }
  bool start_array(size_t) override { return open(Value::kArray); }
  bool key(string_t& name) override {
    if (!names_.back().insert(name).second) {
      error = "the name " + Value{.kind = Value::kString, .text = name}.brief() + " occurs twice in one object";
      return false;
    }
    stack_.back().members.emplace_back(std::move(name), Value{});
    return true;
  }
  bool end_array() override { return close(); }
  bool end_object() override { return close(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& e) override {
    const std::string text = e.what();
    const size_t start = text.find("] ");
    error = start == std::string::npos ? "error at byte " + std::to_string(position) : text.substr(start + 2, 200);
    for (char& c : error)
      if (c < 0x20 || c > 0x7e) c = '?';  // it may quote bytes that are not UTF-8
    return false;
  }

 private:
  bool add(Value v) {
    if (stack_.empty())
      root = std::move(v);
    else if (stack_.back().is(Value::kArray))
      stack_.back().items.push_back(std::move(v));
    else
      stack_.back().members.back().second = std::move(v);
    return true;
  }
  bool open(Value::Kind kind) {
    if (stack_.size() == kMostDepth) {
      error = "nested deeper than " + std::to_string(kMostDepth) + " levels";
      return false;
    }
    stack_.push_back({.kind = kind});
    names_.emplace_back();
    return true;
  }
  bool close() {
    Value done = std::move(stack_.back());
    stack_.pop_back();
    names_.pop_back();
    return add(std::move(done));
  }

  std::vector<Value> stack_;
  std::vector<std::unordered_set<std::string>> names_;
};

void write_string(const std::string& text, std::string& out) {
  static constexpr char kShort[] = "btn\0fr";
  out += '"';
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\', out += c;
    } else if (u >= 8 && u <= 13 && u != 11) {
      out += '\\', out += kShort[u - 8];
    } else if (u < 0x20) {
      out += "\\u00", out += "01"[u >> 4], out += "0123456789abcdef"[u & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

std::string plain(const Decimal& d) {
  const auto [whole, fraction] = parts_of(d);
  return (d.negative && !d.zero() ? "-" : "") + whole + (fraction.empty() ? "" : "." + fraction);
}

void write(const Value& v, std::string& out) {
  Decimal d;
  switch (v.kind) {
    case Value::kNull:
      out += "null";
      return;
    case Value::kBoolean:
      out += v.boolean ? "true" : "false";
      return;
    case Value::kNumber:
      out += to_decimal(v.text, d) ? plain(d) : v.text;
      return;
    case Value::kString:
      return write_string(v.text, out);
    case Value::kArray:
      out += '[';
      for (size_t i = 0; i < v.items.size(); i++) {
        if (i > 0) out += ',';
        write(v.items[i], out);
      }
      out += ']';
      return;
    case Value::kObject:
      out += '{';
      for (size_t i = 0; i < v.members.size(); i++) {
        if (i > 0) out += ',';
        write_string(v.members[i].first, out);
        out += ':';
        write(v.members[i].second, out);
      }
      out += '}';
      return;
  }
}

}  // namespace

const Value* Value::find(std::string_view name) const {
  for (const Member& m : members)
    if (m.first == name) return &m.second;
  return nullptr;
}

bool Value::count(int64_t& out) const {
  Decimal d;
  if (kind != kNumber || !to_decimal(text, d) || d.scale != 0 || (d.negative && !d.zero()) || d.digits.size() > 15)
    return false;
  out = std::stoll(d.digits);
  return true;
}

std::string Value::json() const {
  std::string out;
  write(*this, out);
  return out;
}

std::string Value::brief() const {
  if (kind == kArray) return "[...]";
  if (kind == kObject) return "{...}";
  std::string text = json();
  if (text.size() <= 80) return text;
  size_t end = 80;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) end--;  // not inside a character
  return text.substr(0, end) + "…";
}

bool equal(const Value& a, const Value& b) {
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Value::kNull:
      return true;
    case Value::kBoolean:
      return a.boolean == b.boolean;
    case Value::kString:
      return a.text == b.text;
    case Value::kNumber: {
      Decimal x, y;
      return to_decimal(a.text, x) && to_decimal(b.text, y) ? x == y : a.text == b.text;
    }
    case Value::kArray:
      return std::ranges::equal(a.items, b.items, equal);
    case Value::kObject:
      return a.members.size() == b.members.size() && std::ranges::all_of(a.members, [&](const Value::Member& m) {
               const Value* other = b.find(m.first);
               return other && equal(m.second, *other);
             });
  }
  return false;
}

Value parse_value(std::string_view text, const std::string& at) {
  Reader reader;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader))
    throw Error(code::kInvalidOption, at + ": " + reader.error);
  return std::move(reader.root);
}

bool to_decimal(std::string_view number, Decimal& out) {
  out = {};
  if (number.starts_with('-')) out.negative = true, number.remove_prefix(1);
  int64_t exponent = 0;
  if (const size_t e = number.find_first_of("eE"); e != number.npos) {
    std::string_view digits = number.substr(e + 1);
    const bool negative = digits.starts_with('-');
    if (negative || digits.starts_with('+')) digits.remove_prefix(1);
    for (const char c : digits) exponent = std::min<int64_t>(exponent * 10 + (c - '0'), 1'000'000);
    if (negative) exponent = -exponent;
    number = number.substr(0, e);
  }
  std::string digits;
  int64_t scale = 0;
  for (size_t i = 0; i < number.size(); i++) {
    if (number[i] == '.')
      scale = static_cast<int64_t>(number.size() - i - 1);
    else
      digits += number[i];
  }
  scale -= exponent;
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  while (!digits.empty() && digits.back() == '0') digits.pop_back(), scale--;
  if (digits.empty()) return out.negative = false, true;
  if (scale < -kMostDigits || scale > kMostDigits || digits.size() > static_cast<size_t>(kMostDigits)) return false;
  if (scale < 0) digits.append(static_cast<size_t>(-scale), '0'), scale = 0;
  out.digits = std::move(digits);
  out.scale = scale;
  return true;
}

std::pair<std::string, std::string> parts_of(const Decimal& d) {
  const auto scale = static_cast<size_t>(d.scale);
  if (d.digits.size() > scale)
    return {d.digits.substr(0, d.digits.size() - scale), d.digits.substr(d.digits.size() - scale)};
  return {"0", d.zero() ? "" : std::string(scale - d.digits.size(), '0') + d.digits};
}

}  // namespace sdar::form
