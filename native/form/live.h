// A form in use: its automaton over a vocabulary, what was found out about it, and the tokens of the runs of bytes that it
// leaves no choice about. Shared by the requests of one engine; one thread at a time.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "form/allowed.h"

namespace sdar::form {

/// The state of a text after its end token.
inline constexpr State kEnded = -3;

class LiveForm {
 public:
  LiveForm(std::shared_ptr<const Program> program, std::shared_ptr<const Vocabulary> vocabulary);

  /// Tokens that a whole text takes at least, the end token not counted; kNoTokens when the vocabulary cannot spell one.
  uint32_t least_tokens() const { return least_tokens_; }
  /// Runs of at least two bytes that must come as they are, whole characters, in the states nearest to the start, as long
  /// as `stop` does not say so. For the tokenizer: set_splits() gives their tokens.
  std::vector<std::string> runs(const std::function<bool()>& stop);
  /// Tokens of runs() by the tokenizer; those whose bytes are not the run's are passed over.
  void set_splits(const std::vector<std::string>& runs, const std::vector<std::vector<int32_t>>& splits);
  /// Finds masks ahead, see AllowedTokens::prepare.
  void prepare(size_t most, const std::function<bool()>& stop) { allowed_.prepare(most, stop); }

  State start() const { return automaton_.start(); }
  /// After one more token; kDead when it is not allowed, kEnded after an end token, and from there whatever comes.
  State advance(State state, int32_t id);
  bool is_end(int32_t id) const;
  /// Whether a text in this state can be completed in so many tokens.
  bool fits(State state, int32_t tokens);
  /// The ids that may come next. Not for kEnded.
  std::shared_ptr<const Mask> allowed(State state) { return allowed_.of(state); }
  /// A token that brings the text nearest to its end; `end_id` where it can end.
  int32_t nearest(State state, int32_t end_id) {
    const int32_t id = allowed_.nearest(state);
    return id < 0 ? end_id : id;
  }
  /// Tokens that must come next, as the tokenizer splits the run that they spell where it was asked, else the longest
  /// first. Ends before a choice: also that between a run's last token and a longer one that goes on past the run. An end
  /// token where nothing else can come.
  std::vector<int32_t> forced(State state, int32_t end_id);

  /// States that must outlive trim() are known by where they are kept.
  void hold(State* state) { held_.push_back(state); }
  void drop(State* state) { std::erase(held_, state); }
  /// Forgets what can be found out again when that has grown large. Other states than those held mean nothing after it.
  void trim();
  size_t memory() const { return automaton_.memory() + allowed_.memory(); }
  const Vocabulary& vocabulary() const { return allowed_.vocabulary(); }

 private:
  std::vector<int32_t> longest_first(std::string_view run) const;
  bool goes_past(std::string_view bytes, State after);

  Automaton automaton_;
  AllowedTokens allowed_;
  uint32_t least_tokens_;
  std::map<std::string, std::vector<int32_t>, std::less<>> splits_;
  std::vector<State*> held_;
};

}  // namespace sdar::form
