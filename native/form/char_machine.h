// Automata over code points: what patterns, lengths, formats and bounds of JSON Schema are combined as, before they become
// bytes.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "form/char_set.h"
#include "form/program.h"

namespace sdar::form {

/// Bounds the work of all automata that this thread makes while it lives: about a second's. Without one there is no bound.
class WorkLimit {
 public:
  WorkLimit() : outer_(current_) { current_ = this; }
  ~WorkLimit() { current_ = outer_; }
  WorkLimit(const WorkLimit&) = delete;
  WorkLimit& operator=(const WorkLimit&) = delete;
  /// Throws Error(INVALID_OPTION), with `at`, when no work is left.
  static void charge(size_t work, const std::string& at);

 private:
  static constexpr size_t kMost = 6'000'000;  // ranges of edges looked at
  static thread_local WorkLimit* current_;
  WorkLimit* outer_;
  size_t done_ = 0;
};

/// Nondeterministic. State 0 is the start.
struct CharNfa {
  struct Edge {
    uint32_t set;  ///< of sets
    uint32_t to;
  };
  struct State {
    std::vector<Edge> edges;
    std::vector<uint32_t> empties;
    bool accepts = false;
  };
  std::vector<CharSet> sets;
  std::vector<State> states;

  uint32_t state() {
    states.emplace_back();
    return static_cast<uint32_t>(states.size() - 1);
  }
  void lower(Builder& builder, uint32_t from, uint32_t to, Encoding encoding) const;
};

/// Deterministic; edges of a state ascend and do not overlap, what they leave out leads nowhere. State 0 is the start.
class CharDfa {
 public:
  struct Edge {
    char32_t low, high;
    uint32_t to;
  };
  struct State {
    std::vector<Edge> edges;
    bool accepts = false;
  };
  static constexpr size_t kMostStates = size_t{1} << 16;
  static constexpr size_t kMostEdges = size_t{1} << 20;

  /// No text at all.
  CharDfa() : states_(1) {}
  /// All texts of at least `least` and at most `most` characters of the set; `most` below 0 is no bound.
  static CharDfa repeat(const CharSet& set, int64_t least, int64_t most, const std::string& at);
  static CharDfa any() { return repeat(CharSet::all(), 0, -1, {}); }
  static CharDfa texts(const std::vector<std::u32string>& texts, const std::string& at);
  /// Nothing when it has more than `most` states, or is much work.
  static std::optional<CharDfa> of(const CharNfa& nfa, size_t most, const std::string& at);

  /// A machine given by its states' keys: edges(key, add) calls add(low, high, key) for ranges in ascending order.
  template <class Key, class Accepts, class Edges>
  static CharDfa explore(const Key& start, Accepts accepts, Edges edges, const std::string& at) {
    CharDfa out;
    out.states_.clear();
    std::map<Key, uint32_t> known;
    std::vector<Key> keys;
    const auto number = [&](const Key& key) {
      const auto [found, added] = known.try_emplace(key, static_cast<uint32_t>(keys.size()));
      if (added) keys.push_back(key), out.states_.push_back({{}, accepts(key)});
      return found->second;
    };
    number(start);
    for (size_t q = 0; q < keys.size(); q++) {
      const Key key = keys[q];
      edges(key, [&](char32_t low, char32_t high, const Key& next) {
        const uint32_t to = number(next);
        out.states_[q].edges.push_back({low, high, to});
      });
      check(keys.size(), 0, at);
      WorkLimit::charge(1 + out.states_[q].edges.size(), at);
    }
    out.trim();
    return out;
  }

  /// These throw Error(INVALID_OPTION), with `at` in front, when the result has too many states.
  CharDfa intersect(const CharDfa& other, const std::string& at) const;
  CharDfa unite(const CharDfa& other, const std::string& at) const;
  /// All texts but those of this one.
  CharDfa complement() const;
  CharDfa minus(const CharDfa& other, const std::string& at) const { return intersect(other.complement(), at); }

  bool empty() const;
  bool accepts(std::u32string_view text) const;
  const std::vector<State>& states() const { return states_; }
  void lower(Builder& builder, uint32_t from, uint32_t to, Encoding encoding) const;

 private:
  /// Leaves out what leads to no text.
  void trim();
  static void check(size_t states, size_t edges, const std::string& at);

  std::vector<State> states_;
};

/// Code points of UTF-8, which must be valid.
std::u32string code_points(std::string_view utf8);
std::string utf8_of(std::u32string_view text);

}  // namespace sdar::form
