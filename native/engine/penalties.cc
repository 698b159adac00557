#include "engine/penalties.h"

#include <algorithm>
#include <tuple>

namespace sdar {

TokenPenalties::TokenPenalties(const SamplingParams& params, std::span<const int32_t> prompt)
    : presence_(params.presence_penalty), frequency_(params.frequency_penalty) {
  if (params.repetition_penalty == 1) return;
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const int32_t id : ids) decided_.push_back({.id = id});
  counts_.assign(ids.size(), 0);
}

size_t TokenPenalties::find(int32_t id) const {
  const auto at =
      std::partition_point(decided_.begin(), decided_.end(), [&](const auto& token) { return token.id < id; });
  return static_cast<size_t>(at - decided_.begin());
}

float TokenPenalties::less(int32_t count) const {
  return count > 0 ? presence_ + frequency_ * static_cast<float>(count) : 0;
}

void TokenPenalties::add(int32_t id) {
  proposed_.clear();
  const size_t at = find(id);
  if (at == decided_.size() || decided_[at].id != id) {
    decided_.insert(decided_.begin() + static_cast<std::ptrdiff_t>(at), {.id = id});
    counts_.insert(counts_.begin() + static_cast<std::ptrdiff_t>(at), 0);
  }
  decided_[at].less = less(++counts_[at]);
}

void TokenPenalties::propose(std::span<const int32_t> tokens, uint64_t counted) {
  proposed_.clear();
  if (tokens.empty()) return;
  std::vector<PenalisedToken> later;
  for (size_t i = 0; i < tokens.size(); i++) {
    if (!(counted >> i & 1)) continue;
    const size_t at = find(tokens[i]);
    const bool known = at < decided_.size() && decided_[at].id == tokens[i];
    const auto same = [&](const PenalisedToken& token) { return token.id == tokens[i]; };
    const auto before = std::count_if(later.begin(), later.end(), same);
    const int32_t count = (known ? counts_[at] : 0) + static_cast<int32_t>(before) + 1;
    later.push_back({.id = tokens[i], .from = static_cast<int32_t>(i) + 1, .less = less(count)});
  }
  const auto order = [](const PenalisedToken& a, const PenalisedToken& b) {
    return std::tie(a.id, a.from) < std::tie(b.id, b.from);
  };
  std::sort(later.begin(), later.end(), order);
  proposed_.resize(decided_.size() + later.size());
  std::merge(decided_.begin(), decided_.end(), later.begin(), later.end(), proposed_.begin(), order);
}

}  // namespace sdar
