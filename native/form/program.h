// A form as byte-level automata. Each rule is a nondeterministic automaton whose edges read a byte of a range, read
// nothing, or call a rule; a text matches when the root rule reads all of it. Rules may call each other recursively, but
// not before a byte is read (left recursion).
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "form/char_set.h"

namespace sdar::form {

inline constexpr uint32_t kUnreachable = UINT32_MAX;

/// What bounds a form's size; whoever exceeds one is refused by name.
inline constexpr size_t kMaxStates = size_t{1} << 19;
inline constexpr size_t kMaxEdges = size_t{1} << 20;
inline constexpr uint32_t kMaxLeast = uint32_t{1} << 22;  ///< bytes of the shortest text

struct ByteEdge {
  uint8_t low, high;
  uint32_t target;
};
struct CallEdge {
  uint32_t rule, target;
};
struct Rule {
  std::string name;
  uint32_t start, accept;  ///< no edge leaves `accept`
  uint32_t rank = 0;       ///< a rule that another may call before it has read a byte has a higher one
  bool nullable = false;   ///< matches the empty text
};

/// How code points become bytes.
enum class Encoding {
  kUtf8,
  kJson,  ///< inside a JSON string, escaped as JSON.stringify does
};

struct Program {
  /// Edges of state q are [first[q], first[q + 1]) of each kind. Those that lead nowhere are left out.
  std::vector<uint32_t> first_byte, first_call, first_empty;
  std::vector<ByteEdge> byte_edges;
  std::vector<CallEdge> call_edges;
  std::vector<uint32_t> empty_edges;
  std::vector<Rule> rules;
  uint32_t root = 0;
  /// Least number of bytes from a state to its rule's accept.
  std::vector<uint32_t> least;
  /// Bytes that no edge tells apart have one class.
  std::array<uint8_t, 256> class_of{};
  std::vector<uint8_t> class_byte;  ///< a byte of each class
  std::vector<bool> tail;           ///< of a state: nothing is left in its rule but to return

  size_t states() const { return least.size(); }
  /// Bytes that it takes.
  size_t memory() const {
    return states() * (4 * sizeof(uint32_t) + 1) + byte_edges.size() * sizeof(ByteEdge) +
           call_edges.size() * sizeof(CallEdge) + empty_edges.size() * sizeof(uint32_t) + rules.size() * sizeof(Rule);
  }
};

/// Puts a program together. `at` names the part of the form that is being compiled, for the errors of limits.
class Builder {
 public:
  explicit Builder(std::string at) : at_(std::move(at)) {}

  void at(std::string path) { at_ = std::move(path); }
  const std::string& at() const { return at_; }

  uint32_t state();
  size_t states() const { return states_; }
  uint32_t rule(std::string name);
  const Rule& operator[](uint32_t rule) const { return rules_[rule]; }

  void bytes(uint32_t from, uint8_t low, uint8_t high, uint32_t to);
  void empty(uint32_t from, uint32_t to);
  void call(uint32_t from, uint32_t rule, uint32_t to);
  void text(uint32_t from, std::string_view bytes, uint32_t to);
  /// One code point of the set; surrogates are left out, since no UTF-8 has them.
  void chars(uint32_t from, const CharSet& set, uint32_t to, Encoding encoding);
  /// One of these texts, as a trie. Sorts them.
  void texts(uint32_t from, std::vector<std::string>& texts, uint32_t to);

  /// Throws Error(INVALID_OPTION) when no text matches, or a rule is left-recursive.
  Program finish(uint32_t root);

 private:
  struct Edge {
    uint32_t from, to;
    uint32_t label;  ///< low | high << 8, or the rule
  };
  void add(std::vector<Edge>& edges, Edge edge);
  void utf8(uint32_t from, const CharSet& set, uint32_t to);
  void escapes(uint32_t from, const CharSet& set, uint32_t to);

  /// Where the rest of a character begins: by the state after it, and what is in the rest.
  struct End {
    uint32_t to;
    uint64_t rest;
    bool operator==(const End&) const = default;
  };
  struct HashEnd {
    size_t operator()(const End& e) const {
      return (e.rest ^ e.to * 0x9e3779b97f4a7c15ull) * 0xc2b2ae3d27d4eb4full >> 7;
    }
  };

  std::string at_;
  size_t states_ = 0;
  std::vector<Edge> bytes_, calls_, empties_;
  std::vector<Rule> rules_;
  std::unordered_map<End, uint32_t, HashEnd> ends_;
};

}  // namespace sdar::form
