// Forms that mean to explode: each is compiled or refused at once, in bounded memory, and so are the states and masks of those
// that are compiled.
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "check.h"
#include "form/allowed.h"
#include "form/form.h"

using namespace sdar::form;

namespace {

std::string repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; i++) out += text;
  return out;
}
std::string joined(int count, const std::function<std::string(int)>& part, const char* between = ",") {
  std::string out;
  for (int i = 0; i < count; i++) out += (i ? between : "") + part(i);
  return out;
}
std::string regex(const std::string& pattern) { return R"({"type":"regex","pattern":")" + pattern + "\"}"; }
std::string schema(const std::string& json) { return R"({"type":"json_schema","schema":)" + json + "}"; }
std::string grammar(const std::string& text) { return R"({"type":"grammar","grammar":")" + text + "\"}"; }

std::shared_ptr<const Vocabulary> bytes_vocabulary() {
  std::string bytes;
  std::vector<uint32_t> offsets{0};
  for (int b = 0; b < 256; b++) bytes += static_cast<char>(b), offsets.push_back(static_cast<uint32_t>(b) + 1);
  return std::make_shared<Vocabulary>(bytes, offsets, std::vector<int32_t>{}, 256);
}

// Generous, for sanitizers: without them none takes a second.
constexpr double kMostSeconds = 10;
constexpr size_t kMostMemory = size_t{64} << 20;

}  // namespace

TEST("forms that mean to explode are compiled or refused, and what is compiled stays small") {
  const std::vector<std::pair<std::string, std::string>> forms = {
      {"nested stars", regex("((((a*)*)*)*)*b")},
      {"nested counts", regex("((a{0,100}){0,100}){0,100}")},
      {"nested counts without end", regex("(((a{1,50}b?){1,50}c?){1,50})*")},
      {"many ways to the same", regex("(a|a|a|b|ab)*" + repeat("(a?|b)", 200))},
      {"exponential automaton", regex("(a|b)*a(a|b){200}")},
      {"any text and then a count", regex(".*x.{300}")},
      {"huge count", regex("a{1000000}")},
      {"lookaheads in a repetition", regex("((?=a*b)(?=(a|b)*c{1,30}x)(?!.*(a|b)a(a|b){8}c)[abc]){1,60}x")},
      {"huge classes", regex("\\\\p{L}{2000}")},
      {"empty things repeated", regex("(()|(){1000}|(()*)*){1000}")},
      {"deep groups", regex(repeat("(", 5000) + "a" + repeat(")", 5000))},
      {"deep groups that are allowed", regex(repeat("(", 200) + "a" + repeat(")*", 200))},
      {"choices", R"({"type":"choice","choices":[)" +
                      joined(10000, [](int i) { return "\"choice " + std::to_string(i * 7919) + "\""; }) + "]}"},
      {"alternatives", regex(joined(
                           10000, [](int i) { return "choice " + std::to_string(i * 7919); }, "|"))},
      {"wide schema", schema(R"({"type":"object","additionalProperties":false,"properties":{)" +
                             joined(20000,
                                    [](int i) {
                                      return "\"property " + std::to_string(i) + R"(":{"type":"integer","minimum":)" +
                                             std::to_string(i % 50) + "}";
                                    }) +
                             "}}")},
      {"wide schema with other names",
       schema(R"({"type":"object","properties":{)" +
              joined(20000, [](int i) { return "\"property " + std::to_string(i) + R"(":{"type":"string"})"; }) +
              "}}")},
      {"deep schema", schema(repeat(R"({"items":)", 150) + "true" + repeat("}", 150))},
      {"schema too deep", schema(repeat(R"({"items":)", 100000) + "true" + repeat("}", 100000))},
      {"chain of references", schema(R"({"$ref":"#/$defs/d0","$defs":{)" +
                                     joined(5000,
                                            [](int i) {
                                              return "\"d" + std::to_string(i) + R"(":{"$ref":"#/$defs/d)" +
                                                     std::to_string(i + 1) + "\"}";
                                            }) +
                                     R"(,"d5000":{"type":"null"}}})")},
      {"chain of merged references", schema(R"({"$ref":"#/$defs/d0","$defs":{)" +
                                            joined(5000,
                                                   [](int i) {
                                                     return "\"d" + std::to_string(i) +
                                                            R"(":{"type":"array","$ref":"#/$defs/d)" +
                                                            std::to_string(i + 1) + "\"}";
                                                   }) +
                                            R"(,"d5000":true}})")},
      {"doubling references", schema(R"({"$ref":"#/$defs/d0","$defs":{)" +
                                     joined(60,
                                            [](int i) {
                                              const std::string next =
                                                  R"({"$ref":"#/$defs/d)" + std::to_string(i + 1) + "\"}";
                                              return "\"d" + std::to_string(i) +
                                                     R"(":{"type":"array","prefixItems":[)" + next + "," + next +
                                                     R"(],"minItems":2})";
                                            }) +
                                     R"(,"d60":{"type":"null"}}})")},
      {"doubling choices",
       schema(R"({"$ref":"#/$defs/d0","$defs":{)" +
              joined(60,
                     [](int i) {
                       const std::string next = R"({"$ref":"#/$defs/d)" + std::to_string(i + 1) + "\"}";
                       return "\"d" + std::to_string(i) + R"(":{"type":"array","anyOf":[)" + next + "," + next + "]}";
                     }) +
              R"(,"d60":true}})")},
      {"choices times choices",
       schema(R"({"allOf":[)" +
              joined(20, [](int) { return R"({"anyOf":[{"minLength":1},{"maxLength":5},{"pattern":"a"}]})"; }) + "]}")},
      {"large oneOf", schema(R"({"oneOf":[)" +
                             joined(60,
                                    [](int i) {
                                      return R"({"type":"object","properties":{"k":{"const":)" + std::to_string(i) +
                                             R"(}},"required":["k"]})";
                                    }) +
                             "]}")},
      {"huge oneOf", schema(R"({"oneOf":[)" +
                            joined(10000, [](int i) { return R"({"minimum":)" + std::to_string(i) + "}"; }) + "]}")},
      {"numbers of a long enum", schema(R"({"minimum":5,"multipleOf":3,"enum":[)" +
                                        joined(100000, [](int i) { return std::to_string(i); }) + "]}")},
      {"strings of a long enum", schema(R"({"pattern":"[0-9]$","enum":[)" +
                                        joined(30000, [](int i) { return "\"c" + std::to_string(i) + "\""; }) + "]}")},
      {"long enums together", schema(R"({"allOf":[{"enum":[)" +
                                     joined(50000, [](int i) { return std::to_string(i); }) + R"(]},{"enum":[)" +
                                     joined(50000, [](int i) { return std::to_string(i + 7); }) + "]}]}")},
      {"all but a long enum", schema(R"({"enum":[)" + joined(50000, [](int i) { return std::to_string(i); }) +
                                     R"(],"not":{"enum":[)" +
                                     joined(50000, [](int i) { return std::to_string(i + 7); }) + "]}}")},
      {"long strings", schema(R"({"type":"string","minLength":3000,"maxLength":9000})")},
      {"too long strings", schema(R"({"type":"string","maxLength":100000000})")},
      {"many items", schema(R"({"type":"array","items":{"type":"integer"},"minItems":1000,"maxItems":5000})")},
      {"too many items", schema(R"({"type":"array","maxItems":1000000000})")},
      {"contains many", schema(R"({"type":"array","contains":{"type":"null"},"minContains":2000})")},
      {"pattern of names",
       schema(
           R"({"patternProperties":{"(a|b)*a(a|b){12}":{},"a.*b.*c":{},"^x{50}":{}},"additionalProperties":false})")},
      {"long multiple",
       schema(R"({"type":"number","multipleOf":2999,"minimum":-1e300,"maximum":123456789.123456789})")},
      {"grammar of copies", grammar("root ::= " +
                                    joined(
                                        30,
                                        [](int i) {
                                          return "\\\"a\\\" root \\\"" +
                                                 std::string(1, static_cast<char>('b' + i % 20)) + "\\\"";
                                        },
                                        " | ") +
                                    " | \\\"x\\\"")},
      {"grammar of optional rules", grammar("root ::= " +
                                            joined(
                                                300, [](int i) { return "r" + std::to_string(i) + "?"; }, " ") +
                                            " \\\"!\\\"\\n" +
                                            joined(
                                                300,
                                                [](int i) {
                                                  return "r" + std::to_string(i) + " ::= \\\"a\\\" | \\\"b\\\" r" +
                                                         std::to_string((i + 1) % 300) + "\\n";
                                                },
                                                ""))},
      {"doubling grammar", grammar(joined(
                                       40,
                                       [](int i) {
                                         const std::string next = "r" + std::to_string(i + 1);
                                         return (i == 0 ? "root" : "r" + std::to_string(i)) + " ::= " + next + " " +
                                                next + "\\n";
                                       },
                                       "") +
                                   "r40 ::= \\\"a\\\"?\\n")},
  };
  const auto words = bytes_vocabulary();
  int compiled = 0;
  for (const auto& [name, form] : forms) {
    const std::clock_t start = std::clock();  // of this process: others may keep the machine busy
    std::string refusal;
    size_t memory = 0;
    try {
      const auto program = compile(form);
      compiled++;
      memory = program->memory();
      Automaton automaton(program);
      AllowedTokens allowed(automaton, words);
      // Along a text that goes on as long as it may, taking the last of the allowed bytes, or the first.
      for (const bool last : {false, true}) {
        State state = automaton.start();
        for (int i = 0; i < 150 && state != kDead; i++) {
          const auto mask = allowed.of(state);
          int32_t chosen = -1;
          for (int32_t b = 0; b < 256; b++)
            if (has(*mask, b) && (last || chosen < 0)) chosen = b;
          CHECK(chosen >= 0 || automaton.can_end(state));
          if (chosen < 0) break;
          state = automaton.advance(state, static_cast<uint8_t>(chosen));
        }
      }
      memory += automaton.memory() + allowed.memory();
    } catch (const sdar::Error& e) {
      refusal = e.what();
      CHECK(e.code() == "INVALID_OPTION");
      CHECK(refusal.starts_with("format"));
    }
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    if (std::getenv("SDAR_TEST_REASONS"))
      std::printf("# %-28s %6.3f s %6zu KiB  %s\n", name.c_str(), seconds, memory / 1024,
                  refusal.substr(0, 120).c_str());
    if (seconds > kMostSeconds || memory > kMostMemory)
      check::fail(__FILE__, __LINE__,
                  name + ": " + std::to_string(seconds) + " s, " + std::to_string(memory) + " bytes");
  }
  CHECK(compiled >= 15);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
