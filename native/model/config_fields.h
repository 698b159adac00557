// The members of one JSON object of a configuration, read with a name, a type and a range.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "util/error.h"
#include "util/json.h"

namespace sdar {

/// The members of one JSON object; null counts as absent.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  const Json* find(const char* name) const {
    const Json* value = object_.find(name);
    return value && !value->is_null() ? value : nullptr;
  }
  [[noreturn]] void refuse(const std::string& name, const Json* value, const std::string& allowed) const {
    throw Error(code::kConfigInvalid,
                where_ + ": " + name + " is " + (value ? value->brief() : "missing") + "; expected " + allowed);
  }
  [[noreturn]] void unsupported(const std::string& name, const Json& value, const std::string& allowed) const {
    throw Error(code::kUnsupportedModel,
                where_ + ": " + name + " is " + value.brief() + ", which is not supported; allowed: " + allowed);
  }

  int32_t integer(const char* name, int32_t least, int32_t most) const {
    return check_integer(name, find(name), least, most);
  }
  int32_t integer(const char* name, int32_t least, int32_t most, int32_t absent) const {
    return find(name) ? integer(name, least, most) : absent;
  }
  bool boolean(const char* name, bool absent) const {
    const Json* value = find(name);
    if (value && !value->boolean()) refuse(name, value, "true or false");
    return value ? *value->boolean() : absent;
  }
  /// `least` is allowed, too.
  double number_from(const char* name, double least, double most, double absent) const {
    const Json* value = find(name);
    double number = 0;
    if (value && (!value->number(number) || !(number >= least && number <= most)))
      refuse(name, value, "a number from " + Json{least}.brief() + " to " + Json{most}.brief());
    return value ? number : absent;
  }
  double number(const char* name, double above, double most) const {
    const Json* value = find(name);
    double number = 0;
    if (!value || !value->number(number) || !(number > above && number <= most))
      refuse(name, value, "a number above " + Json{above}.brief() + ", at most " + Json{most}.brief());
    return number;
  }
  /// One integer or a list of them; absent: none.
  std::vector<int32_t> integers(const char* name, int32_t least, int32_t most) const {
    std::vector<int32_t> all;
    const Json* value = find(name);
    if (!value) return all;
    if (!value->array()) return {check_integer(name, value, least, most)};
    for (const Json& item : *value->array())
      all.push_back(check_integer(std::string("an element of ") + name, &item, least, most));
    std::vector<int32_t> sorted = all;
    std::sort(sorted.begin(), sorted.end());
    const auto distinct = std::unique(sorted.begin(), sorted.end()) - sorted.begin();
    if (distinct > kMaxList)
      throw Error(code::kConfigInvalid, where_ + ": " + name + " has " + std::to_string(distinct) +
                                            " different elements; at most " + std::to_string(kMaxList) +
                                            " are allowed");
    // Each once, where it came first.
    std::vector<bool> seen(static_cast<size_t>(distinct));
    std::erase_if(all, [&](int32_t id) {
      const auto at = std::lower_bound(sorted.begin(), sorted.begin() + distinct, id) - sorted.begin();
      const bool again = seen[at];
      seen[at] = true;
      return again;
    });
    return all;
  }

 private:
  static constexpr int32_t kMaxList = 4096;  // of end ids, or of layers

  int32_t check_integer(const std::string& name, const Json* value, int32_t least, int32_t most) const {
    const int64_t* integer = value ? value->integer() : nullptr;
    if (!integer || *integer < least || *integer > most)
      refuse(name, value, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
    return static_cast<int32_t>(*integer);
  }

  const Json& object_;
  std::string where_;
};

}  // namespace sdar
