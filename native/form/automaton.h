// Which bytes may come next in a text of a form. A state stands for all that the bytes so far may mean: a set of
// configurations, each a state of a rule and a stack of what to return to. Stacks share their nodes, and a node holds all
// places that one call may return to, so that an ambiguous grammar does not multiply them. States are made when they are
// first reached and numbered, so that they can be compared and be keys of caches; transitions are kept.
//
// Not for several threads at once.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "form/program.h"

namespace sdar::form {

using State = int32_t;
inline constexpr State kDead = -1;  ///< no text of the form goes on like this

class Automaton {
 public:
  explicit Automaton(std::shared_ptr<const Program> program);

  State start() const { return start_; }
  /// The state after one more byte; kDead for kDead.
  State advance(State state, uint8_t byte) {
    return state < 0 ? kDead : advance_class(state, program_->class_of[byte]);
  }
  State advance(State state, std::string_view bytes);
  /// Whether the text so far is one of the form's.
  bool can_end(State state) const { return records_[index(state)].complete; }
  /// Least number of bytes until it is; 0 when it is.
  uint32_t least_bytes(State state) const { return records_[index(state)].least; }
  /// The bytes that must come next, up to where there is a choice, the text may end, or `most` are found.
  std::string forced(State state, size_t most);
  /// The state after forced(state).
  State after(State state, size_t forced);

  /// Bytes that states, stacks and transitions take.
  size_t memory() const;
  /// Drops all states but these (and the start), which get new numbers, in order. Invalidates every other State.
  std::vector<State> compact(std::span<const State> live);

  const Program& program() const { return *program_; }

  // For masks: a state as parts that do not know what they return to.
  using Node = uint32_t;
  static constexpr Node kBottom = 0;
  struct Part {
    State local;  ///< the same configurations, returning to nothing: can_end when the part is done
    Node node;    ///< where they return to
  };
  const std::vector<Part>& parts(State state);
  /// The state after a part with this node is done, with nothing read since; kDead for kBottom.
  State returned(Node node);
  State advance_class(State state, uint8_t byte_class) {
    State& next = next_[index(state) * classes_ + byte_class];
    return next == kUnknown ? step(state, byte_class) : next;
  }
  /// Of each configuration from which a text may end in least_bytes(state), the state that has it alone. There are few of
  /// these, however many sets of configurations an ambiguous form has. Not where the text can end.
  std::vector<State> nearest(State state);
  /// At least the number of bytes that may come next.
  size_t width(State state) const;
  /// Grows with compact(); numbers of states of another generation mean nothing.
  uint32_t generation() const { return generation_; }
  size_t states() const { return records_.size(); }

 private:
  static constexpr State kUnknown = -2;
  struct Config {
    uint32_t state;
    Node node;
    bool operator==(const Config&) const = default;
    auto operator<=>(const Config&) const = default;
  };
  struct Record {
    uint32_t first, count;  // of configs_
    uint32_t least;
    bool complete;
  };
  /// Where a call returns to: configurations, and whether to the end of all.
  struct NodeRecord {
    std::vector<Config> entries;
    bool end;
    uint32_t least;
    State returned;
  };
  /// A set of configurations that is emptied at once.
  class Marks {
   public:
    bool add(Config c);
    void clear() { epoch_++, count_ = 0; }

   private:
    struct Slot {
      Config config;
      uint32_t epoch;
    };
    std::vector<Slot> slots_ = std::vector<Slot>(256);
    uint32_t epoch_ = 1;
    size_t count_ = 0;
    static size_t hash(Config c) { return (c.state * 0x9e3779b97f4a7c15ull ^ c.node * 0xc2b2ae3d27d4eb4full) >> 20; }
  };
  struct Callers {
    std::vector<Config> entries;
    bool end = false;
    uint32_t rule;
  };

  static size_t index(State s) { return static_cast<size_t>(s); }
  State step(State state, uint8_t byte_class);
  void reach(Config config);
  void pop(Node node);
  void enter_calls();
  State intern();
  State intern(std::span<const Config> configs, bool complete);
  Node intern_node(std::vector<Config>& entries, bool end);
  std::span<const Config> configs(State s) const {
    return {configs_.data() + records_[index(s)].first, records_[index(s)].count};
  }

  std::shared_ptr<const Program> program_;
  size_t classes_;
  std::vector<Record> records_;
  std::vector<Config> configs_;
  std::vector<State> next_;              // [states, classes]
  std::deque<std::vector<Part>> parts_;  // references to them stay
  std::vector<NodeRecord> nodes_;
  size_t node_entries_ = 0;
  std::unordered_multimap<uint64_t, State> by_hash_;
  std::unordered_multimap<uint64_t, Node> nodes_by_hash_;
  State start_ = kDead;
  uint32_t generation_ = 0;

  // Of the state that is being made.
  Marks marks_;
  std::vector<Config> found_;
  bool complete_ = false;
  std::vector<Config> open_;
  std::vector<Callers> callers_;                     // reused; the first called_ are in use
  std::vector<std::pair<uint32_t, uint32_t>> heap_;  // rank and index of callers_, least rank first
  std::vector<uint32_t> caller_of_;                  // [rules], index into callers_ or UINT32_MAX
  size_t called_ = 0;
};

}  // namespace sdar::form
