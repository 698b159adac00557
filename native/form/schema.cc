// Alternatives to rules.
#include "form/schema.h"

#include <algorithm>
#include <deque>
#include <set>

#include "form/compilers.h"
#include "form/regex.h"
#include "util/error.h"

namespace sdar::form {
namespace {

constexpr int64_t kMostCounted = 4096;  // members, where their number is bounded

class Compiler {
 public:
  Compiler(Builder& builder, const Value& schema, Whitespace whitespace, const std::string& at)
      : builder_(builder), json_(builder, whitespace), merger_(schema, at) {}

  uint32_t compile(const Value& schema) {
    const uint32_t root = rule_of({&schema});
    // Rules one after the other, not within each other: a schema may be deep.
    while (!open_.empty()) {
      const auto [schemas, rule] = std::move(open_.front());
      open_.pop_front();
      builder_.at(builder_[rule].name);
      make(schemas, builder_[rule].start, builder_[rule].accept);
    }
    return root;
  }

 private:
  uint32_t rule_of(const Schemas& schemas) {
    const Schemas key = merger_.simplified(schemas);
    if (key.empty()) return json_.value();
    const auto known = rules_.find(key);
    if (known != rules_.end()) return known->second;
    const uint32_t rule = builder_.rule(merger_.index().path(*key[0]));
    rules_.emplace(key, rule);
    open_.emplace_back(key, rule);
    return rule;
  }

  void make(const Schemas& schemas, uint32_t from, uint32_t to) {
    if (SchemaMerger::is_false(schemas[0])) return;
    if (schemas.size() == 1) {
      const Schemas options = merger_.plain_options(*schemas[0]);
      std::vector<std::string> constants;
      for (const Value* option : options) {
        const Value* constant = option->members.size() == 1 ? option->find("const") : nullptr;
        if (constant)
          constants.push_back(constant->json());
        else
          builder_.call(from, rule_of({option}), to);
      }
      builder_.texts(from, constants, to);
      if (!options.empty()) return;
    }
    for (const Shape& shape : merger_.alternatives(schemas)) add(shape, from, to);
  }

  void add(const Shape& shape, uint32_t from, uint32_t to) {
    if (shape.values) {
      std::vector<std::string> texts;
      for (const Value* v : merger_.listed(shape)) texts.push_back(v->json());
      return builder_.texts(from, texts, to);
    }
    for (const char* word : {"null", "true", "false"}) {
      const Value v{.kind = word[0] == 'n' ? Value::kNull : Value::kBoolean, .boolean = word[0] == 't'};
      if (merger_.allows(shape, v)) builder_.text(from, word, to);
    }
    if (merger_.has_type(shape, kNumbers)) add_number(shape, from, to);
    if (merger_.has_type(shape, kStrings)) add_string(shape, from, to);
    if (merger_.has_type(shape, kArrays) && remains(shape, kArrays)) add_array(shape, from, to);
    if (merger_.has_type(shape, kObjects) && remains(shape, kObjects)) add_object(shape, from, to);
  }

  void add_number(const Shape& shape, uint32_t from, uint32_t to) {
    if (shape.minus.empty() && shape.range.free()) return builder_.call(from, json_.number(shape.range.integer), to);
    merger_.texts(shape, kNumbers).lower(builder_, from, to, Encoding::kUtf8);
  }

  void add_string(const Shape& shape, uint32_t from, uint32_t to) {
    if (merger_.unbounded(shape, kStrings)) return builder_.call(from, json_.string(), to);
    const uint32_t begin = builder_.state(), end = builder_.state();
    builder_.bytes(from, '"', '"', begin);
    builder_.bytes(end, '"', '"', to);
    if (shape.patterns.size() == 1 && shape.minus.empty() && shape.min_length == 0 && shape.max_length < 0) {
      // Alone a pattern need not become deterministic.
      const auto& pattern = shape.patterns[0];
      const CharNfa nfa = parse_regex(pattern.regex, pattern.search, pattern.at);
      const auto dfa = CharDfa::of(nfa, 4096, pattern.at);
      return dfa ? dfa->lower(builder_, begin, end, Encoding::kJson) : nfa.lower(builder_, begin, end, Encoding::kJson);
    }
    merger_.texts(shape, kStrings).lower(builder_, begin, end, Encoding::kJson);
  }

  /// False when nothing of the type is left after what is subtracted; throws when what is left cannot be told.
  bool remains(const Shape& shape, Types type) {
    for (const auto& minus : shape.minus)
      for (const Shape& other : *minus.shapes) {
        if (merger_.unbounded(other, type)) return false;
        if (!merger_.apart(shape, other, type))
          throw Error(
              code::kInvalidOption,
              minus.at + ": its subschemas may match the same " + (type == kArrays ? "array" : "object") +
                  ", and what they do not share cannot be told; let a required property have different constants");
      }
    return true;
  }

  void add_array(const Shape& shape, uint32_t from, uint32_t to) {
    const int64_t least = shape.min_items, most = shape.max_items;
    if (most >= 0 && most < least) return;
    const auto prefix = static_cast<int64_t>(merger_.prefix(shape));
    const uint32_t open = builder_.state();
    json_.punctuation(from, '[', open);
    if (least == 0 && !shape.contains) builder_.bytes(open, ']', ']', to);
    // before[c] and after[c] an item: c of those so far are items that `contains` asks for. Or more, for the last c.
    const auto wanted = static_cast<size_t>(shape.contains ? shape.min_contains : 0);
    std::vector<uint32_t> before(wanted + 1, kUnreachable);
    before[0] = open;
    const int64_t last = most >= 0 ? most : std::max({least, prefix + 1, int64_t{1}});
    for (int64_t i = 0; i < last; i++) {
      const Schemas schemas = merger_.item(shape, static_cast<size_t>(std::min(i, prefix)));
      if (std::ranges::any_of(schemas, SchemaMerger::is_false)) return;
      const uint32_t any = rule_of(schemas);
      uint32_t match = any;
      if (shape.contains) {
        Schemas both = schemas;
        both.push_back(shape.contains);
        match = rule_of(both);
      }
      std::vector<uint32_t> after(wanted + 1, kUnreachable);
      const auto at = [&](size_t c) { return after[c] == kUnreachable ? after[c] = builder_.state() : after[c]; };
      for (size_t c = 0; c <= wanted; c++) {
        if (before[c] == kUnreachable) continue;
        builder_.call(before[c], any, at(c));
        if (c < wanted) builder_.call(before[c], match, at(c + 1));
      }
      for (size_t c = 0; c <= wanted; c++) {
        before[c] = kUnreachable;
        if (after[c] == kUnreachable) continue;
        if (i + 1 < last || most < 0) json_.punctuation(after[c], ',', before[c] = builder_.state());
        if (i + 1 == last && most < 0) {
          builder_.call(before[c], any, after[c]);
          if (c < wanted) builder_.call(before[c], match, at(c + 1));
        }
        if (c == wanted && i + 1 >= least) json_.closing(after[c], ']', to);
      }
    }
  }

  void add_object(const Shape& shape, uint32_t from, uint32_t to) {
    const auto names = merger_.names(shape);
    const std::vector<std::pair<uint32_t, bool>> declared = members(shape, names);
    if (declared.size() == 1 && declared[0].first == kUnreachable) return;
    const uint32_t other = others(shape, names);
    const bool bounded = shape.min_properties > 1 || shape.max_properties >= 0;
    if (other != kUnreachable && shape.min_properties > 1)
      throw Error(code::kInvalidOption,
                  shape.at +
                      "/minProperties: more than 1 is not enforced where names are allowed that are "
                      "not declared: one could come twice");
    const int64_t counted = bounded ? std::max({shape.min_properties, shape.max_properties, int64_t{1}}) : 1;
    if (counted > kMostCounted)
      throw Error(code::kInvalidOption, shape.at + ": minProperties and maxProperties above " +
                                            std::to_string(kMostCounted) + " are not supported");
    const auto least = static_cast<size_t>(shape.min_properties), cap = static_cast<size_t>(counted);
    const auto full = [&](size_t count) {
      return shape.max_properties >= 0 && count >= static_cast<size_t>(shape.max_properties);
    };
    // now[c]: c members are written, or at least c for the last one.
    std::vector<uint32_t> now(cap + 1, kUnreachable);
    now[0] = builder_.state();
    json_.punctuation(from, '{', now[0]);
    const auto member = [&](uint32_t before, size_t count, uint32_t rule, uint32_t after) {
      uint32_t begin = before;
      if (count > 0) json_.punctuation(before, ',', begin = builder_.state());
      builder_.call(begin, rule, after);
    };
    for (const auto& [rule, required] : declared) {
      std::vector<uint32_t> next(cap + 1, kUnreachable);
      const auto at = [&](size_t c) { return next[c] == kUnreachable ? next[c] = builder_.state() : next[c]; };
      for (size_t c = 0; c <= cap; c++) {
        if (now[c] == kUnreachable) continue;
        if (!required) builder_.empty(now[c], at(c));
        if (!full(c)) member(now[c], c, rule, at(std::min(c + 1, cap)));
      }
      now = std::move(next);
    }
    for (size_t c = 0; c <= cap; c++) {
      if (now[c] == kUnreachable) continue;
      if (other != kUnreachable && !full(c)) {
        const size_t next = std::min(c + 1, cap);
        if (now[next] == kUnreachable) now[next] = builder_.state();
        member(now[c], c, other, now[next]);
      }
      if (c < least) continue;
      // An empty object has no second space.
      if (c == 0)
        builder_.bytes(now[c], '}', '}', to);
      else
        json_.closing(now[c], '}', to);
    }
  }

  uint32_t member_rule(const std::string& name, const Schemas& schemas) {
    const auto key = std::make_pair(name, schemas);
    const auto known = member_rules_.find(key);
    if (known != member_rules_.end()) return known->second;
    const uint32_t rule = builder_.rule("member " + name.substr(0, 80));
    const uint32_t colon = builder_.state(), value = builder_.state();
    builder_.text(builder_[rule].start, Value{.kind = Value::kString, .text = name}.json(), colon);
    json_.punctuation(colon, ':', value);
    builder_.call(value, rule_of(schemas), builder_[rule].accept);
    return member_rules_[key] = rule;
  }

  /// Rules of the members that have names, and whether each must be there; {kUnreachable} alone when one must that cannot.
  std::vector<std::pair<uint32_t, bool>> members(const Shape& shape, const std::vector<std::string>& names) {
    std::vector<std::pair<uint32_t, bool>> out;
    const std::set<std::string_view> required(shape.required.begin(), shape.required.end());
    for (const std::string& name : names) {
      const bool must = required.contains(name);
      const Schemas schemas = merger_.member(shape, name);
      if (std::ranges::any_of(schemas, SchemaMerger::is_false)) {
        if (must) return {{kUnreachable, true}};
        continue;
      }
      out.emplace_back(member_rule(name, schemas), must);
    }
    return out;
  }

  /// The rule of a member with another name; kUnreachable when there may be none. Names that match the same patterns
  /// have the same schemas.
  uint32_t others(const Shape& shape, const std::vector<std::string>& names) {
    const std::vector<std::string> patterns = merger_.name_patterns(shape);
    uint32_t rule = kUnreachable;
    std::optional<CharDfa> free;
    for (size_t matched = 0; matched < size_t{1} << patterns.size(); matched++) {
      Schemas schemas;
      for (const Value* object : shape.objects) {
        bool named = false;
        if (const Value* own = object->find("patternProperties"))
          for (const auto& [pattern, schema] : own->members) {
            const auto i = static_cast<size_t>(std::ranges::find(patterns, pattern) - patterns.begin());
            if (matched >> i & 1) schemas.push_back(&schema), named = true;
          }
        if (const Value* rest = named ? nullptr : object->find("additionalProperties")) schemas.push_back(rest);
      }
      schemas = merger_.simplified(schemas);
      if (std::ranges::any_of(schemas, SchemaMerger::is_false)) continue;
      const bool any_name = names.empty() && patterns.empty() && shape.property_names.empty();
      CharDfa keys;
      if (!any_name) {
        if (!free) free = free_names(shape, names);
        keys = *free;
        for (size_t i = 0; i < patterns.size(); i++) {
          const CharDfa& machine = merger_.name_machine(patterns[i], shape.at);
          keys = matched >> i & 1 ? keys.intersect(machine, shape.at) : keys.minus(machine, shape.at);
        }
        if (keys.empty()) continue;
      }
      if (rule == kUnreachable) rule = builder_.rule("other members of " + shape.at);
      const uint32_t colon = builder_.state(), value = builder_.state();
      if (any_name) {
        builder_.call(builder_[rule].start, json_.string(), colon);
      } else {
        const uint32_t begin = builder_.state(), end = builder_.state();
        builder_.bytes(builder_[rule].start, '"', '"', begin);
        keys.lower(builder_, begin, end, Encoding::kJson);
        builder_.bytes(end, '"', '"', colon);
      }
      json_.punctuation(colon, ':', value);
      builder_.call(value, rule_of(schemas), builder_[rule].accept);
    }
    return rule;
  }
  CharDfa free_names(const Shape& shape, const std::vector<std::string>& names) {
    CharDfa out = CharDfa::any();
    if (!shape.property_names.empty()) {
      CharDfa allowed;
      for (const Shape& s : merger_.alternatives(shape.property_names))
        allowed = allowed.unite(merger_.texts(s, kStrings), shape.at);
      out = std::move(allowed);
    }
    std::vector<std::u32string> taken;
    for (const std::string& name : names) taken.push_back(code_points(name));
    return taken.empty() ? out : out.minus(CharDfa::texts(taken, shape.at), shape.at);
  }

  Builder& builder_;
  JsonRules json_;
  SchemaMerger merger_;
  std::map<Schemas, uint32_t> rules_;
  std::map<std::pair<std::string, Schemas>, uint32_t> member_rules_;
  std::deque<std::pair<Schemas, uint32_t>> open_;
};

}  // namespace

uint32_t add_schema(Builder& builder, const Value& schema, Whitespace whitespace, const std::string& at) {
  return Compiler(builder, schema, whitespace, at).compile(schema);
}

}  // namespace sdar::form
