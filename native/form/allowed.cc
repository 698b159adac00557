#include "form/allowed.h"

#include <algorithm>
#include <unordered_set>

namespace sdar::form {
namespace {

constexpr size_t kMostMasks = 256;        // of each kind; 5 MB for 151,936 ids
constexpr size_t kFewCharacters = 20;     // a smaller alphabet keeps a walk short by itself
constexpr size_t kFreeStates = 64;        // looked at to find a free run
constexpr uint16_t kFreeCharacters = 32;  // few tokens are longer
constexpr size_t kMostDone = 1024;
constexpr size_t kMostWalked = size_t{1} << 14;  // states, for the least tokens of one; some 30 ms

bool spells_all_bytes(const Vocabulary& vocabulary) {
  for (int b = 0; b < 256; b++) {
    const auto& node = vocabulary.nodes()[vocabulary.child(static_cast<uint8_t>(b))];
    if (vocabulary.child(static_cast<uint8_t>(b)) == 0 || node.first == node.last) return false;
  }
  return true;
}

void set(Mask& mask, int32_t id) { mask[static_cast<size_t>(id) >> 6] |= uint64_t{1} << (id & 63); }

void merge(Mask& mask, const Mask& other) {
  for (size_t i = 0; i < mask.size(); i++) mask[i] |= other[i];
}

}  // namespace

AllowedTokens::AllowedTokens(Automaton& automaton, std::shared_ptr<const Vocabulary> vocabulary)
    : automaton_(automaton),
      vocabulary_(std::move(vocabulary)),
      generation_(automaton.generation()),
      path_(vocabulary_->longest() + size_t{1}),
      spells_bytes_(spells_all_bytes(*vocabulary_)) {}

void AllowedTokens::forget_old() {
  if (generation_ != automaton_.generation()) {
    locals_.clear(), masks_.clear(), least_.clear();
    generation_ = automaton_.generation();
  }
  if (locals_.size() > kMostMasks) locals_.clear();
  if (masks_.size() > kMostMasks) masks_.clear();
}

std::shared_ptr<const Mask> AllowedTokens::of(State state) {
  forget_old();
  if (const auto at = masks_.find(state); at != masks_.end()) return at->second;
  auto mask = std::make_shared<Mask>((static_cast<size_t>(vocabulary_->size()) + 63) / 64);
  const auto& parts = automaton_.parts(state);
  bool direct = false;
  for (const auto& part : parts) direct |= local(part.local).direct;
  if (direct) {
    walk_all(state, free_run(state), *mask, nullptr);
  } else {
    for (const auto& part : parts) {
      const Local& l = local(part.local);
      merge(*mask, l.mask);
      const State then = l.done.empty() ? kDead : automaton_.returned(part.node);
      if (then != kDead)
        for (const uint32_t node : l.done) go_on(node, then, *mask);
    }
  }
  if (automaton_.can_end(state))
    for (const int32_t id : vocabulary_->end_ids()) set(*mask, id);
  masks_.emplace(state, mask);
  return mask;
}

State AllowedTokens::advance(State state, int32_t id) {
  const std::string_view bytes = vocabulary_->bytes(id);
  if (!bytes.empty()) return automaton_.advance(state, bytes);
  const auto& ends = vocabulary_->end_ids();
  const bool ended = state != kDead && automaton_.can_end(state) && std::ranges::find(ends, id) != ends.end();
  return ended ? state : kDead;
}

const AllowedTokens::Local& AllowedTokens::local(State part) {
  auto& slot = locals_[part];
  if (slot) return *slot;
  auto made = std::make_unique<Local>();
  const Free free = free_run(part);
  if (free.finishes) {
    made->direct = true;
  } else {
    made->mask.resize((static_cast<size_t>(vocabulary_->size()) + 63) / 64);
    walk_all(part, free, made->mask, &made->done);
    made->direct = made->done.size() > kMostDone * 8;
  }
  slot = std::move(made);
  return *slot;
}

/// All tokens that the state allows; those of the free run need no walk.
void AllowedTokens::walk_all(State state, const Free& free, Mask& mask, std::vector<uint32_t>* done) {
  path_[0] = state;
  if (free.characters > 0) {
    mask = *vocabulary_->spelled(free.alphabet, free.characters);
    const auto rest = vocabulary_->rest(free.alphabet, free.exact ? Vocabulary::kAnyNumber : free.characters);
    if (!rest->nodes.empty())
      walk(rest->nodes.data(), rest->origin.data(), 1, static_cast<uint32_t>(rest->nodes.size()), mask, done);
    return;
  }
  const auto& nodes = vocabulary_->nodes();
  for (int b = 0; b < 256; b++) {
    const uint32_t child = vocabulary_->child(static_cast<uint8_t>(b));
    if (child && automaton_.advance(state, static_cast<uint8_t>(b)) != kDead)
      walk(nodes.data(), nullptr, child, nodes[child].end, mask, done);
  }
}

/// Tokens of these nodes, the subtrees of siblings. Their parent's state is in path_.
void AllowedTokens::walk(const Vocabulary::Node* nodes, const uint32_t* origin, uint32_t begin, uint32_t end,
                         Mask& mask, std::vector<uint32_t>* done) {
  const int32_t* ids = vocabulary_->ids().data();
  const uint8_t* class_of = automaton_.program().class_of.data();
  State* path = path_.data();
  for (uint32_t i = begin; i < end;) {
    const auto& node = nodes[i];
    const State next = automaton_.advance_class(path[node.depth - 1u], class_of[node.byte]);
    if (next == kDead) {
      i = node.end;
      continue;
    }
    if (done && automaton_.can_end(next)) done->push_back(origin ? origin[i] : i);
    path[node.depth] = next;
    for (uint32_t t = node.first; t < node.last; t++) set(mask, ids[t]);
    i++;
  }
}

/// A part was done at this node and returned to this state.
void AllowedTokens::go_on(uint32_t node, State state, Mask& mask) {
  const auto& nodes = vocabulary_->nodes();
  if (nodes[node].end == node + 1) return;
  for (const auto& part : automaton_.parts(state)) {
    std::vector<uint32_t> done;
    path_[nodes[node].depth] = part.local;
    walk(nodes.data(), nullptr, node + 1, nodes[node].end, mask, &done);
    if (done.empty()) continue;
    const State then = automaton_.returned(part.node);
    if (then == kDead) continue;
    for (const uint32_t at : done) go_on(at, then, mask);
  }
}

/// Whether all characters beyond ASCII may come next; `after` gets the states that they lead to.
bool AllowedTokens::others(State state, std::vector<State>* after) {
  struct Lead {
    uint8_t low, high, second_low, second_high;
    int more;
  };
  static constexpr Lead kLeads[] = {{0xc2, 0xdf, 0x80, 0xbf, 0}, {0xe0, 0xe0, 0xa0, 0xbf, 1},
                                    {0xe1, 0xec, 0x80, 0xbf, 1}, {0xed, 0xed, 0x80, 0x9f, 1},
                                    {0xee, 0xef, 0x80, 0xbf, 1}, {0xf0, 0xf0, 0x90, 0xbf, 2},
                                    {0xf1, 0xf3, 0x80, 0xbf, 2}, {0xf4, 0xf4, 0x80, 0x8f, 2}};
  const auto& class_of = automaton_.program().class_of;
  std::vector<State> now, next;
  const auto step = [&](int low, int high) {
    next.clear();
    for (const State s : now)
      for (int b = low, last = -1; b <= high; b++) {
        const int c = class_of[static_cast<size_t>(b)];
        if (c == last) continue;
        last = c;
        const State to = automaton_.advance_class(s, static_cast<uint8_t>(c));
        if (to == kDead) return false;
        if (std::ranges::find(next, to) == next.end()) next.push_back(to);
        if (next.size() > kFreeStates) return false;
      }
    now.swap(next);
    return true;
  };
  for (const Lead& lead : kLeads) {
    now = {state};
    if (!step(lead.low, lead.high) || !step(lead.second_low, lead.second_high)) return false;
    for (int i = 0; i < lead.more; i++)
      if (!step(0x80, 0xbf)) return false;
    if (after)
      for (const State s : now)
        if (std::ranges::find(*after, s) == after->end()) after->push_back(s);
  }
  return true;
}

AllowedTokens::Free AllowedTokens::free_run(State state) {
  if (automaton_.width(state) < kFewCharacters) return {};
  // Characters by the state that they lead to; many may lead to one.
  Alphabet all;
  std::vector<std::pair<State, Alphabet>> groups;
  const auto& class_of = automaton_.program().class_of;
  for (int c = 0; c < 127; c++) {
    const State next = automaton_.advance_class(state, class_of[static_cast<size_t>(c)]);
    if (next == kDead) continue;
    all.add(c);
    auto group = std::ranges::find(groups, next, &std::pair<State, Alphabet>::first);
    if (group == groups.end()) group = groups.insert(groups.end(), {next, {}});
    group->second.add(c);
  }
  if (all.size() < kFewCharacters) return {};
  Alphabet most = std::ranges::max(groups, {}, [](const auto& g) { return g.second.size(); }).second;
  if (others(state, nullptr)) all.add(Alphabet::kOther), most.add(Alphabet::kOther);
  Free best = free_run(state, all);
  if (best.characters == kFreeCharacters || best.characters == Vocabulary::kAnyNumber) return best;
  for (int with_others = 1; with_others >= 0; with_others--) {
    if (most.size() < kFewCharacters) break;
    if (!with_others) {
      if (!most.contains(Alphabet::kOther)) break;
      most.high &= ~(uint64_t{1} << 63);
    }
    const Free free = free_run(state, most);
    if (free.characters > best.characters || (free.finishes && !best.finishes)) best = free;
    if (best.characters >= kFreeCharacters) break;
  }
  return best.characters >= 2 ? best : Free{};
}

/// Whether no character of the alphabet may come next.
bool AllowedTokens::refuses(State state, const std::vector<uint8_t>& classes, const Alphabet& alphabet) {
  if (std::ranges::any_of(classes, [&](uint8_t c) { return automaton_.advance_class(state, c) != kDead; }))
    return false;
  for (int lead = 0xc2; lead <= 0xf4 && alphabet.contains(Alphabet::kOther); lead++)
    if (automaton_.advance(state, static_cast<uint8_t>(lead)) != kDead) return false;
  return true;
}

AllowedTokens::Free AllowedTokens::free_run(State state, const Alphabet& alphabet) {
  const auto& class_of = automaton_.program().class_of;
  std::vector<State> seen{state}, now{state};
  Free free{.alphabet = alphabet};
  std::vector<uint8_t> classes;
  for (int c = 0; c < 127; c++)
    if (alphabet.contains(c)) classes.push_back(class_of[static_cast<size_t>(c)]);
  std::sort(classes.begin(), classes.end());
  classes.erase(std::unique(classes.begin(), classes.end()), classes.end());
  while (free.characters < kFreeCharacters) {
    std::vector<State> next;
    const auto reached = [&](State s) {
      free.finishes |= automaton_.can_end(s);
      if (std::ranges::find(seen, s) != seen.end()) return;
      seen.push_back(s), next.push_back(s);
    };
    for (const State s : now) {
      for (const uint8_t c : classes) {
        const State to = automaton_.advance_class(s, c);
        if (to == kDead) {
          free.exact = std::ranges::all_of(now, [&](State last) { return refuses(last, classes, alphabet); });
          return free;
        }
        reached(to);
      }
      if (alphabet.contains(Alphabet::kOther)) {
        std::vector<State> after;
        if (!others(s, &after)) return free;
        for (const State to : after) reached(to);
      }
    }
    if (next.empty()) {
      free.characters = Vocabulary::kAnyNumber;
      return free;
    }
    free.characters++;
    if (seen.size() > kFreeStates) return free;
    now.swap(next);
  }
  return free;
}

uint32_t AllowedTokens::least_tokens(State state) {
  if (state < 0) return kNoTokens;
  forget_old();
  std::vector<State> open{state};
  size_t walked = 0;
  while (!open.empty()) {
    const State s = open.back();
    if (least_.contains(s)) {
      open.pop_back();
      continue;
    }
    if (automaton_.can_end(s)) {
      least_[s] = 0;
      continue;
    }
    // What these lead to comes first.
    const size_t waiting = open.size();
    uint32_t least = kNoTokens;
    const auto look = [&](State next, uint32_t tokens) {
      const auto known = least_.find(next);
      if (known == least_.end())
        open.push_back(next);
      else if (known->second != kNoTokens)
        least = std::min(least, known->second + tokens);
    };
    const std::vector<State> nearest = automaton_.nearest(s);
    if (nearest.empty() || nearest[0] != s) {
      for (const State alone : nearest) look(alone, 0);
    } else if (walked++ < kMostWalked) {
      walk_nearer(s, [&](State next, uint32_t) { look(next, 1); });
    } else {
      // Stacks of calls can still be too many to look at: then a byte is a token.
      for (const State other : open)
        least_.try_emplace(other, spells_bytes_ ? automaton_.least_bytes(other) : kNoTokens);
      break;
    }
    if (open.size() == waiting) least_[s] = least;
  }
  return least_[state];
}

/// Calls found(state after it, node) for tokens all of whose bytes bring the shortest text nearer.
template <class Found>
void AllowedTokens::walk_nearer(State state, Found found) {
  const auto& nodes = vocabulary_->nodes();
  const auto& class_of = automaton_.program().class_of;
  path_[0] = state;
  for (uint32_t i = 1; i < nodes[0].end;) {
    const auto& node = nodes[i];
    const State before = path_[node.depth - 1u];
    const State next = automaton_.advance_class(before, class_of[node.byte]);
    if (next == kDead || automaton_.least_bytes(next) + 1 != automaton_.least_bytes(before)) {
      i = node.end;
      continue;
    }
    path_[node.depth] = next;
    if (node.first < node.last) found(next, i);
    i++;
  }
}

int32_t AllowedTokens::nearest(State state) {
  const uint32_t least = least_tokens(state);
  if (least == 0 || least == kNoTokens) return -1;
  std::vector<std::pair<State, uint32_t>> nearer;  // node
  walk_nearer(state, [&](State next, uint32_t node) { nearer.emplace_back(next, node); });
  int32_t nearest = -1;
  for (const auto& [next, node] : nearer) {
    const int32_t id = vocabulary_->ids()[vocabulary_->nodes()[node].first];  // its lowest
    if ((nearest < 0 || id < nearest) && least_tokens(next) < least) nearest = id;
  }
  return nearest;
}

void AllowedTokens::prepare(size_t most, const std::function<bool()>& stop) {
  std::vector<State> found{automaton_.start()};
  std::unordered_set<State> known(found.begin(), found.end());
  for (size_t i = 0; i < found.size() && i < most && !stop(); i++) {
    of(found[i]);
    const size_t classes = automaton_.program().class_byte.size();
    for (size_t c = 0; c < classes && found.size() < most; c++) {
      const State next = automaton_.advance_class(found[i], static_cast<uint8_t>(c));
      if (next != kDead && known.insert(next).second) found.push_back(next);
    }
  }
}

size_t AllowedTokens::memory() const {
  const size_t words = (static_cast<size_t>(vocabulary_->size()) + 63) / 64;
  size_t bytes = (masks_.size() + locals_.size()) * (words * sizeof(uint64_t) + 64) + least_.size() * 32;
  for (const auto& [state, l] : locals_) bytes += l->done.size() * sizeof(uint32_t);
  return bytes;
}

}  // namespace sdar::form
