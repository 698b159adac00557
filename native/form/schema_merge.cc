// Subschemas to alternatives: $ref, allOf, and the choices between anyOf, oneOf, if and the dependent… keywords.
#include <algorithm>
#include <set>

#include "form/schema.h"
#include "util/error.h"

namespace sdar::form {

/// The subschemas that led to one, to notice when it leads to itself.
struct Chain {
  const Value* schema;
  std::shared_ptr<const Chain> before;
  int depth;
};

namespace {

constexpr size_t kMostAlternatives = 1024;
constexpr size_t kMostWork = 400'000;  // subschemas merged, pairs told apart
constexpr size_t kMostExclusive = 64;  // options of a oneOf
constexpr int kMostDepth = 1000;
constexpr int kMostNested = 24;  // of oneOf, not and if in each other

const char* const kAnnotations[] = {"title",           "description",   "default",         "examples",
                                    "$comment",        "deprecated",    "readOnly",        "writeOnly",
                                    "$schema",         "$id",           "$anchor",         "$defs",
                                    "definitions",     "contentSchema", "contentEncoding", "$dynamicAnchor",
                                    "contentMediaType"};

/// Whether all options are constants, no two of them equal: then at most one matches.
bool different_values(const Value& options) {
  std::set<std::string> texts;
  for (const Value& option : options.items) {
    const Value* constant = option.find("const");
    if (!constant || constant->is(Value::kArray) || constant->is(Value::kObject)) return false;
    for (const auto& m : option.members)
      if (m.first != "const" && !is_annotation(m.first)) return false;
    if (!texts.insert(constant->json()).second) return false;
  }
  return true;
}

}  // namespace

bool is_annotation(const std::string& keyword) {
  return keyword.starts_with("x-") || std::ranges::find(kAnnotations, keyword) != std::end(kAnnotations);
}

void SchemaMerger::work(size_t amount, const std::string& at) {
  work_ += amount;
  if (work_ > kMostWork)
    throw Error(code::kInvalidOption, at + ": the schema's combinations of subschemas are too many to look at");
}

void SchemaMerger::refuse(const Value& schema, const std::string& keyword, const std::string& what) const {
  throw Error(code::kInvalidOption, index_.path(schema) + "/" + keyword.substr(0, 80) + ": " + what);
}

Schemas SchemaMerger::simplified(const Schemas& schemas) const {
  Schemas out;
  for (const Value* s : schemas) {
    if (s->is(Value::kBoolean) && s->boolean) continue;
    if (s->is(Value::kObject) && std::ranges::all_of(s->members, [](const auto& m) { return is_annotation(m.first); }))
      continue;
    if (is_false(s)) return {s};
    if (std::ranges::find(out, s) == out.end()) out.push_back(s);
  }
  return out;
}

Schemas SchemaMerger::plain_options(const Value& schema) const {
  const Value::Member* only = nullptr;
  for (const auto& m : schema.members) {
    if (is_annotation(m.first)) continue;
    if (only) return {};
    only = &m;
  }
  if (!only) return {};
  if (only->first == "$ref" && only->second.is(Value::kString)) return {&index_.resolve(schema, only->second.text)};
  if (!only->second.is(Value::kArray)) return {};
  if (only->first != "anyOf" && (only->first != "oneOf" || !different_values(only->second))) return {};
  Schemas out;
  for (const Value& option : only->second.items) out.push_back(&option);
  return out;
}

std::vector<Shape> SchemaMerger::alternatives(const Schemas& schemas) {
  if (++nested_ > kMostNested)
    throw Error(code::kInvalidOption, (schemas.empty() ? "format.schema" : index_.path(*schemas[0])) +
                                          ": oneOf, not and if are nested too deeply");
  std::vector<Pending> pending;
  for (const Value* s : schemas) pending.push_back({s, nullptr});
  std::vector<Shape> out;
  Shape shape;
  shape.at = schemas.empty() ? "" : index_.path(*schemas[0]);
  expand(std::move(shape), std::move(pending), {}, out);
  nested_--;
  return out;
}

std::shared_ptr<const std::vector<Shape>> SchemaMerger::kept_alternatives(const Value& schema) {
  auto& kept = kept_[&schema];
  if (!kept) {
    auto made = std::make_shared<const std::vector<Shape>>(alternatives({&schema}));
    return kept_[&schema] = std::move(made);
  }
  return kept;
}

void SchemaMerger::expand(Shape shape, std::vector<Pending> pending, std::vector<Choice> choices,
                          std::vector<Shape>& out) {
  for (size_t i = 0; i < pending.size(); i++) {
    const Pending next = pending[i];
    std::vector<Pending> more;
    apply(next, shape, more, choices);
    pending.insert(pending.end(), more.begin(), more.end());
  }
  if (shape.types == 0) return;
  if (choices.empty()) {
    if (out.size() == kMostAlternatives)
      throw Error(code::kInvalidOption, shape.at + ": its anyOf, oneOf and allOf have more than " +
                                            std::to_string(kMostAlternatives) + " combinations");
    out.push_back(std::move(shape));
    return;
  }
  const Choice choice = std::move(choices.back());
  choices.pop_back();
  for (const Option& option : choice.options) {
    work(1 + shape.seen.size() / 16, shape.at);
    Shape with = shape;
    for (const auto& name : option.required)
      if (std::ranges::find(with.required, name) == with.required.end()) with.required.push_back(name);
    if (!option.absent.empty()) with.absent.push_back(option.absent);
    for (const Value* other : option.other_than) with.minus.push_back({kept_alternatives(*other), choice.at});
    std::vector<Pending> then;
    for (const Value* s : option.schemas) then.push_back({s, choice.chain});
    expand(std::move(with), std::move(then), choices, out);
  }
}

void SchemaMerger::apply(const Pending& pending, Shape& shape, std::vector<Pending>& more,
                         std::vector<Choice>& choices) {
  const Value& schema = *pending.schema;
  work(1, shape.at);
  for (const Chain* c = pending.chain.get(); c; c = c->before.get())
    if (c->schema == &schema)
      throw Error(code::kInvalidOption, index_.path(schema) + ": the schema refers to itself before any value begins");
  if (pending.chain && pending.chain->depth > kMostDepth)
    throw Error(code::kInvalidOption,
                index_.path(schema) + ": subschemas of one value are nested deeper than " + std::to_string(kMostDepth));
  if (std::ranges::find(shape.seen, &schema) != shape.seen.end()) return;
  shape.seen.push_back(&schema);
  if (schema.is(Value::kBoolean)) {
    if (!schema.boolean) shape.types = 0;
    return;
  }
  if (!schema.is(Value::kObject))
    throw Error(code::kInvalidOption,
                index_.path(schema) + " is " + schema.brief() + "; a schema is an object, true or false");
  bool object = false;
  for (const auto& [name, value] : schema.members) {
    object |= name == "properties" || name == "patternProperties" || name == "additionalProperties";
    if (name == "$schema" && value.text.find("json-schema.org/") == std::string::npos)
      refuse(schema, name, value.brief() + " is no dialect that is supported; it must be that of draft 2020-12");
    if (!is_annotation(name) && !apply_choice(schema, name, value, shape, pending, more, choices))
      apply_keyword(schema, name, value, shape);
  }
  if (object) shape.objects.push_back(&schema);
  const Value *prefix = schema.find("prefixItems"), *rest = schema.find("items");
  if (prefix || rest) shape.items.push_back({prefix, rest});
}

bool SchemaMerger::apply_choice(const Value& schema, const std::string& name, const Value& value, Shape&,
                                const Pending& pending, std::vector<Pending>& more, std::vector<Choice>& choices) {
  const auto chain =
      std::make_shared<const Chain>(Chain{&schema, pending.chain, pending.chain ? pending.chain->depth + 1 : 1});
  const std::string at = index_.path(schema) + "/" + name;
  const auto must_be = [&](Value::Kind kind, const char* what) {
    if (!value.is(kind)) refuse(schema, name, value.brief() + "; it must be " + what);
  };
  if (name == "$ref") {
    must_be(Value::kString, "a string");
    more.push_back({&index_.resolve(schema, value.text), chain});
  } else if (name == "allOf") {
    must_be(Value::kArray, "a list of schemas");
    for (const Value& part : value.items) more.push_back({&part, chain});
  } else if (name == "anyOf" || name == "oneOf") {
    must_be(Value::kArray, "a list of schemas");
    Choice choice{.options = {}, .at = at, .chain = chain};
    const bool one = name == "oneOf" && !different_values(value);
    if (one && value.items.size() > kMostExclusive)
      refuse(schema, name, "more than " + std::to_string(kMostExclusive) + " options that are not different constants");
    for (const Value& part : value.items) {
      Option option{.schemas = {&part}, .required = {}, .absent = {}, .other_than = {}};
      for (const Value& other : value.items)
        if (one && &other != &part) option.other_than.push_back(&other);
      choice.options.push_back(std::move(option));
    }
    choices.push_back(std::move(choice));
  } else if (name == "not") {
    choices.push_back({{{.schemas = {}, .required = {}, .absent = {}, .other_than = {&value}}}, at, chain});
  } else if (name == "if") {
    const Value *then = schema.find("then"), *otherwise = schema.find("else");
    if (!then && !otherwise) return true;
    Option met{.schemas = {&value}, .required = {}, .absent = {}, .other_than = {}}, unmet = met;
    unmet.schemas.clear();
    unmet.other_than = {&value};
    if (then) met.schemas.push_back(then);
    if (otherwise) unmet.schemas.push_back(otherwise);
    choices.push_back({{met, unmet}, at, chain});
  } else if (name == "then" || name == "else") {
    return true;  // of its if
  } else if (name == "dependentRequired" || name == "dependentSchemas") {
    must_be(Value::kObject, "an object");
    for (const auto& [property, needs] : value.members) {
      if (property.empty()) refuse(schema, name, "an empty name is not supported");
      Option without{.schemas = {}, .required = {}, .absent = property, .other_than = {}};
      Option with{.schemas = {}, .required = {}, .absent = {}, .other_than = {}};
      if (name == "dependentSchemas") with.schemas.push_back(&needs);
      if (name == "dependentRequired")
        for (const Value& needed : needs.items) with.required.push_back(needed.text);
      with.required.push_back(property);
      choices.push_back({{without, with}, at, chain});
    }
  } else {
    return false;
  }
  return true;
}

}  // namespace sdar::form
