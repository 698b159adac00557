// What a sequence's penalties count, row by row, against plain counting.
#include "engine/penalties.h"

#include <algorithm>
#include <map>

#include "check.h"
#include "oracle.h"

using namespace sdar;

namespace {

/// What holds of each id in the row at `offset`: ascending, one entry each.
std::map<int32_t, float> in_row(std::span<const PenalisedToken> tokens, int32_t offset) {
  std::map<int32_t, float> row;
  for (const PenalisedToken& token : tokens)
    if (token.from <= offset) row[token.id] = token.less;
  return row;
}

bool ascending(std::span<const PenalisedToken> tokens) {
  return std::is_sorted(tokens.begin(), tokens.end(),
                        [](const auto& a, const auto& b) { return a.id != b.id ? a.id < b.id : a.from < b.from; });
}

}  // namespace

TEST("penalties count the prompt for repetition alone, generated tokens once filled, proposed ones in later rows") {
  oracle::Random random(1);
  for (int round = 0; round < 200; round++) {
    SamplingParams params{.repetition_penalty = round % 3 ? 1.3f : 1.0f,
                          .presence_penalty = round % 2 ? 0.5f : 0.0f,
                          .frequency_penalty = 0.25f};
    std::vector<int32_t> prompt, generated, proposed;
    for (int i = random.below(20); i > 0; i--) prompt.push_back(random.below(12));
    TokenPenalties penalties(params, prompt);
    for (int i = random.below(20); i > 0; i--) {
      generated.push_back(random.below(15));
      if (random.below(4) == 0) penalties.propose(generated);  // dropped by what comes next
      penalties.add(generated.back());
    }
    for (int i = random.below(9); i > 0; i--) proposed.push_back(random.below(15));
    const uint64_t counted = round % 4 ? ~uint64_t{0} : static_cast<uint64_t>(random.below(512));
    penalties.propose(proposed, counted);
    CHECK(ascending(penalties.tokens()));
    for (int32_t offset = 0; offset <= static_cast<int32_t>(proposed.size()); offset++) {
      std::map<int32_t, float> expected;
      if (params.repetition_penalty != 1)
        for (int32_t id : prompt) expected[id] = 0;
      std::map<int32_t, int> count;
      for (int32_t id : generated) count[id]++;
      for (int32_t i = 0; i < offset; i++) count[proposed[static_cast<size_t>(i)]] += counted >> i & 1;
      for (const auto& [id, n] : count)
        if (n > 0) expected[id] = params.presence_penalty + params.frequency_penalty * static_cast<float>(n);
      CHECK(in_row(penalties.tokens(), offset) == expected);
    }
  }
}

int main(int c, char** v) { return check::run(c, v); }
