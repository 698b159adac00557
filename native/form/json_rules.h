// Rules that all JSON shares: space, strings, numbers, any value. Made when first asked for.
#pragma once
#include <optional>

#include "form/compilers.h"
#include "form/numbers.h"
#include "form/program.h"

namespace sdar::form {

class JsonRules {
 public:
  JsonRules(Builder& builder, Whitespace whitespace) : builder_(builder), whitespace_(whitespace) {}

  /// Space where JSON allows it, bounded; from → to.
  void space(uint32_t from, uint32_t to);
  /// A character and the space after it.
  void punctuation(uint32_t from, char c, uint32_t to);
  /// The space before it, and a character.
  void closing(uint32_t from, char c, uint32_t to);
  /// Any string, with every escape that JSON has, but no half of a surrogate pair.
  uint32_t string();
  uint32_t number(bool integer);
  uint32_t value();

 private:
  uint32_t array();
  uint32_t object();

  Builder& builder_;
  Whitespace whitespace_;
  std::optional<uint32_t> space_, string_, number_, integer_, value_;
};

}  // namespace sdar::form
