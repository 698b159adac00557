// Which tokens may come next: masks of a form's states over a vocabulary, and how many tokens a text still needs. What is
// found is kept. Not for several threads at once.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "form/automaton.h"
#include "form/vocabulary.h"

namespace sdar::form {

inline constexpr uint32_t kNoTokens = UINT32_MAX;

class AllowedTokens {
 public:
  AllowedTokens(Automaton& automaton, std::shared_ptr<const Vocabulary> vocabulary);

  /// The ids after which a text of the form can go on, and the end ids where it may end. Not for kDead.
  std::shared_ptr<const Mask> of(State state);

  /// The state after this token; kDead when it is not allowed. An end id leaves the state as it is where the text may end.
  State advance(State state, int32_t id);

  /// Tokens that are enough to complete the text: the fewest that spell one of the texts that need the least bytes, none
  /// counted for the end; their bytes, where finding out would take too long. Whenever it is not 0, some allowed token makes it
  /// less. kNoTokens when the vocabulary lacks bytes.
  uint32_t least_tokens(State state);
  /// The lowest id that makes least_tokens() less; −1 when that is 0 or kNoTokens.
  int32_t nearest(State state);

  /// Finds the masks of up to `most` states ahead, the nearest to the start first, until `stop` says so: then no step waits
  /// for what the form's strings cost the first time.
  void prepare(size_t most, const std::function<bool()>& stop);

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  /// Whether every byte is a token: no text takes more tokens than bytes.
  bool spells_bytes() const { return spells_bytes_; }
  size_t memory() const;

 private:
  /// What a part allows whatever it returns to, and the trie's nodes at which it is done.
  struct Local {
    Mask mask;
    std::vector<uint32_t> done;
    bool direct = false;  ///< done so often that states with this part are walked whole
  };
  /// From here `characters` characters of the alphabet are in order, whichever they are.
  struct Free {
    Alphabet alphabet;
    uint16_t characters = 0;
    bool exact = false;     ///< no more characters of the alphabet are
    bool finishes = false;  ///< can_end somewhere on the way
  };

  const Local& local(State part);
  Free free_run(State state);
  Free free_run(State state, const Alphabet& alphabet);
  bool refuses(State state, const std::vector<uint8_t>& classes, const Alphabet& alphabet);
  bool others(State state, std::vector<State>* after);
  void walk_all(State state, const Free& free, Mask& mask, std::vector<uint32_t>* done);
  void walk(const Vocabulary::Node* nodes, const uint32_t* origin, uint32_t begin, uint32_t end, Mask& mask,
            std::vector<uint32_t>* done);
  void go_on(uint32_t node, State state, Mask& mask);
  template <class Found>
  void walk_nearer(State state, Found found);
  void forget_old();

  Automaton& automaton_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  uint32_t generation_;
  std::unordered_map<State, std::unique_ptr<Local>> locals_;
  std::unordered_map<State, std::shared_ptr<const Mask>> masks_;
  std::unordered_map<State, uint32_t> least_;
  std::vector<State> path_;  // [depth], of a walk
  bool spells_bytes_;
};

}  // namespace sdar::form
