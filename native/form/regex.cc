#include "form/regex.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "form/regex_syntax.h"
#include "util/error.h"

namespace sdar::form {
namespace {

constexpr size_t kMostStates = size_t{1} << 17;
constexpr size_t kMostOfLook = 2048;  // states

/// The machine with its assertions still in it: an edge that reads nothing may ask for a place in the text.
struct Draft {
  struct Step {
    Assertion assertion;  ///< kNone: always
    uint32_t to;
    uint32_t look;  ///< the node of a lookahead that must hold; kUnreachable: none
  };
  struct State {
    std::vector<CharNfa::Edge> edges;
    std::vector<Step> steps;
  };
  std::vector<State> states;
  std::vector<CharSet> sets;
  const RegexSyntax& syntax;
  const std::string& at;
  std::map<uint32_t, uint32_t> set_of{};  ///< by node

  uint32_t state() {
    if (states.size() == kMostStates)
      throw Error(code::kInvalidOption, at + ": the pattern needs more than " + std::to_string(kMostStates) +
                                            " states; lower its repetitions");
    states.emplace_back();
    return static_cast<uint32_t>(states.size() - 1);
  }
  void pass(uint32_t from, uint32_t to, Assertion assertion = Assertion::kNone) {
    states[from].steps.push_back({assertion, to, kUnreachable});
  }

  /// Depth is bounded by the parser.
  void build(uint32_t node, uint32_t from, uint32_t to) {
    const RegexNode& n = syntax.nodes[node];
    switch (n.kind) {
      case RegexNode::kEmpty:
      case RegexNode::kRule:  // grammars only
        return pass(from, to);
      case RegexNode::kAssert:
        return pass(from, to, n.assertion);
      case RegexNode::kLook:
        states[from].steps.push_back({Assertion::kNone, to, node});
        return;
      case RegexNode::kSet: {
        const auto [found, added] = set_of.try_emplace(node, static_cast<uint32_t>(sets.size()));
        if (added) sets.push_back(n.set);
        states[from].edges.push_back({found->second, to});
        return;
      }
      case RegexNode::kConcat:
        for (size_t i = 0; i < n.kids.size(); i++) {
          const uint32_t next = i + 1 == n.kids.size() ? to : state();
          build(n.kids[i], from, next);
          from = next;
        }
        return;
      case RegexNode::kAlternatives:
        for (const uint32_t kid : n.kids) build(kid, from, to);
        return;
      case RegexNode::kRepeat:
        return repeat(n, from, to);
    }
  }
  void repeat(const RegexNode& n, uint32_t from, uint32_t to) {
    for (int64_t i = 0; i < n.least; i++) {
      const uint32_t next = state();
      build(n.kids[0], from, next);
      from = next;
    }
    if (n.most < 0) {
      const uint32_t loop = state();
      pass(from, loop);
      build(n.kids[0], loop, loop);
      return pass(loop, to);
    }
    for (int64_t i = n.least; i < n.most; i++) {
      const uint32_t next = state();
      pass(from, to);
      build(n.kids[0], from, next);
      from = next;
    }
    pass(from, to);
  }
};

const CharSet& word_characters() {
  static const CharSet set = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  return set;
}

/// A state of the draft at a kind of place in the text: what came before, and what assertions and lookaheads have promised
/// comes next.
struct Place {
  enum Before : uint8_t { kStart, kWord, kOther };
  enum Next : uint8_t { kAnything, kNextWord, kNextOther, kEnd };  // kNextOther: or the end
  uint32_t state;
  Before before;
  Next next;
  /// Machines that must accept the rest of the text, and their states; ascending.
  std::vector<std::pair<uint32_t, uint32_t>> owed{};
  auto operator<=>(const Place&) const = default;
};

/// Takes the assertions out, by telling states at different places apart.
class Resolver {
 public:
  Resolver(Draft& draft, uint32_t start, uint32_t accept, Place::Before before) : draft_(draft), accept_(accept) {
    number({start, before, Place::kAnything});
    for (size_t i = 0; i < places_.size(); i++) expand(static_cast<uint32_t>(i));
    out_.sets = std::move(sets_);
  }
  CharNfa take() { return std::move(out_); }

 private:
  /// A lookahead's machine, and where it accepts whatever comes.
  struct Look {
    CharDfa machine;
    std::vector<bool> settled;
  };

  uint32_t number(Place place) {
    const auto [at, added] = known_.try_emplace(place, static_cast<uint32_t>(places_.size()));
    if (added) {
      if (places_.size() == 2 * kMostStates)
        throw Error(code::kInvalidOption,
                    draft_.at + ": the pattern's anchors and word boundaries need too many states");
      WorkLimit::charge(4 + 4 * place.owed.size(), draft_.at);
      places_.push_back(std::move(place));
      out_.state();
    }
    return at->second;
  }
  uint32_t set(uint32_t draft_set, int part) {  // part 0: all of it; 1: word characters; 2: others
    const auto [at, added] = known_sets_.try_emplace({draft_set, part}, static_cast<uint32_t>(sets_.size()));
    if (added) {
      const CharSet& all = draft_.sets[draft_set];
      sets_.push_back(part == 0 ? all : part == 1 ? all.intersect(word_characters()) : all.without(word_characters()));
    }
    return at->second;
  }
  uint32_t look(uint32_t node, Place::Before before);
  void owe(std::vector<std::pair<uint32_t, uint32_t>>& owed, uint32_t machine, uint32_t state) const {
    if (looks_[machine].settled[state]) return;
    const std::pair<uint32_t, uint32_t> entry{machine, state};
    const auto at = std::ranges::lower_bound(owed, entry);
    if (at == owed.end() || *at != entry) owed.insert(at, entry);
  }
  /// An edge of a place that owes something: its characters by what is owed after them.
  void owing_edge(uint32_t from, const Place& place, uint32_t set, Place to) {
    std::vector<std::pair<CharSet, Place>> pieces{{sets_[set], std::move(to)}};
    for (const auto& [machine, state] : place.owed) {
      std::map<uint32_t, CharSet> by_target;
      for (const auto& e : looks_[machine].machine.states()[state].edges) by_target[e.to].add(e.low, e.high);
      std::vector<std::pair<CharSet, Place>> split;
      for (const auto& [characters, then] : pieces)
        for (const auto& [target, own] : by_target) {
          CharSet both = characters.intersect(own);
          WorkLimit::charge(1 + characters.ranges().size() + own.ranges().size(), draft_.at);
          if (both.empty()) continue;
          split.emplace_back(std::move(both), then);
          owe(split.back().second.owed, machine, target);
        }
      pieces = std::move(split);
    }
    for (auto& [characters, then] : pieces) {
      sets_.push_back(characters);
      const auto piece = static_cast<uint32_t>(sets_.size() - 1);
      edge(from, piece, std::move(then));
    }
  }
  void edge(uint32_t from, uint32_t set, Place to) {
    if (sets_[set].empty()) return;
    const uint32_t next = number(to);  // first: it may move the states
    out_.states[from].edges.push_back({set, next});
  }

  void expand(uint32_t i) {
    const Place place = places_[i];
    const auto paid = [&](const auto& owed) { return looks_[owed.first].machine.states()[owed.second].accepts; };
    if (place.state == accept_ && place.next != Place::kNextWord && std::ranges::all_of(place.owed, paid))
      out_.states[i].accepts = true;
    for (const auto& step : draft_.states[place.state].steps) follow(i, place, step);
    if (place.next == Place::kEnd) return;
    for (const auto& e : draft_.states[place.state].edges) {
      const auto add = [&](int part, Place::Before before) {
        Place to{e.to, before, Place::kAnything};
        if (place.owed.empty())
          edge(i, set(e.set, part), std::move(to));
        else
          owing_edge(i, place, set(e.set, part), std::move(to));
      };
      if (!draft_.syntax.has_boundaries) {
        add(0, Place::kOther);
        continue;
      }
      if (place.next != Place::kNextOther) add(1, Place::kWord);
      if (place.next != Place::kNextWord) add(2, Place::kOther);
    }
  }
  void follow(uint32_t i, Place place, const Draft::Step& step) {
    Place next = place;
    next.state = step.to;
    const auto promise = [&](Place::Next what) {
      if (place.next == Place::kAnything || place.next == what) return next.next = what, true;
      if (place.next == Place::kEnd && what == Place::kNextOther) return true;
      if (place.next == Place::kNextOther && what == Place::kEnd) return next.next = what, true;
      return false;
    };
    bool open = true;
    if (step.look != kUnreachable) owe(next.owed, look(step.look, place.before), 0);
    const bool after_word = place.before == Place::kWord;
    if (step.assertion == Assertion::kStart) open = place.before == Place::kStart;
    if (step.assertion == Assertion::kEnd) open = promise(Place::kEnd);
    if (step.assertion == Assertion::kBoundary) open = promise(after_word ? Place::kNextOther : Place::kNextWord);
    if (step.assertion == Assertion::kNoBoundary) open = promise(after_word ? Place::kNextWord : Place::kNextOther);
    if (open) {
      const uint32_t to = number(next);
      out_.states[i].empties.push_back(to);
    }
  }

  Draft& draft_;
  uint32_t accept_;
  CharNfa out_;
  std::vector<CharSet> sets_;
  std::vector<Place> places_;
  std::map<Place, uint32_t> known_;
  std::map<std::pair<uint32_t, int>, uint32_t> known_sets_;
  std::vector<Look> looks_;
  std::map<std::pair<uint32_t, Place::Before>, uint32_t> known_looks_;
};

uint32_t Resolver::look(uint32_t node, Place::Before before) {
  const auto [at, added] = known_looks_.try_emplace({node, before}, static_cast<uint32_t>(looks_.size()));
  if (!added) return at->second;
  // What is looked for, and then anything.
  Draft draft{.states = {}, .sets = {CharSet::all()}, .syntax = draft_.syntax, .at = draft_.at};
  const uint32_t start = draft.state(), accept = draft.state();
  draft.states[accept].edges.push_back({0, accept});
  draft.build(draft.syntax.nodes[node].kids[0], start, accept);
  auto machine = CharDfa::of(Resolver(draft, start, accept, before).take(), kMostOfLook, draft.at);
  if (!machine)
    throw Error(code::kInvalidOption,
                draft.at + ": a lookahead of the pattern needs more than " + std::to_string(kMostOfLook) + " states");
  if (draft.syntax.nodes[node].negated) machine = machine->complement();
  const auto& states = machine->states();
  std::vector<bool> settled(states.size());
  for (size_t q = 0; q < states.size(); q++) {
    char32_t next = 0;
    for (const auto& e : states[q].edges)
      if (e.low == next) next = e.high + 1;
    settled[q] = states[q].accepts && next > kLastCodePoint;
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t q = 0; q < states.size(); q++)
      if (settled[q] && std::ranges::any_of(states[q].edges, [&](const auto& e) { return !settled[e.to]; }))
        settled[q] = false, changed = true;
  }
  looks_.push_back({std::move(*machine), std::move(settled)});
  return at->second;
}

}  // namespace

CharNfa parse_regex(std::string_view pattern, bool search, const std::string& at) {
  const RegexSyntax syntax = parse_regex_syntax(pattern, at);
  Draft draft{.states = {}, .sets = {}, .syntax = syntax, .at = at};
  uint32_t start = draft.state();
  const uint32_t first = start, accept = draft.state();
  if (search) {
    draft.sets.push_back(CharSet::all());
    draft.states[start].edges.push_back({0, start});
    draft.states[accept].edges.push_back({0, accept});
    const uint32_t inner = draft.state();
    draft.pass(start, inner);
    start = inner;
  }
  draft.build(syntax.root, start, accept);
  return Resolver(draft, first, accept, Place::kStart).take();
}

}  // namespace sdar::form
