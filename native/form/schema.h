// JSON Schema, draft 2020-12, as rules. A rule is what a set of subschemas allows together. To make it, they are merged into
// alternatives (a disjunction of Shapes, each a conjunction of keywords); what an alternative must not match is subtracted:
// exactly where it is text of null, booleans, numbers and strings, else it has to be provably apart or is refused.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "form/char_machine.h"
#include "form/json_rules.h"
#include "form/numbers.h"
#include "form/schema_index.h"
#include "form/value.h"

namespace sdar::form {

/// Subschemas that must all hold; none: any value.
using Schemas = std::vector<const Value*>;

enum Types : uint8_t {
  kNulls = 1,
  kBooleans = 2,
  kNumbers = 4,
  kStrings = 8,
  kArrays = 16,
  kObjects = 32,
  kAllTypes = 63
};

/// The keywords of merged subschemas, without a choice between any.
struct Shape {
  uint8_t types = kAllTypes;
  std::optional<std::vector<const Value*>> values;  ///< of enum and const

  NumberRange range;

  struct Pattern {
    std::string regex;
    bool search;  ///< `pattern`, not `format`
    std::string at;
  };
  int64_t min_length = 0, max_length = -1;
  std::vector<Pattern> patterns;

  struct Items {
    const Value *prefix, *rest;  ///< prefixItems and items of one subschema; null where it has none
  };
  std::vector<Items> items;
  int64_t min_items = 0, max_items = -1;
  const Value* contains = nullptr;
  int64_t min_contains = 0;

  std::vector<const Value*> objects;  ///< subschemas with properties, patternProperties or additionalProperties
  std::vector<std::string> required;
  std::vector<std::string> absent;
  Schemas property_names;
  int64_t min_properties = 0, max_properties = -1;

  struct Minus {
    std::shared_ptr<const std::vector<Shape>> shapes;
    std::string at;  ///< the oneOf, not or if
  };
  std::vector<Minus> minus;
  std::vector<const Value*> seen;
  std::string at;
};

class SchemaMerger {
 public:
  SchemaMerger(const Value& root, const std::string& at) : index_(root, at) {}

  /// Alternatives that together are what the subschemas allow.
  std::vector<Shape> alternatives(const Schemas& schemas);
  /// Without those that allow everything.
  Schemas simplified(const Schemas& schemas) const;
  /// Options of a subschema that is nothing but an anyOf, or a $ref; none for others.
  Schemas plain_options(const Value& schema) const;

  bool valid(const Value& value, const Schemas& schemas);
  bool allows(const Shape& shape, const Value& value);
  /// Those of shape.values that the rest of the shape allows.
  std::vector<const Value*> listed(const Shape& shape);
  /// Texts of a string or a number, without what is subtracted.
  CharDfa texts(const Shape& shape, Types type);
  bool unbounded(const Shape& shape, Types type) const;
  bool has_type(const Shape& shape, Types type) const;
  /// Provably no array (or object) matches both.
  bool apart(const Shape& a, const Shape& b, Types type, int depth = 0);

  Schemas item(const Shape& shape, size_t i) const;
  size_t prefix(const Shape& shape) const;
  /// Names that are told apart from others, in order.
  std::vector<std::string> names(const Shape& shape) const;
  Schemas member(const Shape& shape, const std::string& name);
  /// Patterns of names, each once, and their automata.
  std::vector<std::string> name_patterns(const Shape& shape) const;
  const CharDfa& name_machine(const std::string& pattern, const std::string& at);
  bool name_allowed(const Shape& shape, const std::string& name);

  const SchemaIndex& index() const { return index_; }
  static bool is_false(const Value* schema) { return schema->is(Value::kBoolean) && !schema->boolean; }

 private:
  struct Pending {
    const Value* schema;
    std::shared_ptr<const struct Chain> chain;
  };
  struct Option {
    Schemas schemas;
    std::vector<std::string> required;
    std::string absent;
    Schemas other_than;  ///< none of these may match
  };
  struct Choice {
    std::vector<Option> options;
    std::string at;
    std::shared_ptr<const struct Chain> chain;
  };
  void expand(Shape shape, std::vector<Pending> pending, std::vector<Choice> choices, std::vector<Shape>& out);
  void apply(const Pending& pending, Shape& shape, std::vector<Pending>& more, std::vector<Choice>& choices);
  void apply_keyword(const Value& schema, const std::string& name, const Value& value, Shape& shape);
  bool apply_choice(const Value& schema, const std::string& name, const Value& value, Shape& shape,
                    const Pending& pending, std::vector<Pending>& more, std::vector<Choice>& choices);
  void work(size_t amount, const std::string& at);
  /// Of so many values with one, as work.
  static size_t comparisons(size_t values) { return 1 + values / 32; }
  /// What a shape says of numbers and strings, made once for many values.
  struct Bounds {
    std::optional<Shape> shape;
    std::optional<CharDfa> numbers, strings;
  };
  bool allows(const Shape& shape, const Value& value, Bounds& bounds);
  bool allows_unlisted(const Shape& shape, const Value& value, Bounds& bounds);
  /// find(), fast in objects of many members too.
  const Value* find(const Value* object, const std::string& name);
  [[noreturn]] void refuse(const Value& schema, const std::string& keyword, const std::string& what) const;

  SchemaIndex index_;
  std::shared_ptr<const std::vector<Shape>> kept_alternatives(const Value& schema);

  std::map<std::string, CharDfa> name_machines_;
  std::map<const Value*, std::shared_ptr<const std::vector<Shape>>> kept_;
  int nested_ = 0;
  size_t work_ = 0;
  std::unordered_map<const Value*, std::unordered_map<std::string_view, const Value*>> members_;
};

/// Keywords that say nothing of what is valid.
bool is_annotation(const std::string& keyword);

}  // namespace sdar::form
