// What a Shape allows: of values, of texts, of items and members; and what it cannot share with another.
#include <algorithm>

#include "form/regex.h"
#include "form/schema.h"
#include "util/error.h"

namespace sdar::form {
namespace {

constexpr size_t kMostDeterministic = size_t{1} << 13;
constexpr size_t kMostNamePatterns = 5;
constexpr int kMostDepth = 8;  // of members looked into to tell objects apart

uint8_t type_of(const Value& v) {
  static constexpr uint8_t kTypes[] = {kNulls, kBooleans, kNumbers, kStrings, kArrays, kObjects};
  return kTypes[v.kind];
}

const Value& false_schema() {
  static const Value schema{.kind = Value::kBoolean, .boolean = false};
  return schema;
}

}  // namespace

bool SchemaMerger::has_type(const Shape& shape, Types type) const {
  if (!(shape.types & type)) return false;
  return !shape.values || std::ranges::any_of(*shape.values, [&](const Value* v) { return type_of(*v) == type; });
}

/// Whether every value of the type matches.
bool SchemaMerger::unbounded(const Shape& shape, Types type) const {
  if (!(shape.types & type) || shape.values || !shape.minus.empty()) return false;
  switch (type) {
    case kNumbers:
      return shape.range.free() && !shape.range.integer;
    case kStrings:
      return shape.min_length == 0 && shape.max_length < 0 && shape.patterns.empty();
    case kArrays:
      return shape.items.empty() && shape.min_items == 0 && shape.max_items < 0 && !shape.contains;
    case kObjects:
      return shape.objects.empty() && shape.required.empty() && shape.absent.empty() && shape.property_names.empty() &&
             shape.min_properties == 0 && shape.max_properties < 0;
    default:
      return true;
  }
}

CharDfa SchemaMerger::texts(const Shape& shape, Types type) {
  CharDfa out;
  if (!has_type(shape, type)) return out;
  if (shape.values) {
    std::vector<std::u32string> all;
    for (const Value* v : listed(shape))
      if (type_of(*v) == type) all.push_back(code_points(type == kStrings ? v->text : v->json()));
    return CharDfa::texts(all, shape.at);
  }
  if (type == kNumbers) {
    out = numbers(shape.range, shape.at);
  } else {
    out = CharDfa::repeat(CharSet::all(), shape.min_length, shape.max_length, shape.at);
    for (const auto& pattern : shape.patterns) {
      const auto machine =
          CharDfa::of(parse_regex(pattern.regex, pattern.search, pattern.at), kMostDeterministic, pattern.at);
      if (!machine)
        throw Error(code::kInvalidOption,
                    pattern.at + ": together with other limits of the string the pattern needs more than " +
                        std::to_string(kMostDeterministic) + " states");
      out = out.intersect(*machine, pattern.at);
    }
  }
  for (const auto& minus : shape.minus)
    for (const Shape& other : *minus.shapes)
      if (has_type(other, type)) out = out.minus(texts(other, type), minus.at);
  return out;
}

bool SchemaMerger::valid(const Value& value, const Schemas& schemas) {
  for (const Shape& shape : alternatives(simplified(schemas)))
    if (allows(shape, value)) return true;
  return false;
}

std::vector<const Value*> SchemaMerger::listed(const Shape& shape) {
  std::vector<const Value*> allowed;
  Bounds bounds;
  for (const Value* v : *shape.values)
    if (allows_unlisted(shape, *v, bounds)) allowed.push_back(v);
  return allowed;
}

bool SchemaMerger::allows(const Shape& shape, const Value& value) {
  Bounds bounds;
  return allows(shape, value, bounds);
}

bool SchemaMerger::allows(const Shape& shape, const Value& value, Bounds& bounds) {
  if (shape.values) {
    work(comparisons(shape.values->size()), shape.at);
    if (std::ranges::none_of(*shape.values, [&](const Value* v) { return equal(*v, value); })) return false;
  }
  return allows_unlisted(shape, value, bounds);
}

bool SchemaMerger::allows_unlisted(const Shape& shape, const Value& value, Bounds& bounds) {
  if (!(shape.types & type_of(value))) return false;
  for (const auto& minus : shape.minus)
    for (const Shape& other : *minus.shapes)
      if (allows(other, value)) return false;
  if (value.is(Value::kNumber) || value.is(Value::kString)) {
    if (!bounds.shape) {
      bounds.shape = shape;
      bounds.shape->values.reset();
      bounds.shape->minus.clear();
    }
    const Types type = value.is(Value::kNumber) ? kNumbers : kStrings;
    if (unbounded(*bounds.shape, type)) return true;
    auto& machine = type == kNumbers ? bounds.numbers : bounds.strings;
    if (!machine) machine = texts(*bounds.shape, type);
    return machine->accepts(code_points(type == kNumbers ? value.json() : value.text));
  }
  if (value.is(Value::kArray)) {
    const auto size = static_cast<int64_t>(value.items.size());
    if (size < shape.min_items || (shape.max_items >= 0 && size > shape.max_items)) return false;
    int64_t contained = 0;
    for (size_t i = 0; i < value.items.size(); i++) {
      if (const Schemas item_schemas = item(shape, i); !item_schemas.empty() && !valid(value.items[i], item_schemas))
        return false;
      if (shape.contains && valid(value.items[i], {shape.contains})) contained++;
    }
    return contained >= shape.min_contains;
  }
  if (value.is(Value::kObject)) {
    const auto size = static_cast<int64_t>(value.members.size());
    if (size < shape.min_properties || (shape.max_properties >= 0 && size > shape.max_properties)) return false;
    for (const std::string& name : shape.required)
      if (!value.find(name)) return false;
    for (const auto& [name, v] : value.members)
      if (const Schemas schemas = member(shape, name); !schemas.empty() && !valid(v, schemas)) return false;
  }
  return true;
}

size_t SchemaMerger::prefix(const Shape& shape) const {
  size_t n = 0;
  for (const auto& items : shape.items)
    if (items.prefix) n = std::max(n, items.prefix->items.size());
  return n;
}

Schemas SchemaMerger::item(const Shape& shape, size_t i) const {
  Schemas out;
  for (const auto& items : shape.items) {
    if (items.prefix && i < items.prefix->items.size())
      out.push_back(&items.prefix->items[i]);
    else if (items.rest)
      out.push_back(items.rest);
  }
  return simplified(out);
}

std::vector<std::string> SchemaMerger::names(const Shape& shape) const {
  std::vector<std::string> out;
  std::map<std::string_view, bool> known;
  const auto add = [&](const std::string& name) {
    if (known.try_emplace(name, true).second) out.push_back(name);
  };
  for (const Value* object : shape.objects)
    if (const Value* properties = object->find("properties"))
      for (const auto& [name, schema] : properties->members) add(name);
  for (const std::string& name : shape.required) add(name);
  for (const std::string& name : shape.absent) add(name);
  return out;
}

const Value* SchemaMerger::find(const Value* object, const std::string& name) {
  constexpr size_t kFew = 16;
  if (!object || object->members.size() <= kFew) return object ? object->find(name) : nullptr;
  auto& known = members_[object];
  if (known.empty())
    for (const auto& [member, schema] : object->members) known.emplace(member, &schema);
  const auto found = known.find(name);
  return found == known.end() ? nullptr : found->second;
}

Schemas SchemaMerger::member(const Shape& shape, const std::string& name) {
  if (std::ranges::find(shape.absent, name) != shape.absent.end() || !name_allowed(shape, name))
    return {&false_schema()};
  Schemas out;
  for (const Value* object : shape.objects) {
    bool named = false;
    if (const Value* own = find(object->find("properties"), name)) out.push_back(own), named = true;
    if (const Value* patterns = object->find("patternProperties"))
      for (const auto& [pattern, schema] : patterns->members)
        if (name_machine(pattern, index_.path(schema)).accepts(code_points(name))) out.push_back(&schema), named = true;
    if (const Value* others = named ? nullptr : object->find("additionalProperties")) out.push_back(others);
  }
  return simplified(out);
}

std::vector<std::string> SchemaMerger::name_patterns(const Shape& shape) const {
  std::vector<std::string> out;
  for (const Value* object : shape.objects)
    if (const Value* patterns = object->find("patternProperties"))
      for (const auto& [pattern, schema] : patterns->members)
        if (std::ranges::find(out, pattern) == out.end()) {
          out.push_back(pattern);
          if (out.size() > kMostNamePatterns)
            refuse(*object, "patternProperties",
                   "more than " + std::to_string(kMostNamePatterns) + " patterns for one object");
        }
  return out;
}

const CharDfa& SchemaMerger::name_machine(const std::string& pattern, const std::string& at) {
  auto known = name_machines_.find(pattern);
  if (known == name_machines_.end()) {
    auto machine = CharDfa::of(parse_regex(pattern, true, at), kMostDeterministic, at);
    if (!machine)
      throw Error(code::kInvalidOption,
                  at + ": the pattern needs more than " + std::to_string(kMostDeterministic) + " states");
    known = name_machines_.emplace(pattern, std::move(*machine)).first;
  }
  return known->second;
}

bool SchemaMerger::name_allowed(const Shape& shape, const std::string& name) {
  if (shape.property_names.empty()) return true;
  return valid({.kind = Value::kString, .text = name}, shape.property_names);
}

bool SchemaMerger::apart(const Shape& a, const Shape& b, Types type, int depth) {
  if (!has_type(a, type) || !has_type(b, type)) return true;
  work(1, a.at);
  const auto none_of = [&](const Shape& values, const Shape& other) {
    Bounds bounds;
    return values.values && std::ranges::none_of(*values.values, [&](const Value* v) {
             return type_of(*v) == type && allows(other, *v, bounds);
           });
  };
  if (none_of(a, b) || none_of(b, a)) return true;
  if (type == kNulls || type == kBooleans) return false;
  if (type == kNumbers || type == kStrings) return texts(a, type).intersect(texts(b, type), a.at).empty();
  const auto schemas_apart = [&](const Schemas& x, const Schemas& y) {
    if (depth == kMostDepth) return false;
    for (const Shape& left : alternatives(simplified(x)))
      for (const Shape& right : alternatives(simplified(y)))
        for (const Types t : {kNulls, kBooleans, kNumbers, kStrings, kArrays, kObjects})
          if (!apart(left, right, t, depth + 1)) return false;
    return true;
  };
  if (type == kArrays) {
    if ((a.max_items >= 0 && a.max_items < b.min_items) || (b.max_items >= 0 && b.max_items < a.min_items)) return true;
    for (size_t i = 0; i < static_cast<size_t>(std::min<int64_t>(std::max(a.min_items, b.min_items), 16)); i++)
      if (schemas_apart(item(a, i), item(b, i))) return true;
    return false;
  }
  if ((a.max_properties >= 0 && a.max_properties < b.min_properties) ||
      (b.max_properties >= 0 && b.max_properties < a.min_properties))
    return true;
  // A name that one of them requires: the other forbids it, or wants another value.
  for (const auto* required : {&a.required, &b.required})
    for (const std::string& name : *required)
      if (schemas_apart(member(a, name), member(b, name))) return true;
  return false;
}

}  // namespace sdar::form
