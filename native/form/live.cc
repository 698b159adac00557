#include "form/live.h"

#include <algorithm>
#include <unordered_set>

namespace sdar::form {
namespace {

constexpr size_t kMostMemory = size_t{24} << 20;  // of one form, before it is trimmed
constexpr size_t kMostRuns = 512, kMostRunBytes = 4096, kMostStates = 4096;

}  // namespace

LiveForm::LiveForm(std::shared_ptr<const Program> program, std::shared_ptr<const Vocabulary> vocabulary)
    : automaton_(std::move(program)),
      allowed_(automaton_, std::move(vocabulary)),
      least_tokens_(allowed_.least_tokens(automaton_.start())) {}

State LiveForm::advance(State state, int32_t id) {
  if (state == kEnded) return kEnded;
  const State next = allowed_.advance(state, id);
  return next != kDead && is_end(id) ? kEnded : next;
}

bool LiveForm::is_end(int32_t id) const {
  const auto& ends = vocabulary().end_ids();
  return std::ranges::find(ends, id) != ends.end();
}

bool LiveForm::fits(State state, int32_t tokens) {
  if (state == kEnded) return true;
  if (state == kDead || tokens < 0) return false;
  const auto most = static_cast<uint32_t>(tokens);
  if (allowed_.spells_bytes() && automaton_.least_bytes(state) <= most) return true;
  return allowed_.least_tokens(state) <= most;
}

std::vector<int32_t> LiveForm::forced(State state, int32_t end_id) {
  if (state < 0) return {};
  if (automaton_.can_end(state)) {
    for (int b = 0; b < 256; b++)
      if (automaton_.advance(state, static_cast<uint8_t>(b)) != kDead) return {};
    return {end_id};
  }
  const std::string run = automaton_.forced(state, kMostRunBytes);
  const auto known = splits_.find(run);
  std::vector<int32_t> tokens = known != splits_.end() ? known->second : longest_first(run);
  // The first token in whose place a longer one could go on past the run is the model's choice.
  const State after = automaton_.advance(state, run);
  for (size_t i = 0, at = 0; i < tokens.size(); at += vocabulary().bytes(tokens[i++]).size())
    if (goes_past(std::string_view(run).substr(at), after)) tokens.resize(i);
  return tokens;
}

/// Whether a token has these bytes and more that the form takes after them.
bool LiveForm::goes_past(std::string_view bytes, State after) {
  uint32_t top = vocabulary().child(static_cast<uint8_t>(bytes[0]));
  for (size_t i = 1; top != 0 && i < bytes.size(); i++) top = vocabulary().child(top, static_cast<uint8_t>(bytes[i]));
  if (top == 0) return false;
  const auto& nodes = vocabulary().nodes();
  std::vector<State> path{after};  // by depth below top
  for (uint32_t i = top + 1; i < nodes[top].end;) {
    const size_t depth = static_cast<size_t>(nodes[i].depth - nodes[top].depth);
    const State next = automaton_.advance(path[depth - 1], nodes[i].byte);
    if (next == kDead) {
      i = nodes[i].end;
      continue;
    }
    if (nodes[i].first < nodes[i].last) return true;
    path.resize(depth);
    path.push_back(next);
    i++;
  }
  return false;
}

/// Up to where no token goes on.
std::vector<int32_t> LiveForm::longest_first(std::string_view run) const {
  const auto& nodes = vocabulary().nodes();
  std::vector<int32_t> tokens;
  while (!run.empty()) {
    int32_t id = -1;
    size_t length = 0;
    uint32_t at = vocabulary().child(static_cast<uint8_t>(run[0]));
    for (size_t depth = 1; at != 0; depth++) {
      if (nodes[at].first < nodes[at].last) id = vocabulary().ids()[nodes[at].first], length = depth;
      if (depth == run.size()) break;
      at = vocabulary().child(at, static_cast<uint8_t>(run[depth]));
    }
    if (id < 0) break;
    tokens.push_back(id);
    run.remove_prefix(length);
  }
  return tokens;
}

std::vector<std::string> LiveForm::runs(const std::function<bool()>& stop) {
  std::vector<State> found{start()};
  std::unordered_set<State> seen(found.begin(), found.end());
  std::unordered_set<std::string> known;
  std::vector<std::string> runs;
  size_t bytes = 0;
  for (size_t i = 0; i < found.size() && runs.size() < kMostRuns && !stop(); i++) {
    State state = found[i];
    const std::string run = automaton_.forced(state, kMostRunBytes);
    if (run.size() > 1 && whole_characters(run) && bytes + run.size() <= 16 * kMostRunBytes &&
        known.insert(run).second) {
      runs.push_back(run);
      bytes += run.size();
    }
    // The states within a run have its ends for runs.
    state = automaton_.advance(state, run);
    const size_t classes = automaton_.program().class_byte.size();
    for (size_t c = 0; c < classes && found.size() < kMostStates; c++) {
      const State next = automaton_.advance_class(state, static_cast<uint8_t>(c));
      if (next != kDead && seen.insert(next).second) found.push_back(next);
    }
  }
  return runs;
}

void LiveForm::set_splits(const std::vector<std::string>& runs, const std::vector<std::vector<int32_t>>& splits) {
  for (size_t i = 0; i < std::min(runs.size(), splits.size()); i++) {
    std::string spelled;
    for (const int32_t id : splits[i]) spelled += vocabulary().bytes(id);
    if (spelled == runs[i]) splits_[runs[i]] = splits[i];
  }
}

void LiveForm::trim() {
  if (memory() < kMostMemory) return;
  std::vector<State> live;
  for (const State* state : held_)
    if (*state >= 0) live.push_back(*state);
  const std::vector<State> renamed = automaton_.compact(live);
  size_t i = 0;
  for (State* state : held_)
    if (*state >= 0) *state = renamed[i++];
}

}  // namespace sdar::form
