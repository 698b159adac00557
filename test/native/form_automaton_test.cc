// Random grammars, recursive and ambiguous ones among them, against a matcher that tries everything.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "check.h"
#include "form/automaton.h"
#include "form/form.h"
#include "util/json.h"

using namespace sdar::form;

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + '"';
}

std::shared_ptr<const Program> grammar(const std::string& text) {
  return compile(R"({"type":"grammar","grammar":)" + quoted(text) + "}");
}

/// A grammar that is matched by finding all places at which each part of it may end.
struct Plain {
  struct Node {
    enum { kText, kConcat, kAny, kRepeat, kRule } kind;
    std::string text;
    std::vector<int> kids;
    int least = 0, most = 0, rule = 0;
  };
  std::vector<Node> nodes;
  std::vector<int> rules;
  std::mt19937& random;

  int draw(int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); }
  int add(Node n) {
    nodes.push_back(std::move(n));
    return static_cast<int>(nodes.size()) - 1;
  }
  int make(int depth) {
    const int kind = depth == 0 ? 0 : draw(8);
    if (kind < 3) return add({Node::kText, std::string(1, static_cast<char>('a' + draw(2))), {}});
    if (kind == 3)
      return add({.kind = Node::kRule, .text = {}, .kids = {}, .rule = draw(static_cast<int>(rules.size()))});
    if (kind == 4) {
      static constexpr int kTimes[][2] = {{0, 1}, {0, -1}, {1, -1}, {0, 2}, {1, 3}};
      const auto& times = kTimes[draw(5)];
      const int kid = make(depth - 1);
      return add({.kind = Node::kRepeat, .text = {}, .kids = {kid}, .least = times[0], .most = times[1]});
    }
    std::vector<int> kids;
    for (int i = draw(3) + 1; i > 0; i--) kids.push_back(make(depth - 1));
    return add({.kind = kind < 7 ? Node::kConcat : Node::kAny, .text = {}, .kids = kids});
  }
  void fill(int count) {
    rules.resize(static_cast<size_t>(count));
    for (int& rule : rules) rule = make(4);
  }

  std::string write(int node) const {
    const Node& n = nodes[static_cast<size_t>(node)];
    if (n.kind == Node::kText) return quoted(n.text);
    if (n.kind == Node::kRule) return n.rule == 0 ? "root" : "r" + std::to_string(n.rule);
    std::string out = "(";
    for (size_t i = 0; i < n.kids.size(); i++)
      out += (i == 0 ? "" : n.kind == Node::kAny ? " | " : " ") + write(n.kids[i]);
    out += ")";
    if (n.kind == Node::kRepeat)
      out += "{" + std::to_string(n.least) + "," + (n.most < 0 ? "" : std::to_string(n.most)) + "}";
    return out;
  }
  std::string write() const {
    std::string out;
    for (size_t r = 0; r < rules.size(); r++)
      out += (r == 0 ? "root" : "r" + std::to_string(r)) + " ::= " + write(rules[r]) + "\n";
    return out;
  }

  using Ends = std::set<size_t>;
  std::map<std::pair<int, size_t>, Ends> known;
  bool grew = false;

  Ends ends(int node, const std::string& text, size_t at) {
    const Node& n = nodes[static_cast<size_t>(node)];
    if (n.kind == Node::kText) return text.compare(at, n.text.size(), n.text) == 0 ? Ends{at + n.text.size()} : Ends{};
    if (n.kind == Node::kRule) return known[{n.rule, at}];
    Ends now{at}, out;
    if (n.kind == Node::kAny) {
      for (const int kid : n.kids) out.merge(ends(kid, text, at));
    } else if (n.kind == Node::kConcat) {
      for (const int kid : n.kids) now = after(kid, text, now);
      out = now;
    } else {
      for (int i = 0; i < n.least; i++) now = after(n.kids[0], text, now);
      out = now;
      for (int i = n.least; i != n.most && !now.empty(); i++) {
        now = after(n.kids[0], text, now);
        const size_t before = out.size();
        out.insert(now.begin(), now.end());
        if (n.most < 0 && out.size() == before) break;
      }
    }
    return out;
  }
  Ends after(int node, const std::string& text, const Ends& from) {
    Ends out;
    for (const size_t at : from) out.merge(ends(node, text, at));
    return out;
  }
  bool matches(const std::string& text) {
    known.clear();
    do {
      grew = false;
      for (size_t at = 0; at <= text.size(); at++)
        for (size_t r = 0; r < rules.size(); r++) {
          Ends found = ends(rules[r], text, at);
          Ends& all = known[{static_cast<int>(r), at}];
          const size_t before = all.size();
          all.merge(found);
          grew |= all.size() != before;
        }
    } while (grew);
    return known[{0, 0}].contains(text.size());
  }
};

/// All texts of a and b up to a length, shorter ones first.
std::vector<std::string> all_texts(size_t most) {
  std::vector<std::string> out{""};
  for (size_t i = 0; i < out.size(); i++)
    if (out[i].size() < most) out.push_back(out[i] + 'a'), out.push_back(out[i] + 'b');
  return out;
}

}  // namespace

TEST("random grammars match what a search of all ways says, and no dead state could have gone on") {
  std::mt19937 random(5);
  const auto texts = all_texts(6);
  int compiled = 0, matched = 0, recursive = 0;
  for (int round = 0; round < 400; round++) {
    Plain plain{.nodes = {}, .rules = {}, .random = random, .known = {}};
    plain.fill(1 + round % 4);
    std::shared_ptr<const Program> program;
    try {
      program = grammar(plain.write());
    } catch (const sdar::Error& e) {
      CHECK(e.code() == "INVALID_OPTION");
      const std::string what = e.what();
      const bool left = what.find("left-recursive") != what.npos, none = what.find("no text") != what.npos;
      CHECK(left || none);
      if (none)
        for (const std::string& text : texts) CHECK(!plain.matches(text));
      continue;
    }
    compiled++;
    Automaton automaton(program);
    std::set<std::string> matching;
    for (const std::string& text : texts)
      if (plain.matches(text)) matching.insert(text);
    recursive += !program->call_edges.empty();
    for (const std::string& text : texts) {
      const State state = automaton.advance(automaton.start(), text);
      const bool ends = state != kDead && automaton.can_end(state);
      if (ends != matching.contains(text)) check::fail(__FILE__, __LINE__, plain.write() + " on '" + text + "'");
      matched += ends;
      uint32_t least = kUnreachable;
      for (const std::string& longer : matching)
        if (longer.starts_with(text)) least = std::min(least, static_cast<uint32_t>(longer.size() - text.size()));
      if (state == kDead) {
        CHECK(least == kUnreachable);
        continue;
      }
      // Longer texts than those looked at may match, not shorter ones.
      if (least != kUnreachable)
        CHECK(automaton.least_bytes(state) == least);
      else
        CHECK(automaton.least_bytes(state) > 6 - text.size());
      State at = state;
      for (uint32_t left = automaton.least_bytes(state); left > 0; left--) {
        const State a = automaton.advance(at, 'a'), b = automaton.advance(at, 'b');
        at = a != kDead && automaton.least_bytes(a) == left - 1 ? a : b;
        if (at == kDead || automaton.least_bytes(at) != left - 1) {
          CHECK(!"no byte brings the end nearer");
          break;
        }
      }
    }
  }
  CHECK(compiled > 200);
  CHECK(matched > 1000);
  CHECK(recursive > 100);
}

TEST("states are the same when what may follow is the same, however long a list is") {
  Automaton automaton(grammar("root ::= item | item \",\" root\nitem ::= [0-9]+\n"));
  const State once = automaton.advance(automaton.start(), "1,"), often = automaton.advance(once, "22,333,4,");
  CHECK(once == often);
  CHECK(automaton.advance(once, ",") == kDead);
  CHECK(automaton.advance(kDead, "1") == kDead);
}

TEST("ambiguity does not multiply stacks") {
  // Each a may return to two places: 2^n stacks without shared nodes.
  Automaton automaton(grammar("root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"x\"\n"));
  std::string text(2000, 'a');
  State state = automaton.advance(automaton.start(), text + "x");
  CHECK(state != kDead);
  CHECK(automaton.least_bytes(state) == 2000);
  for (int i = 0; i < 2000; i++) state = automaton.advance(state, i % 3 ? 'b' : 'c');
  CHECK(state != kDead && automaton.can_end(state));
  CHECK(automaton.memory() < size_t{4} << 20);
}

TEST("forced bytes end where there is a choice or the text may end") {
  Automaton automaton(grammar("root ::= \"{\\\"name\\\":\" (\"tom\" | \"tim\") \"}\" \"!\"?\n"));
  CHECK(automaton.forced(automaton.start(), 100) == "{\"name\":t");
  CHECK(automaton.forced(automaton.start(), 3) == "{\"n");
  const State state = automaton.advance(automaton.start(), "{\"name\":to");
  CHECK(automaton.forced(state, 100) == "m}");
  CHECK(automaton.forced(automaton.advance(state, "m}"), 100).empty());
}

TEST("states that are kept while others are dropped mean the same") {
  Automaton automaton(compile(R"({"type":"json"})"));
  const std::string deep = "[[{\"a\":[1,{\"b\":";
  const State live[] = {automaton.advance(automaton.start(), deep), kDead, automaton.advance(automaton.start(), "[tr")};
  for (int i = 0; i < 3000; i++) automaton.advance(automaton.start(), std::string(static_cast<size_t>(i), '['));
  const size_t before = automaton.memory();
  const std::vector<State> kept = automaton.compact(live);
  CHECK(automaton.memory() * 20 < before);
  CHECK(kept.size() == 3 && kept[1] == kDead);
  CHECK(automaton.least_bytes(kept[0]) == 6);
  const State done = automaton.advance(kept[0], "null}]}]]");
  CHECK(done != kDead && automaton.can_end(done));
  CHECK(automaton.advance(kept[0], "null}]}]]]") == kDead);
  CHECK(automaton.advance(kept[2], "ue]") != kDead);
  CHECK(automaton.advance(automaton.start(), "true") != kDead);
}

TEST("what GBNF has that is not supported, or is wrong, is refused by line and name") {
  const auto refused = [](const char* text, const char* part) { CHECK_THROWS("INVALID_OPTION", part, grammar(text)); };
  refused("root ::= a\n", "the rule a is used but not defined");
  refused("a ::= \"x\"\n", "there is no rule root");
  refused("root ::= \"x\"\nroot ::= \"y\"\n", "line 2: the rule root is defined twice");
  refused("root ::= <think>\n", "line 1: a match of a token");
  refused("root ::= \"x\n", "a literal or class that does not end");
  refused("root ::= (\"x\"\n", "a ( without its )");
  refused("root ::= \"x\"{2,1}\n", "out of order");
  refused("root ::= \"\\q\"\n", "the escape \\q");
  refused("root ::= a \"x\"\na ::= b?\nb ::= root\n", "left-recursive");
  refused("root ::= \"x\" root\n", "no text");
  CHECK(
      grammar("# a comment\nroot ::= ( # another\n  [a-c\\x41]\n  | \n\"\\u00e9\" )+ tail\ntail::=.\n")->rules.size() ==
      2);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
