// Regular expressions against V8's, as test/form/record.mjs recorded them.
#include <algorithm>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "check.h"
#include "form/automaton.h"
#include "form/form.h"
#include "form/numbers.h"
#include "form/regex.h"
#include "form/value.h"

using namespace sdar::form;

namespace {

Value recorded() {
  std::ifstream file("test/form/regex.json", std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return parse_value(text.str(), "test/form/regex.json");
}
std::string quoted(const std::string& text) { return Value{.kind = Value::kString, .text = text}.json(); }

int refused = 0;

bool matches(const std::string& form, const std::vector<std::string>& texts, const std::string& expected,
             std::string& wrong) {
  std::unique_ptr<Automaton> automaton;
  try {
    automaton = std::make_unique<Automaton>(compile(form));
  } catch (const sdar::Error& e) {
    // Some random lookaheads, and their negations, are more than is taken on.
    if (std::strstr(e.what(), "needs more than")) return refused++, true;
    if (!std::strstr(e.what(), "no text of")) throw;
  }
  for (size_t i = 0; i < texts.size(); i++) {
    const State state = automaton ? automaton->advance(automaton->start(), texts[i]) : kDead;
    const bool match = state != kDead && automaton->can_end(state);
    if (match != (expected[i] == '1')) wrong = form + (match ? " matches " : " does not match ") + quoted(texts[i]);
  }
  return wrong.empty();
}

}  // namespace

TEST("patterns match whole texts as in V8, and the strings of a JSON Schema that V8 finds a match in") {
  const Value all = recorded();
  int cases = 0, matched = 0, found = 0;
  for (const Value& entry : all.find("cases")->items) {
    const std::string pattern = quoted(entry.find("pattern")->text);
    std::vector<std::string> texts, strings;
    for (const Value& text : entry.find("texts")->items) {
      texts.push_back(text.text);
      strings.push_back(quoted(text.text));
    }
    const std::string &whole = entry.find("whole")->text, &search = entry.find("search")->text;
    cases++;
    matched += static_cast<int>(std::ranges::count(whole, '1'));
    found += static_cast<int>(std::ranges::count(search, '1'));
    std::string wrong;
    if (!matches(R"({"type":"regex","pattern":)" + pattern + "}", texts, whole, wrong))
      check::fail(__FILE__, __LINE__, wrong);
    wrong.clear();
    const std::string schema = R"({"type":"json_schema","schema":{"type":"string","pattern":)" + pattern + "}}";
    if (!matches(schema, strings, search, wrong)) check::fail(__FILE__, __LINE__, wrong);
    wrong.clear();
    // With a length the automaton is made deterministic, and combined.
    std::string bounded = search;
    for (size_t i = 0; i < texts.size(); i++)
      if (code_points(texts[i]).size() > 4) bounded[i] = '0';
    const std::string limited =
        R"({"type":"json_schema","schema":{"type":"string","maxLength":4,"pattern":)" + pattern + "}}";
    if (!matches(limited, strings, bounded, wrong)) check::fail(__FILE__, __LINE__, wrong);
  }
  CHECK(cases >= 400);
  CHECK(refused <= 12);
  CHECK(matched > 174 && found > 2085);
}

TEST("what is not supported is refused by name") {
  const Value all = recorded();
  for (const Value& entry : all.find("refused")->items)
    CHECK_THROWS("INVALID_OPTION", entry.items[1].text.c_str(),
                 parse_regex(entry.items[0].text, false, "format.pattern"));
}

TEST("automata of patterns: complements, intersections and unions are those of the sets of texts") {
  std::mt19937 random(9);
  const char* patterns[] = {"(a|b)*a", "a{2,3}b*", "[^a]+", "", "b|ab|(ba)*", ".{3}", "a*b*"};
  std::vector<CharDfa> machines;
  for (const char* p : patterns) machines.push_back(*CharDfa::of(parse_regex(p, false, "x"), 100, "x"));
  for (int round = 0; round < 3000; round++) {
    const CharDfa &a = machines[random() % 7], &b = machines[random() % 7];
    std::u32string text;
    for (unsigned n = random() % 6; n > 0; n--) text += U"abc"[random() % 3];
    CHECK(a.complement().accepts(text) != a.accepts(text));
    CHECK(a.intersect(b, "x").accepts(text) == (a.accepts(text) && b.accepts(text)));
    CHECK(a.unite(b, "x").accepts(text) == (a.accepts(text) || b.accepts(text)));
    CHECK(a.minus(b, "x").accepts(text) == (a.accepts(text) && !b.accepts(text)));
  }
  CHECK(machines[0].minus(machines[0], "x").empty());
}

TEST("numbers are held to random bounds and multiples, digit by digit") {
  std::mt19937 random(10);
  const auto draw = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto decimal = [&](int most, int places) {
    std::string text = draw(2) ? "-" : "";
    text += std::to_string(draw(most));
    if (places > 0 && draw(2)) text += "." + std::to_string(draw(100));
    return text;
  };
  int inside = 0;
  for (int round = 0; round < 300; round++) {
    NumberRange range;
    range.integer = draw(3) == 0;
    Decimal low, high, step;
    to_decimal(decimal(150, 1), low), to_decimal(decimal(150, 1), high);
    const bool has_low = draw(4) > 0, has_high = draw(4) > 0, low_open = draw(2), high_open = draw(2);
    if (has_low) range.at_least(low, low_open);
    if (has_high) range.at_most(high, high_open);
    static const char* const kSteps[] = {"", "", "1", "0.5", "3", "0.25", "7", "1.5", "0.1"};
    const std::string multiple = kSteps[draw(9)];
    if (!multiple.empty()) to_decimal(multiple, step), range.multiples.push_back(step);
    const CharDfa machine = numbers(range, "x");
    for (int i = 0; i < 60; i++) {
      const std::string text = decimal(200, 1);
      Decimal value;
      CHECK(to_decimal(text, value));
      const double number = std::stod(text);
      bool good = !(has_low && (compare(value, low) < 0 || (low_open && compare(value, low) == 0))) &&
                  !(has_high && (compare(value, high) > 0 || (high_open && compare(value, high) == 0)));
      if (range.integer) good &= value.scale == 0 && text.find('.') == text.npos && (text[0] != '-' || !value.zero());
      if (!multiple.empty()) {
        const double times = number / std::stod(multiple);
        good &= std::abs(times - std::round(times)) < 1e-9;
        // Zeros at the end of a fraction beyond the multiple's places are not written.
        const size_t places = text.find('.') == text.npos ? 0 : text.size() - text.find('.') - 1;
        good &= static_cast<int64_t>(places) <= step.scale || range.integer;
      }
      inside += good;
      if (machine.accepts(code_points(text)) != good)
        check::fail(__FILE__, __LINE__,
                    text + " in " + (has_low ? parts_of(low).first : "") + "…" +
                        (has_high ? parts_of(high).first : "") + " of " + multiple);
    }
  }
  CHECK(inside > 2000);
  NumberRange integers;
  integers.integer = true;
  const CharDfa all = numbers({}, "x"), whole = numbers(integers, "x");
  for (const char* text : {"0", "-0", "1e308", "1.5E-7", "-12.5e+30", "123456789012345678901", "5e-324", "9.9e307"})
    CHECK(all.accepts(code_points(text)));
  for (const char* text : {"", "-", "01", "1.", ".5", "1e", "1e309", "+1", "2e308", "1234567890123456789012", "1e5e5"})
    CHECK(!all.accepts(code_points(text)));
  for (const char* text : {"0", "-7", "123456789012345678901"}) CHECK(whole.accepts(code_points(text)));
  for (const char* text : {"1.0", "1e5", "1.5", "1e-5", "1e+21", "1."}) CHECK(!whole.accepts(code_points(text)));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
