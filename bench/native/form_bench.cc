// Time of a form: compiling it, the mask of allowed tokens of a state that is new and of one that is known.
//   form_bench --tokens FILE [--form FILE] [--walks 40] [--prepare 0]
// FILE of the tokens: their count, count + 1 offsets (uint32, little endian), the bytes, as bench/native/token-table.mjs writes them.
// --prepare finds the masks of so many states ahead. Prints JSON; times are in µs, medians and 99th percentiles over random walks.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "form/allowed.h"
#include "form/form.h"

using namespace sdar::form;

namespace {

using Clock = std::chrono::steady_clock;
double micros(Clock::time_point since) {
  return std::chrono::duration<double, std::micro>(Clock::now() - since).count();
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "%s cannot be read\n", path.c_str());
    std::exit(1);
  }
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

double quantile(std::vector<double>& times, double q) {
  if (times.empty()) return 0;
  std::sort(times.begin(), times.end());
  return times[std::min(times.size() - 1, static_cast<size_t>(q * static_cast<double>(times.size())))];
}

void measure(const std::string& name, const std::string& form, const std::shared_ptr<const Vocabulary>& words,
             int walks, int prepared, bool first) {
  auto start = Clock::now();
  const auto program = compile(form);
  const double compiling = micros(start);
  Automaton automaton(program);
  AllowedTokens allowed(automaton, words);
  start = Clock::now();
  allowed.prepare(static_cast<size_t>(prepared), [] { return false; });
  const double preparing = micros(start);
  std::mt19937 random(1);
  std::vector<double> fresh, known;
  std::set<State> seen;
  for (int walk = 0; walk < walks; walk++) {
    State state = automaton.start();
    for (int step = 0; step < 60; step++) {
      const bool is_new = seen.insert(state).second;
      start = Clock::now();
      auto mask = allowed.of(state);
      if (is_new) fresh.push_back(micros(start));
      start = Clock::now();
      mask = allowed.of(state);
      known.push_back(micros(start));
      std::vector<int32_t> ids;
      for (int32_t id = 0; id < words->size(); id++)
        if (has(*mask, id) && !words->bytes(id).empty()) ids.push_back(id);
      if (ids.empty()) break;
      state = allowed.advance(state, ids[random() % ids.size()]);
    }
  }
  start = Clock::now();
  const uint32_t least = allowed.least_tokens(automaton.start());
  const double budget = micros(start);
  std::printf(
      "%s\n {\"form\": \"%s\", \"compile\": %.0f, \"prepare\": %.0f, \"states\": %zu, \"newStates\": %zu, \"new\": "
      "%.1f, \"new99\": %.1f, "
      "\"known\": %.2f, \"known99\": %.2f, \"leastTokens\": %u, \"leastTokensTime\": %.0f, \"kilobytes\": %zu}",
      first ? "" : ",", name.c_str(), compiling, preparing, program->states(), fresh.size(), quantile(fresh, 0.5),
      quantile(fresh, 0.99), quantile(known, 0.5), quantile(known, 0.99), least, budget,
      (automaton.memory() + allowed.memory()) / 1024);
}

}  // namespace

int main(int argc, char** argv) {
  std::string tokens, file;
  int walks = 40, prepared = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--tokens") == 0) tokens = argv[i + 1];
    if (std::strcmp(argv[i], "--form") == 0) file = argv[i + 1];
    if (std::strcmp(argv[i], "--walks") == 0) walks = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--prepare") == 0) prepared = std::atoi(argv[i + 1]);
  }
  const std::string table = read(tokens);
  uint32_t count;
  std::memcpy(&count, table.data(), sizeof count);
  std::vector<uint32_t> offsets(count + 1u);
  std::memcpy(offsets.data(), table.data() + sizeof count, offsets.size() * sizeof(uint32_t));
  const std::string bytes = table.substr(sizeof count + offsets.size() * sizeof(uint32_t));
  auto start = Clock::now();
  const auto words = std::make_shared<Vocabulary>(bytes, offsets, std::vector<int32_t>{151645}, 151936);
  std::printf("{\"vocabulary\": %.0f, \"nodes\": %zu, \"forms\": [", micros(start), words->nodes().size());
  const std::pair<const char*, const char*> forms[] = {
      {"json", R"({"type":"json"})"},
      {"order",
       R"({"type":"json_schema","schema":{"type":"object","properties":{"id":{"type":"integer","minimum":1},)"
       R"("name":{"type":"string","maxLength":40},"email":{"type":"string","format":"email"},"tags":{"type":"array",)"
       R"("items":{"enum":["new","paid","sent"]},"maxItems":5},"price":{"type":"number","minimum":0,"multipleOf":0.01}},)"
       R"("required":["id","name","price"],"additionalProperties":false}})"},
      {"regex", R"({"type":"regex","pattern":"[A-Z][a-z]+( [A-Z][a-z]+){1,3}, \\d{1,4} .{0,80}"})"},
      {"grammar",
       R"({"type":"grammar","grammar":"root ::= line+\nline ::= word (\" \" word)* \"\\n\"\nword ::= [a-z]+ | \"(\" root \")\""})"},
  };
  bool first = true;
  if (!file.empty()) measure("file", read(file), words, walks, prepared, true), first = false;
  for (const auto& [name, form] : forms) {
    measure(name, form, words, walks, prepared, first);
    first = false;
  }
  std::printf("]}\n");
}
