// Builder::finish: edges by state, what leads nowhere left out, least numbers of bytes, the order of rules, byte classes.
#include <algorithm>
#include <bitset>

#include "form/program.h"
#include "util/error.h"

namespace sdar::form {
namespace {

/// Indexes of edges by a state of theirs: those of state q are order[first[q]] … order[first[q + 1] - 1].
struct Index {
  std::vector<uint32_t> first, order;

  template <class Edges, class Key>
  Index(size_t states, const Edges& edges, Key key) : first(states + 1), order(edges.size()) {
    for (const auto& e : edges) first[key(e) + 1]++;
    for (size_t q = 0; q < states; q++) first[q + 1] += first[q];
    std::vector<uint32_t> next(first.begin(), first.end() - 1);
    for (uint32_t i = 0; i < edges.size(); i++) order[next[key(edges[i])]++] = i;
  }
};

/// Least numbers of bytes by Knuth's generalisation of Dijkstra's algorithm (1977): costs are small, so a queue is a list
/// of states for each cost.
class Costs {
 public:
  Costs(size_t states) : least(states, kUnreachable), done_(states) {}
  std::vector<uint32_t> least;

  void offer(uint32_t state, uint32_t cost) {
    if (cost >= least[state] || cost > kMaxLeast) return;
    least[state] = cost;
    if (cost >= queue_.size()) queue_.resize(cost + 1);
    queue_[cost].push_back(state);
  }
  bool done(uint32_t state) const { return done_[state]; }
  template <class Settle>
  void run(Settle settle) {
    for (size_t cost = 0; cost < queue_.size(); cost++)
      for (size_t i = 0; i < queue_[cost].size(); i++) {
        const uint32_t state = queue_[cost][i];
        if (done_[state]) continue;
        done_[state] = true;
        settle(state, static_cast<uint32_t>(cost));
      }
  }

 private:
  std::vector<bool> done_;
  std::vector<std::vector<uint32_t>> queue_;
};

/// Rules in an order in which callers come before those that they call before they read a byte.
class Ranks {
 public:
  Ranks(Program& program, const std::string& at) : program_(program), at_(at), colour_(program.rules.size()) {
    for (uint32_t r = 0; r < program.rules.size(); r++)
      if (colour_[r] == 0) visit(r);
  }

 private:
  struct Frame {
    uint32_t rule;
    std::vector<uint32_t> callees;
    size_t next = 0;
  };

  void visit(uint32_t root) {
    std::vector<Frame> stack;
    const auto enter = [&](uint32_t rule) {
      colour_[rule] = 1;
      stack.push_back({rule, callees(rule)});
    };
    enter(root);
    while (!stack.empty()) {
      Frame& frame = stack.back();
      if (frame.next == frame.callees.size()) {
        colour_[frame.rule] = 2;
        program_.rules[frame.rule].rank = static_cast<uint32_t>(program_.rules.size()) - 1 - finished_++;
        stack.pop_back();
        continue;
      }
      const uint32_t callee = frame.callees[frame.next++];
      if (colour_[callee] == 1)
        throw Error(code::kInvalidOption, at_ + ": rule " + program_.rules[callee].name +
                                              " is left-recursive: it comes to itself before any text");
      if (colour_[callee] == 0) enter(callee);
    }
  }

  std::vector<uint32_t> callees(uint32_t rule) {
    std::vector<uint32_t> out, open{program_.rules[rule].start};
    const auto add = [&](uint32_t q) {
      if (mark_.size() != program_.states()) mark_.assign(program_.states(), UINT32_MAX);
      if (mark_[q] == rule) return;
      mark_[q] = rule;
      open.push_back(q);
    };
    while (!open.empty()) {
      const uint32_t q = open.back();
      open.pop_back();
      for (uint32_t i = program_.first_empty[q]; i < program_.first_empty[q + 1]; i++) add(program_.empty_edges[i]);
      for (uint32_t i = program_.first_call[q]; i < program_.first_call[q + 1]; i++) {
        const CallEdge& call = program_.call_edges[i];
        out.push_back(call.rule);
        if (program_.rules[call.rule].nullable) add(call.target);
      }
    }
    return out;
  }

  Program& program_;
  const std::string& at_;
  std::vector<uint8_t> colour_;  // 0 not visited, 1 open, 2 done
  std::vector<uint32_t> mark_;
  uint32_t finished_ = 0;
};

void find_classes(Program& program) {
  std::bitset<257> starts;
  starts.set(0);
  for (const ByteEdge& e : program.byte_edges) starts.set(e.low), starts.set(e.high + 1u);
  for (int b = 0; b < 256; b++) {
    if (starts[static_cast<size_t>(b)]) program.class_byte.push_back(static_cast<uint8_t>(b));
    program.class_of[static_cast<size_t>(b)] = static_cast<uint8_t>(program.class_byte.size() - 1);
  }
}

void find_tails(Program& program) {
  program.tail.assign(program.states(), false);
  for (const Rule& r : program.rules) program.tail[r.accept] = true;
  for (uint32_t q = 0; q < program.states(); q++) {
    uint32_t at = q;
    for (int steps = 0; steps < 16 && !program.tail[at]; steps++) {
      if (program.first_byte[at] != program.first_byte[at + 1] ||
          program.first_call[at] != program.first_call[at + 1] ||
          program.first_empty[at] + 1 != program.first_empty[at + 1])
        break;
      at = program.empty_edges[program.first_empty[at]];
    }
    if (program.tail[at]) program.tail[q] = true;
  }
}

}  // namespace

Program Builder::finish(uint32_t root) {
  const size_t n = states_;
  const auto to = [](const Edge& e) { return e.to; };
  const auto from = [](const Edge& e) { return e.from; };
  Costs costs(n);
  {
    const Index bytes_to(n, bytes_, to), empties_to(n, empties_, to), calls_to(n, calls_, to);
    const Index calls_of(rules_.size(), calls_, [](const Edge& e) { return e.label; });
    std::vector<uint32_t> rule_of(n, UINT32_MAX);  // of a start
    for (uint32_t r = 0; r < rules_.size(); r++) rule_of[rules_[r].start] = r;
    const auto call = [&](const Edge& e) {
      const uint32_t start = rules_[e.label].start;
      if (costs.done(start) && costs.done(e.to)) costs.offer(e.from, costs.least[start] + costs.least[e.to]);
    };
    for (const Rule& r : rules_) costs.offer(r.accept, 0);
    costs.run([&](uint32_t q, uint32_t cost) {
      for (uint32_t i = bytes_to.first[q]; i < bytes_to.first[q + 1]; i++)
        costs.offer(bytes_[bytes_to.order[i]].from, cost + 1);
      for (uint32_t i = empties_to.first[q]; i < empties_to.first[q + 1]; i++)
        costs.offer(empties_[empties_to.order[i]].from, cost);
      for (uint32_t i = calls_to.first[q]; i < calls_to.first[q + 1]; i++) call(calls_[calls_to.order[i]]);
      if (const uint32_t r = rule_of[q]; r != UINT32_MAX)
        for (uint32_t i = calls_of.first[r]; i < calls_of.first[r + 1]; i++) call(calls_[calls_of.order[i]]);
    });
  }
  Program p;
  p.least = std::move(costs.least);
  p.rules = std::move(rules_);
  p.root = root;
  if (p.least[p.rules[root].start] == kUnreachable)
    throw Error(code::kInvalidOption, at_ + ": no text of at most 4 MiB matches this form");
  for (Rule& r : p.rules) r.nullable = p.least[r.start] == 0;

  const auto lives = [&](uint32_t q) { return p.least[q] != kUnreachable; };
  std::erase_if(bytes_, [&](const Edge& e) { return !lives(e.to); });
  std::erase_if(empties_, [&](const Edge& e) { return !lives(e.to); });
  std::erase_if(calls_, [&](const Edge& e) { return !lives(e.to) || !lives(p.rules[e.label].start); });
  Index bytes_from(n, bytes_, from), empties_from(n, empties_, from), calls_from(n, calls_, from);
  for (const uint32_t i : bytes_from.order)
    p.byte_edges.push_back(
        {static_cast<uint8_t>(bytes_[i].label), static_cast<uint8_t>(bytes_[i].label >> 8), bytes_[i].to});
  for (const uint32_t i : empties_from.order) p.empty_edges.push_back(empties_[i].to);
  for (const uint32_t i : calls_from.order) p.call_edges.push_back({calls_[i].label, calls_[i].to});
  p.first_byte = std::move(bytes_from.first);
  p.first_empty = std::move(empties_from.first);
  p.first_call = std::move(calls_from.first);
  Ranks(p, at_);
  find_classes(p);
  find_tails(p);
  return p;
}

}  // namespace sdar::form
