// Sampled rows with limits, for tests of the lm_head of every backend.
#pragma once
#include <memory>
#include <vector>

#include "oracle.h"

namespace oracle {

/// A row with limits, penalties and questions of all kinds: owns what its SampledRow points to.
struct LimitedRow {
  std::vector<uint64_t> allowed;
  std::vector<int32_t> suppressed;
  std::vector<PenalisedToken> penalised;
  std::vector<RankedToken> candidates, top;
  RankedToken wanted;
  SampledRow request;

  /// `share` of ids allowed, in single bits or runs.
  LimitedRow(Random& random, int vocabulary, double share) : allowed((vocabulary + 63) / 64, 0) {
    if (share < 1) {
      const int run = 1 + random.below(200);
      for (int id = 0; id < vocabulary; id += run) {
        if (random.uniform() > share) continue;
        for (int i = id; i < std::min(vocabulary, id + run); i++) allowed[i / 64] |= uint64_t{1} << i % 64;
      }
      allowed.back() |= ~uint64_t{0} << 63;  // beyond the vocabulary a bit means nothing
      if (vocabulary % 64 == 0) allowed.back() &= ~(uint64_t{1} << 63);
    }
    for (int i = random.below(3) * random.below(100); i > 0; i--) suppressed.push_back(random.below(vocabulary));
    candidates.resize(random.below(2) ? random.below(33) : 0);
    top.resize(random.below(2) ? random.below(21) : 0);
    request.temperature = random.below(2) ? random.between(0.2, 2) : 0.0f;
    if (random.below(3) == 0) request.top_k = 1 + random.below(40);
    if (random.below(3) == 0) request.top_p = random.between(0.05, 1);
    if (random.below(3) == 0) request.min_p = random.between(0.001, 1);
    request.uniform = random.uniform();
    request.confidence = random.below(2) ? Confidence::model : Confidence::sampled;
    if (random.below(2)) request.wanted = random.below(vocabulary);
    if (share < 1) request.allowed = allowed.data();
    if (random.below(2)) penalise(random, vocabulary);
    point();
  }
  /// Ids that are penalised in rows from some offset on, some of them more than once.
  void penalise(Random& random, int vocabulary) {
    request.repetition = random.below(3) ? random.between(0.5, 2) : 1.0f;
    request.offset = random.below(6);
    for (int id = random.below(20); id < vocabulary; id += 1 + random.below(90)) {
      for (int from = random.below(3) * random.below(7); from < 8; from += 1 + random.below(6))
        penalised.push_back({.id = id, .from = from, .less = random.between(-1, 2)});
    }
    request.penalised = penalised;
  }
  /// What the penalties make of logits.
  std::vector<float> applied(std::vector<float> logits) const {
    for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); id++) {
      const PenalisedToken* last = nullptr;
      for (const PenalisedToken& token : penalised)
        if (token.id == id && token.from <= request.offset && (!last || token.from > last->from)) last = &token;
      if (!last) continue;
      const float repeated = logits[id] > 0 ? logits[id] / request.repetition : logits[id] * request.repetition;
      logits[id] = repeated - last->less;
    }
    return logits;
  }

  void point() {
    request.suppressed = suppressed;
    request.candidates = candidates, request.top = top, request.wanted_logit = &wanted;
  }
};

/// `count` of them, of rows below `rows`: all, most, some and few ids allowed in turn.
inline std::vector<std::unique_ptr<LimitedRow>> limited_rows(Random& random, int count, int rows, int vocabulary) {
  std::vector<std::unique_ptr<LimitedRow>> all;
  for (int i = 0; i < count; i++) {
    const double share[] = {1, 0.7, 0.1, 0.01};
    all.push_back(std::make_unique<LimitedRow>(random, vocabulary, share[i % 4]));
    all.back()->request.row = random.below(rows);
  }
  return all;
}

/// Candidates, wanted and top are those of a full sort of `logits`.
inline bool tells_all(const LimitedRow& row, std::span<const float> logits) {
  const int32_t wanted = row.request.wanted;
  return tells_best(row.candidates, ranked_ids(logits, row.request), logits) &&
         tells_best(row.top, ranked_ids(logits, row.request, true), logits) && row.wanted.id == wanted &&
         (wanted < 0 || row.wanted.logit == logits[wanted]);
}

}  // namespace oracle
