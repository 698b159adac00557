// Masks of allowed tokens against a loop over all of them, and the numbers of tokens that texts still need.
#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "form/allowed.h"
#include "form/form.h"

using namespace sdar::form;

namespace {

/// Tokens that are one byte each, and random ones: pieces of JSON, words, characters of several bytes, parts of them.
std::shared_ptr<const Vocabulary> vocabulary(std::mt19937& random, int extra,
                                             std::vector<std::string>* list = nullptr) {
  static const std::vector<std::string> kPieces = {
      "\"", "\\",       "{",    "}",    "[",   "]",  ":", ",",   " ",  "\n",   "a",
      "b",  "name",     "true", "null", "1",   "23", ".", "e",   "-",  "é",    "中文",
      "😀",  "\xe4\xb8", "\xad", "\x80", "u00", "n",  "x", "the", "\t", "\x7f", "\xed\xa0\x80"};
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; b++) tokens.emplace_back(1, static_cast<char>(b));
  for (int i = 0; i < extra; i++) {
    std::string token;
    for (unsigned n = random() % 6 + 1; n > 0; n--) token += kPieces[random() % kPieces.size()];
    if (random() % 50 == 0) token = std::string(random() % 60, 'a') + token;
    tokens.push_back(token);
  }
  tokens.emplace_back();         // a special token
  tokens.emplace_back("<end>");  // has bytes, but is an end
  std::string bytes;
  std::vector<uint32_t> offsets{0};
  for (const std::string& t : tokens) bytes += t, offsets.push_back(static_cast<uint32_t>(bytes.size()));
  const auto end = static_cast<int32_t>(tokens.size()) - 1;
  if (list) *list = tokens;
  return std::make_shared<Vocabulary>(bytes, offsets, std::vector<int32_t>{end}, end + 70);
}

const char* const kForms[] = {
    R"({"type":"json"})",
    R"({"type":"json","whitespace":"none"})",
    R"({"type":"regex","pattern":"[a-z]+"})",
    R"({"type":"regex","pattern":".*foo.*"})",
    R"({"type":"regex","pattern":"[^\"]{3,40}!?"})",
    R"({"type":"regex","pattern":"(.{0,9}\\n)*"})",
    R"({"type":"regex","pattern":"[^a]*(a[^a]*a[^a]*)*"})",
    R"({"type":"regex","pattern":"\\p{L}+( \\p{L}+){0,3}"})",
    R"({"type":"choice","choices":["name","names","null","中文","中","true"]})",
    R"({"type":"grammar","grammar":"root ::= word (\" \" word)* \"\\n\"\nword ::= [^ \\n]+ | \"(\" root \")\""})",
    R"({"type":"grammar","grammar":"root ::= \"[\" (root (\",\" root)*)? \"]\" | [a-zA-Z0-9 ]+ | \"\\\"\" [^\\\"]* \"\\\"\""})",
};

}  // namespace

TEST("the mask of every state on random walks has the tokens that a loop over all allows") {
  std::mt19937 random(3);
  const auto words = vocabulary(random, 3000);
  for (const char* form : kForms) {
    Automaton automaton(compile(form));
    AllowedTokens allowed(automaton, words);
    std::set<State> seen;
    for (int walk = 0; walk < 12; walk++) {
      State state = automaton.start();
      for (int step = 0; step < 25; step++) {
        const auto mask = allowed.of(state);
        std::vector<int32_t> ids;
        if (seen.insert(state).second) {
          int wrong = 0;
          for (int32_t id = 0; id < words->size(); id++) {
            State to = automaton.advance(state, words->bytes(id));
            if (words->bytes(id).empty()) to = kDead;
            const bool ends = id == words->end_ids()[0] && automaton.can_end(state);
            wrong += has(*mask, id) != (to != kDead || ends);
            CHECK(allowed.advance(state, id) == (ends ? state : to));
          }
          if (wrong)
            check::fail(__FILE__, __LINE__, std::string(form) + ": " + std::to_string(wrong) + " tokens are wrong");
        }
        CHECK(allowed.of(state) == mask);  // kept
        for (int32_t id = 0; id < words->size(); id++)
          if (has(*mask, id) && id != words->end_ids()[0]) ids.push_back(id);
        if (ids.empty()) break;
        state = allowed.advance(state, ids[random() % ids.size()]);
      }
    }
    CHECK(seen.size() >= 2);
  }
}

TEST("texts are completed in as many tokens as were promised") {
  std::mt19937 random(4);
  const auto words = vocabulary(random, 3000);
  for (const char* form : kForms) {
    Automaton automaton(compile(form));
    AllowedTokens allowed(automaton, words);
    for (int walk = 0; walk < 10; walk++) {
      State state = automaton.start();
      for (int step = walk; step > 0; step--) {
        const auto mask = allowed.of(state);
        std::vector<int32_t> ids;
        for (int32_t id = 0; id < words->size(); id++)
          if (has(*mask, id) && id != words->end_ids()[0]) ids.push_back(id);
        if (ids.empty()) break;
        state = allowed.advance(state, ids[random() % ids.size()]);
      }
      uint32_t left = allowed.least_tokens(state);
      CHECK(left <= automaton.least_bytes(state));
      CHECK((left == 0) == automaton.can_end(state));
      for (; left > 0; left--) {
        State next = kDead;
        for (int32_t id = 0; id < words->size() && next == kDead; id++) {
          const State to = allowed.advance(state, id);
          if (to != kDead && allowed.least_tokens(to) == left - 1) next = to;
        }
        if (next == kDead) {
          check::fail(__FILE__, __LINE__, std::string(form) + ": no token brings the end nearer");
          break;
        }
        state = next;
      }
    }
  }
}

TEST("shortest texts may be more than can be looked at") {
  std::mt19937 random(5);
  const auto words = vocabulary(random, 300);
  // 2^40 sets of configurations; 2^60 stacks.
  std::string calls = "root ::= r0\\n";
  for (int i = 0; i < 60; i++) {
    const std::string next = "r" + std::to_string(i + 1);
    calls += "r" + std::to_string(i) + R"( ::= \"a\" )" + next + R"( \"c\" | \"b\" )" + next + R"( \"d\"\n)";
  }
  calls += R"(r60 ::= \"\")";
  for (const auto& [form, bytes] :
       {std::pair<std::string, uint32_t>{R"({"type":"regex","pattern":"[ab]*a[ab]{40}"})", 41},
        {R"({"type":"grammar","grammar":")" + calls + R"("})", 120}}) {
    Automaton automaton(compile(form));
    AllowedTokens allowed(automaton, words);
    State state = automaton.start();
    uint32_t least = allowed.least_tokens(state);
    CHECK(least > 0 && least <= bytes);
    CHECK(automaton.states() < 100'000);
    for (int step = 0; step < 41 && least > 0; step++) {
      state = allowed.advance(state, allowed.nearest(state));
      const uint32_t before = std::exchange(least, allowed.least_tokens(state));
      CHECK(least < before);
      if (least >= before) break;
    }
    CHECK(automaton.can_end(state) == (least == 0));
  }
}

TEST("a vocabulary that cannot spell a text says so") {
  Automaton automaton(compile(R"({"type":"choice","choices":["abc"]})"));
  const auto words = std::make_shared<Vocabulary>("abb", std::vector<uint32_t>{0, 2, 3}, std::vector<int32_t>{}, 2);
  AllowedTokens allowed(automaton, words);
  CHECK(allowed.least_tokens(automaton.start()) == kNoTokens);
  CHECK_THROWS("INVALID_OPTION", "end id 5", Vocabulary("a", {0, 1}, std::vector<int32_t>{5}, 5));
  CHECK_THROWS("INVALID_OPTION", "offsets", Vocabulary("a", {0, 2}, {}, 5));
}

TEST("masks outlive the states that an automaton drops") {
  std::mt19937 random(6);
  const auto words = vocabulary(random, 200);
  Automaton automaton(compile(kForms[0]));
  AllowedTokens allowed(automaton, words);
  const State inside = automaton.advance(automaton.start(), "[[{\"a");
  const Mask before = *allowed.of(inside);
  const uint32_t least = allowed.least_tokens(inside);
  const State kept = automaton.compact(std::vector<State>{inside})[0];
  CHECK(*allowed.of(kept) == before);
  CHECK(allowed.least_tokens(kept) == least);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
