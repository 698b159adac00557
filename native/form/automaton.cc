#include "form/automaton.h"

#include <algorithm>
#include <functional>

namespace sdar::form {
namespace {

uint64_t mix(uint64_t h, uint64_t value) {
  h = (h ^ value) * 0x9e3779b97f4a7c15ull;
  return h ^ h >> 29;
}

}  // namespace

bool Automaton::Marks::add(Config c) {
  if (2 * count_ >= slots_.size()) {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    const uint32_t epoch = epoch_;
    for (const Slot& s : old) {
      if (s.epoch != epoch) continue;
      size_t at = hash(s.config) & (slots_.size() - 1);
      while (slots_[at].epoch == epoch) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = s;
    }
  }
  size_t at = hash(c) & (slots_.size() - 1);
  for (; slots_[at].epoch == epoch_; at = (at + 1) & (slots_.size() - 1))
    if (slots_[at].config == c) return false;
  slots_[at] = {c, epoch_};
  count_++;
  return true;
}

Automaton::Automaton(std::shared_ptr<const Program> program)
    : program_(std::move(program)),
      classes_(program_->class_byte.size()),
      caller_of_(program_->rules.size(), UINT32_MAX) {
  std::vector<Config> none;
  intern_node(none, true);  // kBottom
  const Rule& root = program_->rules[program_->root];
  reach({root.start, kBottom});
  start_ = intern();
}

State Automaton::advance(State state, std::string_view bytes) {
  for (const char b : bytes) state = advance(state, static_cast<uint8_t>(b));
  return state;
}

std::string Automaton::forced(State state, size_t most) {
  std::string out;
  while (state >= 0 && out.size() < most && !can_end(state)) {
    State next = kDead;
    int found = 0;
    for (int b = 0; b < 256 && found < 2; b++) {
      const State s = advance(state, static_cast<uint8_t>(b));
      if (s == kDead) continue;
      if (found++ == 0) out.push_back(static_cast<char>(b));
      next = s;
    }
    if (found == 1) {
      state = next;
      continue;
    }
    if (found > 1) out.pop_back();
    break;
  }
  return out;
}

State Automaton::after(State state, size_t count) { return advance(state, forced(state, count)); }

/// Takes a configuration in, with all that it reaches before a byte is read; calls wait for enter_calls().
void Automaton::reach(Config config) {
  const Program& p = *program_;
  open_.push_back(config);
  while (!open_.empty()) {
    const Config c = open_.back();
    open_.pop_back();
    if (!marks_.add(c)) continue;
    if (p.first_byte[c.state] != p.first_byte[c.state + 1]) found_.push_back(c);
    for (uint32_t i = p.first_empty[c.state]; i < p.first_empty[c.state + 1]; i++)
      open_.push_back({p.empty_edges[i], c.node});
    for (uint32_t i = p.first_call[c.state]; i < p.first_call[c.state + 1]; i++) {
      const CallEdge& call = p.call_edges[i];
      uint32_t& at = caller_of_[call.rule];
      if (at == UINT32_MAX) {
        at = static_cast<uint32_t>(called_++);
        if (callers_.size() < called_) callers_.emplace_back();
        callers_[at].entries.clear();
        callers_[at].end = false;
        callers_[at].rule = call.rule;
        heap_.emplace_back(p.rules[call.rule].rank, at);
        std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
      }
      if (p.tail[call.target]) {
        // Nothing is left here but to return: return from there at once, or stacks of lists would grow for ever.
        const NodeRecord& node = nodes_[c.node];
        callers_[at].entries.insert(callers_[at].entries.end(), node.entries.begin(), node.entries.end());
        callers_[at].end |= node.end;
      } else {
        callers_[at].entries.push_back({call.target, c.node});
      }
      if (p.rules[call.rule].nullable) open_.push_back({call.target, c.node});
    }
    // A rule's accept state has no edges. One that was entered in this very step returned with its call (nullable).
    if (p.least[c.state] == 0 && p.tail[c.state] && p.first_empty[c.state] == p.first_empty[c.state + 1]) {
      complete_ |= nodes_[c.node].end;
      for (const Config& entry : nodes_[c.node].entries) open_.push_back(entry);
    }
  }
}

/// Callers come before whom they call, so that all places a call may return to are known when its node is made.
void Automaton::enter_calls() {
  while (!heap_.empty()) {
    const uint32_t at = heap_.front().second;
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.pop_back();
    Callers& callers = callers_[at];
    const uint32_t start = program_->rules[callers.rule].start;
    caller_of_[callers.rule] = UINT32_MAX;
    const Node node = intern_node(callers.entries, callers.end);
    reach({start, node});
  }
  called_ = 0;
}

State Automaton::step(State state, uint8_t byte_class) {
  const Program& p = *program_;
  const uint8_t byte = p.class_byte[byte_class];
  const Record record = records_[index(state)];
  // Around the byte, no edge begins or ends: all these bytes lead to the same state.
  int low = 0, high = 255;
  for (uint32_t c = record.first; c < record.first + record.count; c++) {
    const Config config = configs_[c];
    for (uint32_t i = p.first_byte[config.state]; i < p.first_byte[config.state + 1]; i++) {
      const ByteEdge& e = p.byte_edges[i];
      if (e.low > byte) {
        high = std::min(high, e.low - 1);
      } else if (e.high < byte) {
        low = std::max(low, e.high + 1);
      } else {
        low = std::max<int>(low, e.low);
        high = std::min<int>(high, e.high);
        reach({e.target, config.node});
      }
    }
  }
  const State next = intern();
  State* row = next_.data() + index(state) * classes_;
  std::fill(row + p.class_of[static_cast<size_t>(low)], row + p.class_of[static_cast<size_t>(high)] + 1, next);
  return next;
}

/// The state of what reach() found, which is forgotten; kDead when that is nothing.
State Automaton::intern() {
  enter_calls();
  std::sort(found_.begin(), found_.end());
  const State state = found_.empty() && !complete_ ? kDead : intern(found_, complete_);
  marks_.clear();
  found_.clear();
  complete_ = false;
  return state;
}

State Automaton::intern(std::span<const Config> configs, bool complete) {
  uint64_t hash = complete ? 1 : 0;
  for (const Config& c : configs) hash = mix(hash, uint64_t{c.state} << 32 | c.node);
  for (auto [at, end] = by_hash_.equal_range(hash); at != end; ++at)
    if (records_[index(at->second)].complete == complete && std::ranges::equal(this->configs(at->second), configs))
      return at->second;
  uint32_t least = complete ? 0 : kUnreachable;
  for (const Config& c : configs) {
    const uint64_t cost = uint64_t{program_->least[c.state]} + nodes_[c.node].least;
    least = static_cast<uint32_t>(std::min<uint64_t>(least, cost));
  }
  const auto state = static_cast<State>(records_.size());
  const auto first = static_cast<uint32_t>(configs_.size());
  // `configs` may lie in configs_ itself.
  std::vector<Config> copy(configs.begin(), configs.end());
  configs_.insert(configs_.end(), copy.begin(), copy.end());
  records_.push_back({first, static_cast<uint32_t>(copy.size()), least, complete});
  next_.resize(next_.size() + classes_, kUnknown);
  parts_.emplace_back();
  by_hash_.emplace(hash, state);
  return state;
}

Automaton::Node Automaton::intern_node(std::vector<Config>& entries, bool end) {
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  uint64_t hash = end ? 1 : 0;
  for (const Config& c : entries) hash = mix(hash, uint64_t{c.state} << 32 | c.node);
  for (auto [at, last] = nodes_by_hash_.equal_range(hash); at != last; ++at)
    if (nodes_[at->second].end == end && nodes_[at->second].entries == entries) return at->second;
  uint64_t least = end ? 0 : kUnreachable;
  for (const Config& c : entries) least = std::min(least, uint64_t{program_->least[c.state]} + nodes_[c.node].least);
  const auto node = static_cast<Node>(nodes_.size());
  nodes_.push_back({entries, end, static_cast<uint32_t>(std::min<uint64_t>(least, kUnreachable)), kUnknown});
  node_entries_ += entries.size();
  nodes_by_hash_.emplace(hash, node);
  return node;
}

const std::vector<Automaton::Part>& Automaton::parts(State state) {
  if (parts_[index(state)].empty() && records_[index(state)].count > 0) {
    std::vector<Config> all(configs(state).begin(), configs(state).end());
    std::ranges::stable_sort(all, {}, &Config::node);
    std::vector<Part> parts;
    for (size_t i = 0; i < all.size();) {
      const Node node = all[i].node;
      std::vector<Config> local;
      for (; i < all.size() && all[i].node == node; i++) local.push_back({all[i].state, kBottom});
      parts.push_back({intern(local, false), node});
    }
    parts_[index(state)] = std::move(parts);
  }
  return parts_[index(state)];
}

std::vector<State> Automaton::nearest(State state) {
  if (records_[index(state)].count == 1) return {state};
  std::vector<Config> nearest;
  for (const Config& c : configs(state))
    if (uint64_t{program_->least[c.state]} + nodes_[c.node].least == least_bytes(state)) nearest.push_back(c);
  std::vector<State> states;
  for (const Config& c : nearest) states.push_back(intern({&c, 1}, false));
  return states;
}

size_t Automaton::width(State state) const {
  size_t sum = 0;
  for (const Config& c : configs(state))
    for (uint32_t i = program_->first_byte[c.state]; i < program_->first_byte[c.state + 1]; i++)
      sum += size_t{program_->byte_edges[i].high} - program_->byte_edges[i].low + 1;
  return sum;
}

State Automaton::returned(Node node) {
  if (nodes_[node].returned == kUnknown) {
    const std::vector<Config> entries = nodes_[node].entries;
    complete_ = nodes_[node].end;
    for (const Config& c : entries) reach(c);
    nodes_[node].returned = node == kBottom ? kDead : intern();
    if (node == kBottom) complete_ = false;
  }
  return nodes_[node].returned;
}

size_t Automaton::memory() const {
  return next_.size() * sizeof(State) + configs_.size() * sizeof(Config) + node_entries_ * sizeof(Config) +
         records_.size() * (sizeof(Record) + 120) + nodes_.size() * (sizeof(NodeRecord) + 56);
}

std::vector<State> Automaton::compact(std::span<const State> live) {
  const std::vector<Record> records = std::move(records_);
  const std::vector<Config> configs = std::move(configs_);
  const std::vector<NodeRecord> nodes = std::move(nodes_);
  records_.clear(), configs_.clear(), next_.clear(), parts_.clear(), nodes_.clear(), node_entries_ = 0;
  by_hash_.clear(), nodes_by_hash_.clear();
  generation_++;
  // A node's entries are of lower nodes, so ascending order meets them first.
  std::vector<bool> wanted(nodes.size());
  wanted[kBottom] = true;
  std::vector<State> all(live.begin(), live.end());
  all.push_back(start_);
  for (const State s : all)
    if (s >= 0)
      for (uint32_t i = 0; i < records[index(s)].count; i++) wanted[configs[records[index(s)].first + i].node] = true;
  for (size_t n = nodes.size(); n-- > 0;)
    if (wanted[n])
      for (const Config& c : nodes[n].entries) wanted[c.node] = true;
  std::vector<Node> renamed(nodes.size());
  for (size_t n = 0; n < nodes.size(); n++) {
    if (!wanted[n]) continue;
    std::vector<Config> entries = nodes[n].entries;
    for (Config& c : entries) c.node = renamed[c.node];
    renamed[n] = intern_node(entries, nodes[n].end);
  }
  std::vector<State> out;
  for (const State s : all) {
    if (s < 0) {
      out.push_back(s);
      continue;
    }
    const Record& r = records[index(s)];
    std::vector<Config> set(configs.begin() + r.first, configs.begin() + r.first + r.count);
    for (Config& c : set) c.node = renamed[c.node];
    std::sort(set.begin(), set.end());
    out.push_back(intern(set, r.complete));
  }
  start_ = out.back();
  out.pop_back();
  return out;
}

}  // namespace sdar::form
