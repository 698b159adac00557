#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "form/regex.h"
#include "form/unicode_table.h"

namespace sdar::form {
namespace {

constexpr size_t kCategories = 30;

std::array<CharSet, kCategories> read_table() {
  std::array<CharSet, kCategories> sets;
  const std::string_view letters = kCategoryLetters;
  char32_t at = 0;
  for (const char* p = kCategoryRuns; *p;) {
    const size_t category = letters.find(*p++);
    char32_t length = 0;
    for (; *p && letters.find(*p) == letters.npos; p++)
      length = length * 36 + static_cast<char32_t>(*p <= '9' ? *p - '0' : *p - 'a' + 10);
    if (length == 0) length = 1;
    sets[category].add(at, at + length - 1);
    at += length;
  }
  return sets;
}

/// Long names of the standard, and what their short names begin with.
constexpr std::pair<std::string_view, std::string_view> kLongNames[] = {
    {"Letter", "L"},
    {"Uppercase_Letter", "Lu"},
    {"Lowercase_Letter", "Ll"},
    {"Titlecase_Letter", "Lt"},
    {"Modifier_Letter", "Lm"},
    {"Other_Letter", "Lo"},
    {"Mark", "M"},
    {"Combining_Mark", "M"},
    {"Nonspacing_Mark", "Mn"},
    {"Spacing_Mark", "Mc"},
    {"Enclosing_Mark", "Me"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"digit", "Nd"},
    {"Letter_Number", "Nl"},
    {"Other_Number", "No"},
    {"Punctuation", "P"},
    {"punct", "P"},
    {"Connector_Punctuation", "Pc"},
    {"Dash_Punctuation", "Pd"},
    {"Open_Punctuation", "Ps"},
    {"Close_Punctuation", "Pe"},
    {"Initial_Punctuation", "Pi"},
    {"Final_Punctuation", "Pf"},
    {"Other_Punctuation", "Po"},
    {"Symbol", "S"},
    {"Math_Symbol", "Sm"},
    {"Currency_Symbol", "Sc"},
    {"Modifier_Symbol", "Sk"},
    {"Other_Symbol", "So"},
    {"Separator", "Z"},
    {"Space_Separator", "Zs"},
    {"Line_Separator", "Zl"},
    {"Paragraph_Separator", "Zp"},
    {"Other", "C"},
    {"Control", "Cc"},
    {"cntrl", "Cc"},
    {"Format", "Cf"},
    {"Surrogate", "Cs"},
    {"Private_Use", "Co"},
    {"Unassigned", "Cn"},
};

}  // namespace

bool unicode_class(std::string_view name, CharSet& out) {
  static const std::array<CharSet, kCategories> sets = read_table();
  for (const std::string_view property : {"General_Category=", "gc="})
    if (name.starts_with(property)) name.remove_prefix(property.size());
  out = {};
  if (name == "Any") return out = CharSet::all(), true;
  if (name == "ASCII") return out = {{0, 0x7f}}, true;
  if (name == "Assigned") {
    CharSet unassigned;
    unicode_class("Cn", unassigned);
    return out = unassigned.complement(), true;
  }
  for (const auto& [full, brief] : kLongNames)
    if (name == full) name = brief;
  if (name == "LC" || name == "Cased_Letter") {
    for (const size_t category : {0, 1, 2}) out.add(sets[category]);
    return true;
  }
  if (name.empty() || name.size() > 2) return false;
  bool found = false;
  for (size_t i = 0; i < kCategories; i++) {
    const std::string_view category = std::string_view(kCategoryNames).substr(3 * i, 2);
    if (!category.starts_with(name)) continue;
    out.add(sets[i]);
    found = true;
  }
  return found;
}

}  // namespace sdar::form
