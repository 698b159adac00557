#include "engine/form_filling.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace sdar {
namespace {

constexpr int32_t kAny = -1;
constexpr size_t kMostStates = 16;  // of a position, that a filling may go through

// At a temperature what was drawn is kept where the form lets it, the next position's before all others', so that its
// tokens have the model's distribution over those that the form allows.
constexpr double kNotDrawn = -64, kNextNotDrawn = -1e6;

/// A token with its numbers, from what is known of its row.
SampledToken with_token(const SampledToken& row, int32_t token, float logit, const SamplingParams& sampling) {
  if (token == row.token) return row;
  SampledToken other = row;
  other.token = token;
  other.logprob = logit - row.logsumexp;
  const float distance = other.logprob - row.logprob;
  other.confidence = sampling.temperature > 0
                         ? std::min(row.confidence * std::exp(distance / sampling.temperature), 1.0f)
                         : std::exp(other.logprob);
  return other;
}

}  // namespace

/// What a step says about a masked position.
struct FormFilling::Row {
  const SampledToken& at;
  std::span<const RankedToken> candidates;
  RankedToken wanted;

  Row(const SequenceResult& result, int32_t offset, size_t rank, size_t rows)
      : at(result.at[static_cast<size_t>(offset)]),
        candidates(
            result.candidates.subspan(rank * (result.candidates.size() / rows), result.candidates.size() / rows)),
        wanted(result.wanted[rank]) {}

  double score(int32_t token, float logit, const SamplingParams& sampling, bool next) const {
    if (sampling.temperature <= 0) return static_cast<double>(logit) - at.logsumexp;
    if (token == at.token) return 0;
    const double distance = (static_cast<double>(logit) - at.max) / sampling.temperature;
    return (next ? kNextNotDrawn : kNotDrawn) + std::max(distance, kNotDrawn / 2);
  }
};

FormFilling::FormFilling(std::shared_ptr<form::LiveForm> form, int32_t end_id, int32_t left)
    : form_(std::move(form)), end_id_(end_id), left_(left), state_(form_->start()) {
  form_->hold(&state_);
}

FormFilling::~FormFilling() { form_->drop(&state_); }

void FormFilling::accept(int32_t id) {
  state_ = form_->advance(state_, id);
  left_--;
  if (!path_.empty() && path_[0] == id) {
    path_.erase(path_.begin());
  } else {
    path_.clear();
  }
}

std::vector<int32_t> FormFilling::forced(std::span<const int32_t> tokens) {
  std::vector<int32_t> run = form_->forced(state_, end_id_);
  form::State state = state_;
  size_t n = 0;
  const bool others = std::ranges::any_of(tokens, [](int32_t t) { return t >= 0; });
  for (; n < run.size() && n < tokens.size() && tokens[n] < 0; n++) {
    // A filled position behind was filled with this path in view.
    if (others && (n >= path_.size() || path_[n] != run[n])) break;
    state = form_->advance(state, run[n]);
    if (!form_->fits(state, left_ - static_cast<int32_t>(n) - 1)) break;
  }
  run.resize(n);
  if (n > 0 && !others) path_.clear();
  return run;
}

void FormFilling::allow(form::State state, RowLimits& limits) {
  masks_.push_back(form_->allowed(state));
  limits.allowed = masks_.back()->data();
}

/// A shortest end of the text from what is filled.
void FormFilling::plan_path(std::span<const int32_t> tokens) {
  path_.clear();
  form::State state = state_;
  for (const int32_t token : tokens) {
    int32_t next = token;
    if (token < 0 && state == form::kEnded) {
      next = kAny;
    } else if (token < 0) {
      next = form_->nearest(state, end_id_);
    }
    path_.push_back(next);
    if (next >= 0) state = form_->advance(state, next);
  }
}

void FormFilling::ask(std::span<const int32_t> tokens, std::span<RowLimits> limits, bool drafted) {
  form_->trim();
  masks_.clear();
  if (path_.size() != tokens.size()) plan_path(tokens);
  form::State state = state_;
  bool exact = true;
  for (size_t i = 0; i < tokens.size(); i++) {
    limits[i] = {};
    if (tokens[i] >= 0) {
      if (exact) state = form_->advance(state, tokens[i]);
      continue;
    }
    limits[i].wanted = path_[i];
    if (exact && state != form::kEnded) allow(state, limits[i]);
    if (exact && drafted && state != form::kEnded) state = form_->advance(state, path_[i]);
    exact &= drafted;
  }
}

/// Goes on from from[parent]; the best way to each state is kept.
void FormFilling::extend(const Level& from, size_t parent, int32_t token, double score, float logit, size_t index,
                         Level& to) {
  const Node& before = from[parent];
  const form::State state = form_->advance(before.state, token);
  if (!form_->fits(state, left_ - static_cast<int32_t>(index) - 1)) return;
  const bool on_path = before.on_path && (path_[index] == token || path_[index] == kAny);
  const Node node{state, before.score + score, static_cast<int32_t>(parent), token, logit, on_path};
  const auto same = std::ranges::find(to, state, &Node::state);
  if (same == to.end()) {
    to.push_back(node);
    return;
  }
  const bool reached = same->on_path || on_path;
  if (node.score > same->score) *same = node;
  same->on_path = reached;
}

void FormFilling::prune(Level& level) {
  if (level.size() <= kMostStates) return;
  std::ranges::stable_sort(level, [](const Node& a, const Node& b) { return a.score > b.score; });
  const auto path = std::ranges::find(level, true, &Node::on_path);
  if (path - level.begin() >= static_cast<std::ptrdiff_t>(kMostStates)) level[kMostStates - 1] = *path;
  level.resize(kMostStates);
}

uint64_t FormFilling::choose(std::span<const int32_t> tokens, int32_t offset, uint64_t masked,
                             const SamplingParams& sampling, SequenceResult& result) {
  const auto rows = static_cast<size_t>(std::popcount(masked));
  levels_.resize(tokens.size() + 1);
  levels_[0].assign(1, {state_, 0, -1, kAny, 0, true});
  bool next = true;  // no masked position before
  for (size_t i = 0; i < tokens.size(); i++) {
    const Level& from = levels_[i];
    Level& to = levels_[i + 1];
    to.clear();
    const int32_t at = offset + static_cast<int32_t>(i);
    if (!(masked >> at & 1)) {
      for (size_t p = 0; p < from.size(); p++) extend(from, p, tokens[i], 0, 0, i, to);
      continue;
    }
    const Row row(result, at, static_cast<size_t>(std::popcount(masked & ((uint64_t{1} << at) - 1))), rows);
    for (size_t p = 0; p < from.size(); p++) {
      const auto try_token = [&](int32_t token, float logit) {
        extend(from, p, token, row.score(token, logit, sampling, next), logit, i, to);
      };
      const float drawn = row.at.logprob + row.at.logsumexp;
      if (from[p].state == form::kEnded) {
        extend(from, p, row.at.token, row.score(row.at.token, drawn, sampling, false), drawn, i, to);
        continue;
      }
      try_token(row.at.token, drawn);
      for (const RankedToken& c : row.candidates)
        if (c.id >= 0 && c.id != row.at.token) try_token(c.id, c.logit);
      if (row.wanted.id >= 0) try_token(row.wanted.id, row.wanted.logit);
    }
    prune(to);
    next = false;
  }

  const Level& last = levels_[tokens.size()];
  auto at = static_cast<size_t>(std::ranges::max_element(last, {}, &Node::score) - last.begin());
  path_.assign(tokens.size(), kAny);
  uint64_t open = 0;
  for (size_t i = tokens.size(); i-- > 0;) {
    const Node& node = levels_[i + 1][at];
    at = static_cast<size_t>(node.parent);
    const bool after_end = levels_[i][at].state == form::kEnded;
    const int32_t position = offset + static_cast<int32_t>(i);
    const bool was_masked = masked >> position & 1;
    if (!after_end || !was_masked) path_[i] = node.token;
    if (!was_masked) continue;
    SampledToken& sampled = result.at[static_cast<size_t>(position)];
    sampled = with_token(sampled, node.token, node.logit, sampling);
    if (!after_end) open |= uint64_t{1} << position;
  }
  return open;
}

uint64_t FormFilling::verify(size_t lead, uint64_t masked, const SamplingParams& sampling, SequenceResult& result) {
  const auto rows = static_cast<size_t>(std::popcount(masked));
  uint64_t accepted = 0;
  for (size_t i = 0, rank = 0; lead + i < path_.size() && path_[lead + i] != kAny; i++) {
    if (!(masked >> i & 1)) continue;
    const Row row(result, static_cast<int32_t>(i), rank++, rows);
    const int32_t drafted = path_[lead + i];
    const bool agreed = row.at.token == drafted;
    if (!agreed && accepted) break;
    accepted |= uint64_t{1} << i;
    if (agreed) continue;
    result.at[i] = with_token(row.at, drafted, row.wanted.logit, sampling);
    break;
  }
  return accepted;
}

int32_t FormFilling::ask_next(std::span<const int32_t> proposed, std::span<RowLimits> limits) {
  form_->trim();
  masks_.clear();
  form::State state = state_;
  for (size_t i = 0;; i++) {
    limits[i].wanted = form_->nearest(state, end_id_);
    allow(state, limits[i]);
    if (i == proposed.size()) return static_cast<int32_t>(i);
    const int32_t left = left_ - static_cast<int32_t>(i) - 1;
    const form::State next = form_->advance(state, proposed[i]);
    // What the form alone decides is written when the token before it is: no row may decide it otherwise.
    if (next < 0 || !form_->fits(next, left) || !form_->forced(next, end_id_).empty()) return static_cast<int32_t>(i);
    state = next;
  }
}

void FormFilling::decide(std::span<const int32_t> proposed, const SamplingParams& sampling, SequenceResult& result) {
  form::State state = state_;
  const size_t rows = proposed.size() + 1;
  for (size_t i = 0; i < rows; i++) {
    const Row row(result, static_cast<int32_t>(i), i, rows);
    const int32_t left = left_ - static_cast<int32_t>(i) - 1;
    RankedToken chosen{row.at.token, row.at.logprob + row.at.logsumexp};
    const auto fits = [&](int32_t id) { return id >= 0 && form_->fits(form_->advance(state, id), left); };
    if (!fits(chosen.id)) {
      const auto other = std::ranges::find_if(row.candidates, [&](const RankedToken& c) { return fits(c.id); });
      chosen = other != row.candidates.end() ? *other : row.wanted;
    }
    result.at[i] = with_token(row.at, chosen.id, chosen.logit, sampling);
    if (i == proposed.size() || chosen.id != proposed[i]) return;
    state = form_->advance(state, chosen.id);
  }
}

}  // namespace sdar
