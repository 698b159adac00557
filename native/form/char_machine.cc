#include "form/char_machine.h"

#include <algorithm>
#include <functional>
#include <map>
#include <unordered_map>

#include "util/error.h"

namespace sdar::form {

void CharNfa::lower(Builder& builder, uint32_t from, uint32_t to, Encoding encoding) const {
  std::vector<uint32_t> named(states.size());
  for (uint32_t& q : named) q = builder.state();
  builder.empty(from, named[0]);
  for (size_t q = 0; q < states.size(); q++) {
    for (const Edge& e : states[q].edges) builder.chars(named[q], sets[e.set], named[e.to], encoding);
    for (const uint32_t next : states[q].empties) builder.empty(named[q], named[next]);
    if (states[q].accepts) builder.empty(named[q], to);
  }
}

thread_local WorkLimit* WorkLimit::current_ = nullptr;

void WorkLimit::charge(size_t work, const std::string& at) {
  if (!current_ || (current_->done_ += work) <= kMost) return;
  throw Error(code::kInvalidOption,
              at + ": the form's patterns, lengths and bounds take too much work together; simplify them");
}

void CharDfa::check(size_t states, size_t edges, const std::string& at) {
  if (states <= kMostStates && edges <= kMostEdges) return;
  throw Error(code::kInvalidOption, at + ": the texts it allows need more than " + std::to_string(kMostStates) +
                                        " states; lower its repetitions and lengths");
}

CharDfa CharDfa::repeat(const CharSet& set, int64_t least, int64_t most, const std::string& at) {
  CharDfa out;
  if (most >= 0 && most < least) return out;
  const int64_t count = std::max(least, most);
  check(static_cast<size_t>(std::min<int64_t>(count, kMostStates + 1)), 0, at);
  out.states_.resize(static_cast<size_t>(count) + 1);
  for (int64_t i = 0; i <= count; i++) {
    State& s = out.states_[static_cast<size_t>(i)];
    s.accepts = i >= least;
    if (i == count && most >= 0) break;
    const auto to = static_cast<uint32_t>(std::min(i + 1, count));
    for (const auto& r : set.ranges()) s.edges.push_back({r.low, r.high, to});
  }
  return out;
}

CharDfa CharDfa::texts(const std::vector<std::u32string>& texts, const std::string& at) {
  CharDfa out;
  std::vector<std::map<char32_t, uint32_t>> next(1);
  for (const std::u32string& text : texts) {
    uint32_t q = 0;
    for (const char32_t c : text) {
      const auto [edge, added] = next[q].try_emplace(c, static_cast<uint32_t>(next.size()));
      q = edge->second;
      if (added) next.emplace_back(), out.states_.emplace_back();
      check(next.size(), 0, at);
    }
    out.states_[q].accepts = true;
  }
  for (size_t q = 0; q < next.size(); q++)
    for (const auto& [c, to] : next[q]) out.states_[q].edges.push_back({c, c, to});
  return out;
}

namespace {

/// Code points that no set tells apart are one class.
struct CharClasses {
  std::vector<std::pair<CharSet::Range, uint32_t>>
      intervals;  ///< ascending, with their class; what no set has is left out
  std::vector<std::vector<uint32_t>> of_set;
  size_t count = 0;

  explicit CharClasses(const std::vector<CharSet>& sets) : of_set(sets.size()) {
    struct Bound {
      char32_t at;
      uint32_t set;
      bool begins;
    };
    std::vector<Bound> bounds;
    for (uint32_t s = 0; s < sets.size(); s++)
      for (const auto& r : sets[s].ranges())
        bounds.push_back({r.low, s, true}), bounds.push_back({r.high + 1, s, false});
    std::ranges::sort(bounds, {}, &Bound::at);
    std::map<std::vector<uint32_t>, uint32_t> known;
    std::vector<uint32_t> now;  // the sets that hold the interval, ascending
    for (size_t i = 0; i < bounds.size();) {
      const char32_t low = bounds[i].at;
      for (; i < bounds.size() && bounds[i].at == low; i++) {
        const auto place = std::ranges::lower_bound(now, bounds[i].set);
        if (bounds[i].begins)
          now.insert(place, bounds[i].set);
        else
          now.erase(place);
      }
      if (now.empty()) continue;
      const auto [found, added] = known.try_emplace(now, static_cast<uint32_t>(count));
      if (added) {
        for (const uint32_t s : now) of_set[s].push_back(found->second);
        count++;
      }
      intervals.push_back({{low, bounds[i].at - 1}, found->second});
    }
  }
};

}  // namespace

std::optional<CharDfa> CharDfa::of(const CharNfa& nfa, size_t most, const std::string& at) {
  // What a set of states costs to look at is bounded too: some sets are as large as the pattern.
  size_t work = 2'000'000;
  std::vector<uint32_t> mark(nfa.states.size());
  uint32_t epoch = 0;
  CharDfa out;
  out.states_.clear();
  std::map<std::vector<uint32_t>, uint32_t> known;
  std::vector<std::vector<uint32_t>> sets;
  const auto number = [&](const std::vector<uint32_t>& from) {
    epoch++;
    std::vector<uint32_t> open(from), set;
    bool accepts = false;
    while (!open.empty()) {
      const uint32_t q = open.back();
      open.pop_back();
      if (mark[q] == epoch) continue;
      mark[q] = epoch;
      if (!nfa.states[q].edges.empty()) set.push_back(q);
      accepts |= nfa.states[q].accepts;
      open.insert(open.end(), nfa.states[q].empties.begin(), nfa.states[q].empties.end());
      WorkLimit::charge(1 + nfa.states[q].empties.size(), at);
      work -= std::min(work, 1 + nfa.states[q].empties.size());
    }
    std::sort(set.begin(), set.end());
    std::vector<uint32_t> key = set;
    key.push_back(accepts ? UINT32_MAX : UINT32_MAX - 1);
    const auto [at, added] = known.try_emplace(std::move(key), static_cast<uint32_t>(sets.size()));
    if (added) {
      sets.push_back(std::move(set));
      out.states_.push_back({{}, accepts});
    }
    return at->second;
  };
  number({0});
  const CharClasses classes(nfa.sets);
  size_t edges = 0;
  std::vector<std::vector<uint32_t>> targets(classes.count);
  std::vector<uint32_t> to(classes.count);
  for (size_t d = 0; d < sets.size(); d++) {
    for (auto& t : targets) t.clear();
    size_t looked_at = classes.intervals.size();
    for (const uint32_t q : sets[d])
      for (const auto& e : nfa.states[q].edges) {
        for (const uint32_t c : classes.of_set[e.set]) targets[c].push_back(e.to);
        looked_at += classes.of_set[e.set].size();
      }
    WorkLimit::charge(looked_at, at);
    work -= std::min(work, looked_at);
    for (size_t c = 0; c < classes.count; c++) to[c] = targets[c].empty() ? kUnreachable : number(targets[c]);
    if (sets.size() > most || work == 0) return std::nullopt;
    auto& out_edges = out.states_[d].edges;
    for (const auto& [range, c] : classes.intervals) {
      if (to[c] == kUnreachable) continue;
      if (!out_edges.empty() && out_edges.back().to == to[c] && out_edges.back().high + 1 == range.low)
        out_edges.back().high = range.high;
      else
        out_edges.push_back({range.low, range.high, to[c]}), edges++;
    }
    if (edges > kMostEdges) return std::nullopt;
  }
  out.trim();
  return out;
}

namespace {

/// Both machines in step. A state of none is kUnreachable; `wanted` tells which pairs can still accept.
template <class Accepts, class Wanted>
std::vector<CharDfa::State> product(const std::vector<CharDfa::State>& a, const std::vector<CharDfa::State>& b,
                                    Accepts accepts, Wanted wanted, const std::function<void(size_t, size_t)>& check) {
  std::vector<CharDfa::State> out;
  std::unordered_map<uint64_t, uint32_t> known;
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  const auto number = [&](uint32_t x, uint32_t y) {
    const auto [at, added] = known.try_emplace(uint64_t{x} << 32 | y, static_cast<uint32_t>(pairs.size()));
    if (added) {
      pairs.emplace_back(x, y);
      out.push_back({{}, accepts(x != kUnreachable && a[x].accepts, y != kUnreachable && b[y].accepts)});
    }
    return at->second;
  };
  number(0, 0);
  size_t edges = 0;
  static const std::vector<CharDfa::Edge> kNone;
  for (size_t p = 0; p < pairs.size(); p++) {
    const auto [x, y] = pairs[p];
    const auto& left = x == kUnreachable ? kNone : a[x].edges;
    const auto& right = y == kUnreachable ? kNone : b[y].edges;
    for (size_t i = 0, j = 0, at = 0; i < left.size() || j < right.size();) {
      // The next range in which neither changes.
      const bool in_left = i < left.size() && left[i].low <= at, in_right = j < right.size() && right[j].low <= at;
      char32_t high = kLastCodePoint;
      if (i < left.size()) high = std::min<char32_t>(high, in_left ? left[i].high : left[i].low - 1);
      if (j < right.size()) high = std::min<char32_t>(high, in_right ? right[j].high : right[j].low - 1);
      const uint32_t to_x = in_left ? left[i].to : kUnreachable, to_y = in_right ? right[j].to : kUnreachable;
      if (wanted(to_x, to_y)) {
        const uint32_t to = number(to_x, to_y);
        out[p].edges.push_back({static_cast<char32_t>(at), high, to});
        check(out.size(), ++edges);  // charges the work, too
      }
      if (in_left && left[i].high == high) i++;
      if (in_right && right[j].high == high) j++;
      at = high + size_t{1};
    }
  }
  return out;
}

}  // namespace

CharDfa CharDfa::intersect(const CharDfa& other, const std::string& at) const {
  CharDfa out;
  out.states_ = product(
      states_, other.states_, [](bool a, bool b) { return a && b; },
      [](uint32_t a, uint32_t b) { return a != kUnreachable && b != kUnreachable; },
      [&](size_t states, size_t edges) { check(states, edges, at), WorkLimit::charge(1, at); });
  out.trim();
  return out;
}

CharDfa CharDfa::unite(const CharDfa& other, const std::string& at) const {
  CharDfa out;
  out.states_ = product(
      states_, other.states_, [](bool a, bool b) { return a || b; },
      [](uint32_t a, uint32_t b) { return a != kUnreachable || b != kUnreachable; },
      [&](size_t states, size_t edges) { check(states, edges, at), WorkLimit::charge(1, at); });
  out.trim();
  return out;
}

CharDfa CharDfa::complement() const {
  CharDfa out = *this;
  const auto rest = static_cast<uint32_t>(out.states_.size());  // where everything goes that led nowhere
  out.states_.emplace_back();
  for (State& s : out.states_) {
    s.accepts = !s.accepts;
    std::vector<Edge> edges;
    char32_t next = 0;
    for (const Edge& e : s.edges) {
      if (e.low > next) edges.push_back({next, e.low - 1, rest});
      edges.push_back(e);
      next = e.high + 1;
    }
    if (next <= kLastCodePoint) edges.push_back({next, kLastCodePoint, rest});
    s.edges = std::move(edges);
  }
  out.trim();
  return out;
}

void CharDfa::trim() {
  std::vector<std::vector<uint32_t>> before(states_.size());
  std::vector<uint32_t> open;
  std::vector<bool> lives(states_.size());
  for (uint32_t q = 0; q < states_.size(); q++) {
    for (const Edge& e : states_[q].edges)
      if (before[e.to].empty() || before[e.to].back() != q) before[e.to].push_back(q);
    if (states_[q].accepts) lives[q] = true, open.push_back(q);
  }
  while (!open.empty()) {
    const uint32_t q = open.back();
    open.pop_back();
    for (const uint32_t p : before[q])
      if (!lives[p]) lives[p] = true, open.push_back(p);
  }
  std::vector<uint32_t> named(states_.size());
  std::vector<State> kept;
  for (uint32_t q = 0; q < states_.size(); q++)
    if (lives[q] || q == 0) {
      named[q] = static_cast<uint32_t>(kept.size());
      kept.push_back(std::move(states_[q]));
    }
  for (State& s : kept) {
    std::erase_if(s.edges, [&](const Edge& e) { return !lives[e.to]; });
    for (Edge& e : s.edges) e.to = named[e.to];
  }
  states_ = std::move(kept);
}

bool CharDfa::empty() const {
  return std::ranges::none_of(states_, [](const State& s) { return s.accepts; });
}

bool CharDfa::accepts(std::u32string_view text) const {
  uint32_t q = 0;
  for (const char32_t c : text) {
    const auto& edges = states_[q].edges;
    const auto e = std::ranges::lower_bound(edges, c, {}, &Edge::high);
    if (e == edges.end() || e->low > c) return false;
    q = e->to;
  }
  return states_[q].accepts;
}

void CharDfa::lower(Builder& builder, uint32_t from, uint32_t to, Encoding encoding) const {
  std::vector<uint32_t> named(states_.size());
  for (uint32_t& q : named) q = builder.state();
  builder.empty(from, named[0]);
  for (size_t q = 0; q < states_.size(); q++) {
    std::map<uint32_t, CharSet> by_target;
    for (const Edge& e : states_[q].edges) by_target[e.to].add(e.low, e.high);
    for (const auto& [next, set] : by_target) builder.chars(named[q], set, named[next], encoding);
    if (states_[q].accepts) builder.empty(named[q], to);
  }
}

std::u32string code_points(std::string_view utf8) {
  std::u32string out;
  for (size_t i = 0; i < utf8.size();) {
    const auto lead = static_cast<uint8_t>(utf8[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    char32_t c = length == 1 ? lead : lead & (0xff >> (length + 1));
    for (size_t k = 1; k < length && i + k < utf8.size(); k++) c = c << 6 | (static_cast<uint8_t>(utf8[i + k]) & 0x3f);
    out.push_back(c);
    i += length;
  }
  return out;
}

std::string utf8_of(std::u32string_view text) {
  std::string out;
  for (const char32_t c : text) {
    if (c < 0x80) {
      out += static_cast<char>(c);
      continue;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    out += static_cast<char>((0xff00 >> (more + 1) & 0xff) | c >> 6 * more);
    for (int k = more - 1; k >= 0; k--) out += static_cast<char>(0x80 | (c >> 6 * k & 0x3f));
  }
  return out;
}

}  // namespace sdar::form
