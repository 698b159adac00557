// Where the subschemas of a schema are: their paths, for messages, and what $ref means in each of them.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "form/value.h"

namespace sdar::form {

class SchemaIndex {
 public:
  /// `at` is the schema's place in the form.
  SchemaIndex(const Value& root, std::string at);

  /// The place of a value, as at#/properties/name.
  std::string path(const Value& value) const;
  /// What a $ref in `from` points to. Throws Error(INVALID_OPTION) when it is not in this schema.
  const Value& resolve(const Value& from, const std::string& reference) const;

 private:
  struct Place {
    const Value* parent;
    std::string_view name;  ///< of an array's item, see `item`
    size_t item;
    const Value* resource;  ///< the nearest value around it, or itself, that has an $id
  };
  void add(const Value& value, Place place, const std::string& base, bool literal);

  const Value& root_;
  std::string at_;
  std::unordered_map<const Value*, Place> places_;
  std::unordered_map<const Value*, std::string> bases_;  ///< of resources
  std::map<std::string, const Value*> by_uri_;           ///< without fragments; with #anchor
};

}  // namespace sdar::form
