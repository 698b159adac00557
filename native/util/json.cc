#include "util/json.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "util/error.h"

namespace sdar {
namespace {

constexpr size_t kMaxDepth = 64;

/// Builds values from the parser's events; the open containers are the stack.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(nullptr); }
  bool boolean(bool v) override { return add(v); }
  bool number_integer(number_integer_t v) override { return add(static_cast<int64_t>(v)); }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<uint64_t>(INT64_MAX)) return add(static_cast<double>(v));
    return add(static_cast<int64_t>(v));
  }
  bool number_float(number_float_t v, const string_t&) override { return add(v); }
  bool string(string_t& v) override { return add(std::move(v)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::Object{}); }
  bool start_array(size_t) override { return open(Json::Array{}); }
  bool key(string_t& name) override {
    std::get<Json::Object>(stack_.back().value).emplace_back(std::move(name), Json{});
    return true;
  }
  bool end_array() override { return close(); }
  bool end_object() override {
    auto& members = std::get<Json::Object>(stack_.back().value);
    const auto by_name = [](const auto& a, const auto& b) { return a.first < b.first; };
    const auto same_name = [](const auto& a, const auto& b) { return a.first == b.first; };
    std::stable_sort(members.begin(), members.end(), by_name);
    for (auto at = members.begin(); (at = std::adjacent_find(at, members.end(), same_name)) != members.end(); ++at) {
      if (at->second == (at + 1)->second) continue;
      error = "the name " + Json{at->first}.brief() + " occurs twice in one object, with two values";
      return false;
    }
    members.erase(std::unique(members.begin(), members.end(), same_name), members.end());
    return close();
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& e) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while …; last read: …"
    const std::string text = e.what();
    const size_t start = text.find("] ");
    error = start == std::string::npos ? "error at byte " + std::to_string(position) : text.substr(start + 2);
    return false;
  }

  Json root;
  std::string error;

 private:
  bool add(decltype(Json::value) v) {
    Json& place = next();
    place.value = std::move(v);
    return true;
  }
  bool open(decltype(Json::value) v) {
    if (stack_.size() == kMaxDepth) {
      error = "nested deeper than " + std::to_string(kMaxDepth) + " levels";
      return false;
    }
    stack_.push_back(Json{std::move(v)});
    return true;
  }
  bool close() {
    Json done = std::move(stack_.back());
    stack_.pop_back();
    next() = std::move(done);
    return true;
  }
  /// Where the value that comes next belongs.
  Json& next() {
    if (stack_.empty()) return root;
    if (auto* array = std::get_if<Json::Array>(&stack_.back().value)) return array->emplace_back();
    return std::get<Json::Object>(stack_.back().value).back().second;
  }

  std::vector<Json> stack_;
};

}  // namespace

bool Json::number(double& out) const {
  if (const auto* i = std::get_if<int64_t>(&value)) {
    out = static_cast<double>(*i);
    return true;
  }
  const auto* d = std::get_if<double>(&value);
  if (d) out = *d;
  return d != nullptr;
}

const Json* Json::find(std::string_view name) const {
  const Object* members = object();
  if (!members) return nullptr;
  const auto it = std::lower_bound(members->begin(), members->end(), name,
                                   [](const auto& member, std::string_view wanted) { return member.first < wanted; });
  return it != members->end() && it->first == name ? &it->second : nullptr;
}

std::string Json::brief() const {
  if (const bool* b = boolean()) return *b ? "true" : "false";
  if (const int64_t* i = integer()) return std::to_string(*i);
  if (const auto* d = std::get_if<double>(&value)) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", *d);
    return text;
  }
  if (const std::string* s = string()) {
    std::string text = *s;
    if (text.size() > 80) {
      size_t end = 80;
      while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) end--;  // not inside a character
      text = text.substr(0, end) + "…";
    }
    for (char& c : text)
      if (static_cast<unsigned char>(c) < 0x20) c = '?';
    return '"' + text + '"';
  }
  return array() ? "[...]" : object() ? "{...}" : "null";
}

Json parse_json(std::string_view text, const std::string& where, const char* code) {
  Builder builder;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
    std::string why = builder.error;
    if (why.size() > 200) why.resize(200);
    for (char& c : why)
      if (c < 0x20 || c > 0x7e) c = '?';  // it may quote bytes that are not UTF-8
    throw Error(code, where + ": not valid JSON: " + why);
  }
  return std::move(builder.root);
}

}  // namespace sdar
