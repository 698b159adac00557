// Keywords of one subschema into a Shape; whatever is not enforced is refused by name.
#include <algorithm>

#include "form/formats.h"
#include "form/schema.h"
#include "util/error.h"

namespace sdar::form {
namespace {

uint8_t type_of(std::string_view name) {
  if (name == "null") return kNulls;
  if (name == "boolean") return kBooleans;
  if (name == "number" || name == "integer") return kNumbers;
  if (name == "string") return kStrings;
  if (name == "array") return kArrays;
  return name == "object" ? kObjects : 0;
}

void tighten(int64_t& least, int64_t value) { least = std::max(least, value); }
void limit(int64_t& most, int64_t value) { most = most < 0 ? value : std::min(most, value); }

}  // namespace

void SchemaMerger::apply_keyword(const Value& schema, const std::string& name, const Value& value, Shape& shape) {
  const auto wrong = [&](const char* what) { refuse(schema, name, value.brief() + "; it must be " + what); };
  const auto count = [&] {
    int64_t n = 0;
    if (!value.count(n)) wrong("a whole number from 0");
    return n;
  };
  const auto decimal = [&] {
    Decimal d;
    if (!value.is(Value::kNumber) || !to_decimal(value.text, d)) wrong("a number of at most 400 digits");
    return d;
  };
  const auto at = [&] { return index_.path(schema) + "/" + name; };
  const auto object = [&] {
    if (!value.is(Value::kObject)) wrong("an object");
  };

  if (name == "type") {
    uint8_t types = 0;
    bool integer = false, number = false;
    const auto add = [&](const Value& type) {
      const uint8_t bit = type.is(Value::kString) ? type_of(type.text) : 0;
      if (!bit) wrong("null, boolean, number, integer, string, array, object or a list of these");
      types |= bit;
      integer |= type.text == "integer";
      number |= type.text == "number";
    };
    if (value.is(Value::kArray))
      for (const Value& type : value.items) add(type);
    else
      add(value);
    shape.types &= types;
    if (integer && !number) shape.range.integer = true;
  } else if (name == "enum" || name == "const") {
    if (name == "enum" && !value.is(Value::kArray)) wrong("a list");
    std::vector<const Value*> values;
    const auto add = [&](const Value& v) {
      if (shape.values) work(comparisons(shape.values->size()), at());
      const auto same = [&](const Value* other) { return equal(*other, v); };
      if (!shape.values || std::ranges::any_of(*shape.values, same)) values.push_back(&v);
    };
    if (name == "const")
      add(value);
    else
      for (const Value& v : value.items) add(v);
    shape.values = std::move(values);
  } else if (name == "minimum" || name == "exclusiveMinimum") {
    shape.range.at_least(decimal(), name != "minimum");
  } else if (name == "maximum" || name == "exclusiveMaximum") {
    shape.range.at_most(decimal(), name != "maximum");
  } else if (name == "multipleOf") {
    const Decimal d = decimal();
    if (d.negative || d.zero()) wrong("a number above 0");
    shape.range.multiples.push_back(d);
  } else if (name == "minLength") {
    tighten(shape.min_length, count());
  } else if (name == "maxLength") {
    limit(shape.max_length, count());
  } else if (name == "pattern") {
    if (!value.is(Value::kString)) wrong("a string");
    shape.patterns.push_back({value.text, true, at()});
  } else if (name == "format") {
    const char* pattern = value.is(Value::kString) ? format_pattern(value.text) : nullptr;
    if (!pattern) refuse(schema, name, value.brief() + " is not enforced; " + format_names() + " are");
    shape.patterns.push_back({pattern, false, at()});
    if (value.text == "hostname") limit(shape.max_length, 253);
  } else if (name == "items" || name == "additionalProperties") {
    if (!value.is(Value::kObject) && !value.is(Value::kBoolean)) wrong("a schema");
  } else if (name == "prefixItems") {
    if (!value.is(Value::kArray)) wrong("a list of schemas");
  } else if (name == "minItems") {
    tighten(shape.min_items, count());
  } else if (name == "maxItems") {
    limit(shape.max_items, count());
  } else if (name == "contains") {
    const Value* least = schema.find("minContains");
    int64_t n = 1;
    if (least && !least->count(n)) refuse(schema, "minContains", least->brief() + "; it must be a whole number from 0");
    if (schema.find("maxContains")) refuse(schema, "maxContains", "it is not enforced");
    if (n == 0) return;
    if (shape.contains) refuse(schema, name, "a second contains for the same value, which is not supported");
    shape.contains = &value;
    shape.min_contains = n;
  } else if (name == "minContains" || name == "maxContains") {
    return;  // of its contains; without one they say nothing
  } else if (name == "properties" || name == "patternProperties") {
    object();
  } else if (name == "required") {
    if (!value.is(Value::kArray)) wrong("a list of strings");
    for (const Value& property : value.items) {
      if (!property.is(Value::kString)) wrong("a list of strings");
      if (std::ranges::find(shape.required, property.text) == shape.required.end())
        shape.required.push_back(property.text);
    }
  } else if (name == "minProperties") {
    tighten(shape.min_properties, count());
  } else if (name == "maxProperties") {
    limit(shape.max_properties, count());
  } else if (name == "propertyNames") {
    shape.property_names.push_back(&value);
  } else if ((name == "uniqueItems" && value.is(Value::kBoolean) && !value.boolean) ||
             ((name == "unevaluatedItems" || name == "unevaluatedProperties") && value.is(Value::kBoolean) &&
              value.boolean)) {
    return;  // says nothing
  } else {
    refuse(schema, name, "this keyword is not enforced");
  }
}

}  // namespace sdar::form
