// JSON Schema against the cases of the JSON Schema Test Suite (test/form/json-schema), at byte level.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "check.h"
#include "form/automaton.h"
#include "form/form.h"
#include "form/value.h"

using namespace sdar::form;

namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::shared_ptr<const Program> schema(const std::string& json) {
  return compile(R"({"type":"json_schema","whitespace":"none","schema":)" + json + "}");
}

bool matches(Automaton& automaton, const std::string& text) {
  const State state = automaton.advance(automaton.start(), text);
  return state != kDead && automaton.can_end(state);
}
/// A number as JavaScript writes it.
std::string number(const std::string& text) {
  char out[64];
  const double value = std::stod(text);
  if (std::abs(value) >= 1e21 || (value != 0 && std::abs(value) < 1e-6)) {
    for (int digits = 0; digits < 18; digits++) {
      std::snprintf(out, sizeof out, "%.*e", digits, value);
      if (std::stod(out) == value) break;
    }
    std::string s = out;  // 1e+05 is 1e+5 in JavaScript, but there are none below 21
    const size_t e = s.find('e');
    while (s[e + 2] == '0') s.erase(e + 2, 1);
    return s;
  }
  Decimal d;
  CHECK(to_decimal(text, d));
  return Value{.kind = Value::kNumber, .text = text}.json();
}

/// JSON.stringify, with members in the order of the names given, others after them.
std::string stringify(const Value& v, const std::vector<std::string>& order) {
  if (v.is(Value::kNumber)) return number(v.text);
  if (v.is(Value::kArray)) {
    std::string out = "[";
    for (const Value& item : v.items) out += (out.size() > 1 ? "," : "") + stringify(item, order);
    return out + "]";
  }
  if (!v.is(Value::kObject)) return v.json();
  std::vector<Value::Member> members = v.members;
  const auto place = [&](const Value::Member& m) { return std::ranges::find(order, m.first) - order.begin(); };
  std::ranges::stable_sort(members, {}, place);
  std::string out = "{";
  for (const auto& [name, value] : members)
    out += (out.size() > 1 ? "," : "") + Value{.kind = Value::kString, .text = name}.json() + ":" +
           stringify(value, order);
  return out + "}";
}

/// All names that schemas declare, in the order in which a schema would put them.
void declared(const Value& v, std::vector<std::string>& out) {
  for (const char* keyword : {"properties", "required"})
    if (const Value* names = v.find(keyword)) {
      for (const auto& [name, value] : names->members)
        if (std::ranges::find(out, name) == out.end()) out.push_back(name);
      for (const Value& name : names->items)
        if (name.is(Value::kString) && std::ranges::find(out, name.text) == out.end()) out.push_back(name.text);
    }
  if (const Value* dependents = v.find("dependentRequired"))
    for (const auto& [name, needed] : dependents->members)
      for (const Value& first : needed.items) out.push_back(first.text);
  for (const auto& [name, value] : v.members) declared(value, out);
  for (const Value& item : v.items) declared(item, out);
}

}  // namespace

TEST("of the JSON Schema Test Suite, valid instances match and invalid ones do not; the rest is refused by keyword") {
  int groups = 0, refused = 0, tests = 0;
  std::map<std::string, int> reasons;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator("test/form/json-schema"))
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    const Value all = parse_value(read(file), file.string());
    for (const Value& group : all.items) {
      groups++;
      const std::string name = file.stem().string() + ": " + group.find("description")->text;
      std::unique_ptr<Automaton> automaton;
      std::string error;
      try {
        automaton = std::make_unique<Automaton>(schema(group.find("schema")->json()));
      } catch (const sdar::Error& e) {
        CHECK(e.code() == "INVALID_OPTION");
        error = e.what();
      }
      if (!automaton) {
        // Nothing matches a schema that no instance is valid for.
        if (error.find("no text of") != error.npos) {
          for (const Value& test : group.find("tests")->items) CHECK(!test.find("valid")->boolean);
          continue;
        }
        if (error.find("format.schema#") == error.npos) check::fail(__FILE__, __LINE__, name + ": " + error);
        refused++;
        reasons[error.substr(error.find("format.schema#") + 14)]++;
        continue;
      }
      std::vector<std::string> order;
      declared(*group.find("schema"), order);
      for (const Value& test : group.find("tests")->items) {
        // `format` is an assertion here, not an annotation.
        if (test.find("description")->text.find("is only an annotation by default") != std::string::npos) continue;
        tests++;
        const std::string text = stringify(*test.find("data"), order);
        if (matches(*automaton, text) != test.find("valid")->boolean)
          check::fail(__FILE__, __LINE__, name + ": " + test.find("description")->text + ": " + text);
      }
    }
  }
  if (std::getenv("SDAR_TEST_REASONS"))
    for (const auto& [reason, times] : reasons) std::printf("# %d %s\n", times, reason.c_str());
  std::printf("# %d groups, %d refused, %d tests\n", groups, refused, tests);
  CHECK(groups > 200);
  CHECK(refused < 75);
}

namespace {

void check_all(const char* json, std::initializer_list<const char*> good, std::initializer_list<const char*> bad) {
  Automaton automaton(schema(json));
  for (const char* text : good)
    if (!matches(automaton, text)) check::fail(__FILE__, __LINE__, std::string(json) + " refuses " + text);
  for (const char* text : bad)
    if (matches(automaton, text)) check::fail(__FILE__, __LINE__, std::string(json) + " accepts " + text);
}

}  // namespace

TEST("members come in the schema's order, others after them, none twice") {
  const char* json =
      R"({"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"null"},"c":true},"required":["a","z"]})";
  check_all(json,
            {R"({"a":null,"z":1})", R"({"b":1,"a":null,"c":[],"z":"","d":{}})", R"({"a":null,"z":0,"é":1,"aa":2})"},
            {R"({"a":null})", R"({"a":null,"b":1,"z":1})", R"({"a":null,"z":1,"b":2})", R"({"a":null,"z":1,"a":null})",
             R"({"a":null,"z":1,})", R"({"a": null,"z":1})", "{}", "[]"});
  check_all(
      R"({"type":"object","patternProperties":{"^n_":{"type":"number"},"s$":{"type":["string","number"]}},"additionalProperties":false})",
      {"{}", R"({"n_x":1})", R"({"xs":"1"})", R"({"n_s":2,"n_":3})"},
      {R"({"n_s":"1"})", R"({"x":1})", R"({"n_":null})"});
  check_all(
      R"({"type":"object","propertyNames":{"pattern":"^[a-z]+$","maxLength":3},"maxProperties":2,"minProperties":1})",
      {R"({"a":1})", R"({"abc":1,"b":2})"}, {"{}", R"({"abcd":1})", R"({"A":1})", R"({"a":1,"b":2,"c":3})"});
}

TEST("strings are escaped as JSON.stringify does where they have limits, and count characters") {
  check_all(R"({"type":"string","minLength":2,"maxLength":3})", {R"("ab")", R"("\"\\\n")", R"("😀é")", R"("\u0000a")"},
            {R"("a")", R"("abcd")", R"("\u0041b")", "\"a\nb\"", R"("a)"});
  check_all(R"({"type":"string","pattern":"^\\n?\"x"})", {R"("\"x")", R"("\n\"xyz")"}, {R"("x")", R"("\"")"});
  check_all(R"({"type":"string"})", {R"("\u0041\/")", R"("\ud83d\ude00")"}, {R"("\ud83d")", R"("\ude00")", R"("\x")"});
  check_all(R"({"enum":["a\"b",1.50,{"k":[null]},"\u001f"]})", {R"("a\"b")", "1.5", R"({"k":[null]})", R"("\u001f")"},
            {"1", "null"});
}

TEST("formats") {
  check_all(R"({"format":"date","type":"string"})", {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\""},
            {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-13-01\"", "\"2024-04-31\"", "\"2024-1-1\""});
  check_all(R"({"format":"date-time","type":"string"})",
            {"\"2024-02-29T23:59:59.25Z\"", "\"2024-01-01t00:00:00+05:30\""},
            {"\"2024-02-29\"", "\"2024-02-29T24:00:00Z\"", "\"2024-02-29T10:00:00\""});
  check_all(R"({"format":"ipv6","type":"string"})",
            {"\"::\"", "\"::1\"", "\"1:2:3:4:5:6:7:8\"", "\"fe80::a:1.2.3.4\"", "\"1::8\""},
            {"\"1:2:3:4:5:6:7\"", "\"1::2::3\"", "\":1\"", "\"12345::\"", "\"1:2:3:4:5:6:7:8:9\""});
  check_all(R"({"format":"email","type":"string"})", {"\"a.b+c@x-y.example\""},
            {"\"a@\"", "\"a..b@c\"", "\"@c\"", "\"a b@c\""});
  check_all(R"({"format":"uuid","type":"string"})", {"\"01234567-89ab-cdef-0123-456789ABCDEF\""},
            {"\"0123456789abcdef0123456789abcdef\""});
  check_all(R"({"format":"uri","type":"string"})",
            {"\"https://u@[::1]:80/a/b?c=d#e\"", "\"urn:a:b\"", "\"mailto:a@b\""},
            {"\"//a\"", "\"a b:c\"", "\"http://a/%zz\""});
  check_all(R"({"format":"duration","type":"string"})", {"\"P1Y2M3DT4H5M6S\"", "\"P2W\"", "\"PT1S\""},
            {"\"P\"", "\"PT\"", "\"P1Y1D\""});
  check_all(R"({"format":"hostname","type":"string"})", {"\"a-b.c\""}, {"\"-a\"", "\"a-\"", "\"a..b\""});
}

TEST("what is not enforced or not possible is refused by its place") {
  const auto refused = [](const char* json, const char* part) { CHECK_THROWS("INVALID_OPTION", part, schema(json)); };
  refused(R"({"properties":{"a/b":{"items":{"uniqueItems":true}}}})",
          "format.schema#/properties/a~1b/items/uniqueItems: this keyword");
  refused(R"({"minLenght":1})", "format.schema#/minLenght: this keyword");
  refused(R"({"format":"iri"})", "format.schema#/format: \"iri\" is not enforced; date, time");
  refused(R"({"$ref":"#/$defs/x"})", "format.schema#/$ref is \"#/$defs/x\", which is not in this schema");
  refused(R"({"allOf":[{"$ref":"#"}]})", "refers to itself");
  refused(R"({"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"null"}]}},"$ref":"#/$defs/a"})", "left-recursive");
  refused(R"({"type":"text"})", "format.schema#/type: \"text\"; it must be null, boolean");
  refused(R"-({"pattern":"(?<=a)"})-", "format.schema#/pattern: at character 4 of the pattern: a lookbehind");
  refused(R"({"type":"string","minLength":2,"maxLength":1})", "no text");
  refused(R"({"minimum":"1"})", "format.schema#/minimum: \"1\"; it must be a number");
  refused(R"({"a":1,"a":1})", "occurs twice");
  refused(R"({"multipleOf":0.000000000001})", "format.schema#/multipleOf");
  refused("3", "a schema is an object, true or false");
}

TEST("recursive schemas") {
  const char* tree =
      R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},"kids":)"
      R"({"type":"array","items":{"$ref":"#/$defs/node"}}},"required":["v"],"additionalProperties":false}}})";
  check_all(tree, {R"({"v":1})", R"({"v":1,"kids":[{"v":2},{"v":3,"kids":[{"v":4,"kids":[]}]}]})"},
            {R"({"v":1,"kids":[{"v":2,"kids":{}}]})", R"({"v":1,"kids":[{}]})", R"({"v":1,"kids":[{"v":2}})"});
}

int main(int argc, char** argv) { return check::run(argc, argv); }
