#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "backend/cpu/reference/loops.h"

namespace sdar::cpu::reference {
namespace {

/// softmax(logits / T) as unnormalised weights exp((logit - max) / T).
class Softmax {
 public:
  Softmax(std::span<const float> logits, double max, double temperature) : max_(max), temperature_(temperature) {
    double weighted = 0;  // Σ w·ln w
    for (float logit : logits) {
      const double w = weight(logit);
      total_ += w;
      if (w > 0) weighted += w * std::log(w);
    }
    entropy_ = std::log(total_) - weighted / total_;
  }
  double weight(float logit) const { return std::exp((logit - max_) / temperature_); }
  double total() const { return total_; }
  double entropy() const { return std::max(entropy_, 0.0); }

 private:
  double max_, temperature_, total_ = 0, entropy_ = 0;
};

/// Ids that may be chosen, in ascending order.
std::vector<int32_t> allowed_ids(size_t vocabulary, const SampledRow& request) {
  std::vector<bool> is_suppressed(vocabulary, false);
  for (int32_t id : request.suppressed) {
    if (id >= 0 && static_cast<size_t>(id) < vocabulary) is_suppressed[id] = true;
  }
  std::vector<int32_t> ids;
  for (size_t id = 0; id < vocabulary; id++) {
    const bool allowed = !request.allowed || request.allowed[id / 64] >> id % 64 & 1;
    if (allowed && !is_suppressed[id]) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

/// The ids of largest logit first, the lowest first among equals.
void rank(std::span<const float> logits, std::vector<int32_t>& ids) {
  std::sort(ids.begin(), ids.end(),
            [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
}

void tell_best(std::span<const float> logits, std::vector<int32_t> ids, std::span<RankedToken> best) {
  if (best.empty()) return;
  rank(logits, ids);
  for (size_t i = 0; i < best.size(); i++)
    best[i] = i < ids.size() ? RankedToken{ids[i], logits[ids[i]]} : RankedToken{};
}

struct Choice {
  int32_t token;
  double probability;  ///< after truncation and renormalisation
};

/// Sample of the allowed ids after top-k, then top-p, then min-p. `best` is their largest logit: weights relative to it cannot all
/// vanish, as they could relative to a suppressed id's.
Choice sample(std::span<const float> logits, std::vector<int32_t> ids, float best, const SampledRow& request) {
  const auto weight = [&](int32_t id) {
    return std::exp((static_cast<double>(logits[id]) - best) / static_cast<double>(request.temperature));
  };
  const bool truncate_k = request.top_k > 0 && static_cast<size_t>(request.top_k) < ids.size();
  const bool truncate_p = request.top_p < 1;
  if (truncate_k || truncate_p) {
    rank(logits, ids);
    if (truncate_k) ids.resize(static_cast<size_t>(request.top_k));
    if (truncate_p) {
      double total = 0, mass = 0;
      for (int32_t id : ids) total += weight(id);
      size_t kept = 0;
      do mass += weight(ids[kept++]);
      while (kept < ids.size() && mass < static_cast<double>(request.top_p) * total);
      ids.resize(kept);
    }
    std::sort(ids.begin(), ids.end());
  }
  if (request.min_p > 0)
    std::erase_if(ids, [&](int32_t id) { return weight(id) < static_cast<double>(request.min_p); });
  double total = 0, sum = 0;
  for (int32_t id : ids) total += weight(id);
  Choice choice{ids.front(), 0};
  for (int32_t id :
       ids) {  // the first id whose cumulative sum exceeds uniform · total; rounding may leave the last one
    const double w = weight(id);
    if (w > 0) choice = {id, w / total};
    sum += w;
    if (sum > request.uniform * total) break;
  }
  return choice;
}

}  // namespace

SampledToken choose_token(std::span<float> logits, const SampledRow& request) {
  for (size_t i = 0; i < request.bias_ids.size(); i++) logits[request.bias_ids[i]] += request.bias_values[i];
  std::map<int32_t, float> less;  // of an id the last entry that holds for this row
  for (const PenalisedToken& token : request.penalised)
    if (token.from <= request.offset) less[token.id] = token.less;
  for (const auto& [id, amount] : less) logits[id] = penalised_logit(logits[id], request.repetition, amount);

  SampledToken result;
  const std::vector<int32_t> allowed = allowed_ids(logits.size(), request);
  result.finite =
      !allowed.empty() && std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); });
  if (!result.finite) return result;

  result.max = *std::max_element(logits.begin(), logits.end());
  const Softmax plain(logits, result.max, 1);
  result.logsumexp = static_cast<float>(result.max + std::log(plain.total()));

  int32_t best = allowed.front();
  for (int32_t id : allowed) {
    if (logits[id] > logits[best]) best = id;
  }
  if (request.temperature > 0) {
    const Softmax tempered(logits, result.max, request.temperature);
    const Choice choice = sample(logits, allowed, logits[best], request);
    result.token = choice.token;
    result.entropy = static_cast<float>(tempered.entropy());
    result.confidence = static_cast<float>(request.confidence == Confidence::sampled
                                               ? choice.probability
                                               : tempered.weight(logits[choice.token]) / tempered.total());
  } else {
    result.token = best;
    result.entropy = static_cast<float>(plain.entropy());
    result.confidence = static_cast<float>(plain.weight(logits[best]) / plain.total());
  }
  const double shifted = static_cast<double>(logits[result.token]) - result.max;
  result.logprob = static_cast<float>(shifted - std::log(plain.total()));

  if (request.wanted_logit && request.wanted >= 0) *request.wanted_logit = {request.wanted, logits[request.wanted]};
  tell_best(logits, allowed, request.candidates);
  if (!request.top.empty()) tell_best(logits, allowed_ids(logits.size(), {}), request.top);
  return result;
}

}  // namespace sdar::cpu::reference
