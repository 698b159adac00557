// Philox against its published vectors; the strategies against tables and a second, sorting implementation.
#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "check.h"
#include "denoise/choose.h"
#include "denoise/philox.h"
#include "denoise/strategy.h"

using namespace sdar;

namespace {

/// The same definition, written with sorted lists.
uint64_t naive_choice(const DenoiseParams& params, int block_length, int step, uint64_t masked,
                      const std::vector<float>& confidence, const std::vector<float>& entropy) {
  std::vector<int> order;
  for (int i = 0; i < block_length; i++) {
    if (masked >> i & 1) order.push_back(i);
  }
  const int steps = params.steps > 0 ? params.steps : block_length;
  size_t n = 1;
  if (step < steps) n = std::max(1, block_length / steps + (step < block_length % steps));
  n = std::min(n, order.size());
  const auto by_confidence = [&](int a, int b) { return confidence[a] > confidence[b]; };
  switch (params.strategy) {
    case Strategy::sequential:
      break;
    case Strategy::low_confidence_static:
      std::stable_sort(order.begin(), order.end(), by_confidence);
      break;
    case Strategy::self_verified:
    case Strategy::low_confidence_dynamic: {
      // Tokens of a verification: each position is filled when all before it are accepted.
      double tokens = 0;
      for (size_t i = 0; i < order.size(); i++)
        tokens += std::accumulate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(i), 1.0,
                                  [&](double p, int at) { return p * confidence[at]; });
      std::stable_sort(order.begin(), order.end(), by_confidence);
      const auto sure =
          std::count_if(order.begin(), order.end(), [&](int i) { return confidence[i] > params.threshold; });
      n = std::max(n, static_cast<size_t>(sure));
      const bool all = static_cast<size_t>(sure) == order.size();
      if (params.strategy == Strategy::self_verified && !all && tokens > 2 * static_cast<double>(n)) return 0;
      break;
    }
    case Strategy::entropy_bounded: {
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return entropy[a] < entropy[b]; });
      n = 0;
      double sum = 0;
      for (int i : order) {
        sum += entropy[i];
        if (n > 0 && sum >= params.entropy_bound) break;
        n++;
      }
      break;
    }
    case Strategy::pairwise_factor: {
      std::stable_sort(order.begin(), order.end(), by_confidence);
      size_t sure = 0;
      for (float pairs = 0; sure < order.size(); sure++) {
        pairs += static_cast<float>(sure);
        if (pairs * (1 - confidence[order[sure]]) >= params.factor) break;
      }
      n = std::max(n, sure);
    }
  }
  uint64_t chosen = 0;
  for (size_t i = 0; i < n; i++) chosen |= uint64_t{1} << order[i];
  return chosen;
}

uint64_t choose(Strategy strategy, int steps, int step, uint64_t masked, const std::vector<float>& score,
                float bound = 0.9f) {
  DenoiseParams params{
      .strategy = strategy, .steps = steps, .threshold = bound, .entropy_bound = bound, .factor = bound};
  return choose_positions(params, static_cast<int32_t>(score.size()), step, masked, score.data(), score.data());
}

}  // namespace

TEST("philox: known answers of Random123") {
  struct {
    PhiloxWords counter;
    uint64_t key;
    std::array<uint32_t, 4> answer;
  } const cases[] = {
      {{{0, 0, 0, 0}}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{{~0u, ~0u, ~0u, ~0u}}, ~uint64_t{0}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0x299f31d0a4093822,
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto& c : cases) {
    const PhiloxWords words = philox4x32_10(c.counter, c.key);
    for (int i = 0; i < 4; i++) CHECK(words.w[i] == c.answer[i]);
  }
}

TEST("philox: the uniform number is the first two words and depends on every part of the key") {
  CHECK(philox_uniform(0, 0, 0, 0) == static_cast<double>(0x6627e8d5e169c58dull >> 11) / 9007199254740992.0);
  std::set<double> seen;
  for (uint64_t seed : {uint64_t{1}, uint64_t{2}, uint64_t{1} << 32}) {
    for (int position = 0; position < 10; position++) {
      for (int step = 0; step < 10; step++) {
        for (int answer = 0; answer < 10; answer++) seen.insert(philox_uniform(seed, position, step, answer));
      }
    }
  }
  CHECK(seen.size() == 3000);
  CHECK(*seen.begin() >= 0 && *seen.rbegin() < 1);
  CHECK_NEAR(std::accumulate(seen.begin(), seen.end(), 0.0) / 3000, 0.5, 0.02);
}

TEST("number of positions a step fills") {
  const auto all = [](int block_length, int steps, int count) {
    std::vector<int> n;
    for (int s = 0; s < count; s++) n.push_back(fills_at_step(block_length, steps, s));
    return n;
  };
  CHECK(all(8, 0, 10) == std::vector<int>(10, 1));
  CHECK(all(8, 8, 10) == std::vector<int>(10, 1));
  CHECK(all(8, 3, 6) == (std::vector<int>{3, 3, 2, 1, 1, 1}));
  CHECK(all(4, 1, 3) == (std::vector<int>{4, 1, 1}));
  CHECK(all(4, 6, 8) == std::vector<int>(8, 1));  // more steps than positions: at least 1
  CHECK(all(64, 10, 5) == (std::vector<int>{7, 7, 7, 7, 6}));
}

TEST("strategies: tables") {
  const std::vector<float> score{0.5f, 0.95f, 0.2f, 0.95f};
  using enum Strategy;
  CHECK(choose(low_confidence_dynamic, 4, 0, 0b1111, score) == 0b1010);
  CHECK(choose(low_confidence_dynamic, 4, 0, 0b0101, score) == 0b0001);         // none sure: the best one
  CHECK(choose(low_confidence_dynamic, 1, 0, 0b1111, score) == 0b1111);         // n_s = 4 > 2 sure ones
  CHECK(choose(low_confidence_dynamic, 2, 0, 0b0111, score) == 0b0011);         // n_s = 2 > 1 sure one
  CHECK(choose(low_confidence_dynamic, 4, 0, 0b1111, score, 0.95f) == 0b0010);  // not above: the best, lower on a tie
  CHECK(choose(low_confidence_static, 4, 0, 0b1111, score) == 0b0010);
  CHECK(choose(low_confidence_static, 2, 0, 0b1111, score) == 0b1010);
  CHECK(choose(low_confidence_static, 1, 0, 0b0101, score) == 0b0101);  // at most what is masked
  CHECK(choose(low_confidence_static, 1, 5, 0b1101, score) == 0b1000);  // beyond the steps: one at a time
  CHECK(choose(sequential, 4, 0, 0b1110, score) == 0b0010);
  CHECK(choose(sequential, 3, 0, 0b1110, score) == 0b0110);
  CHECK(choose(sequential, 1, 0, 0b1010, score) == 0b1010);
  CHECK(choose(entropy_bounded, 4, 0, 0b1111, score) == 0b0101);        // 0.2 + 0.5 < 0.9
  CHECK(choose(entropy_bounded, 4, 0, 0b1111, score, 0.7f) == 0b0100);  // the sum must stay below
  CHECK(choose(entropy_bounded, 4, 0, 0b1010, score, 0.1f) == 0b0010);  // at least one, lower on a tie
  CHECK(choose(entropy_bounded, 4, 0, 0b1111, score, 100.0f) == 0b1111);
  // Confidences in order 0.95, 0.95, 0.5, 0.2: the products are 0, 0.05, 1.5 and 4.8.
  CHECK(choose(pairwise_factor, 4, 0, 0b1111, score, 0) == 0b0010);  // at least one, lower on a tie
  CHECK(choose(pairwise_factor, 4, 0, 0b1111, score, 0.9f) == 0b1010);
  CHECK(choose(pairwise_factor, 4, 0, 0b1111, score, 1.5f) == 0b1010);  // must stay below
  CHECK(choose(pairwise_factor, 4, 0, 0b1111, score, 1.6f) == 0b1011);
  CHECK(choose(pairwise_factor, 4, 0, 0b1111, score, 5) == 0b1111);
  CHECK(choose(pairwise_factor, 4, 0, 0b0101, score, 0.9f) == 0b0101);  // 0.8: fewer need be less sure
  CHECK(choose(pairwise_factor, 2, 0, 0b1111, score, 0) == 0b1010);     // n_s = 2
  CHECK(choose(pairwise_factor, 1, 0, 0b0101, score, 0) == 0b0101);     // at most what is masked
  for (int s = 0; s < kStrategies; s++) CHECK(choose(static_cast<Strategy>(s), 4, 0, 0, score) == 0);
}

TEST("strategies: all 64 positions of the longest block") {
  std::vector<float> score(64);
  for (int i = 0; i < 64; i++) score[i] = static_cast<float>(i + 1) / 64;
  using enum Strategy;
  CHECK(choose(low_confidence_static, 64, 0, ~uint64_t{0}, score) == uint64_t{1} << 63);
  CHECK(choose(low_confidence_dynamic, 1, 0, ~uint64_t{0}, score) == ~uint64_t{0});
  CHECK(choose(sequential, 1, 0, ~uint64_t{0}, score) == ~uint64_t{0});
  CHECK(choose(sequential, 64, 0, uint64_t{1} << 63, score) == uint64_t{1} << 63);
  CHECK(choose(entropy_bounded, 64, 0, ~uint64_t{0}, score, 1e9f) == ~uint64_t{0});
  CHECK(choose(pairwise_factor, 64, 0, ~uint64_t{0}, score, 1e9f) == ~uint64_t{0});
  CHECK(choose(pairwise_factor, 64, 0, ~uint64_t{0}, score, 0) == uint64_t{1} << 63);
}

TEST("strategies: random blocks give what sorting gives") {
  std::mt19937_64 random(7);
  const auto below = [&](uint64_t n) { return static_cast<int>(random() % n); };
  for (int round = 0; round < 20000; round++) {
    const int block_length = 1 + below(64);
    const int levels = below(2) ? 5 : 1 << 20;  // few levels: many ties
    std::vector<float> confidence(block_length), entropy(block_length);
    for (float& c : confidence) c = static_cast<float>(below(levels)) / static_cast<float>(levels);
    for (float& e : entropy)
      e = static_cast<float>(below(levels)) / static_cast<float>(levels) * (below(2) ? 1.0f : 0.05f);
    uint64_t masked = random();
    if (below(3) == 0) masked &= random();
    if (block_length < 64) masked &= (uint64_t{1} << block_length) - 1;
    const DenoiseParams params{.strategy = static_cast<Strategy>(below(kStrategies)),
                               .steps = below(block_length + 4),
                               .threshold = static_cast<float>(below(11)) / 10,
                               .entropy_bound = static_cast<float>(below(40)) / 20,
                               .factor = static_cast<float>(below(60)) / 10};
    const int step = below(block_length + 2);
    const uint64_t chosen = choose_positions(params, block_length, step, masked, confidence.data(), entropy.data());
    CHECK(chosen == naive_choice(params, block_length, step, masked, confidence, entropy));
    CHECK((chosen & ~masked) == 0);
    CHECK((chosen == 0) == (masked == 0) || params.strategy == Strategy::self_verified);
    CHECK(chosen != 0 || std::popcount(masked) != 1);
  }
}

TEST("self_verified: a verification is worth it where it brings more than two forwards do without") {
  const auto chosen = [](const std::vector<float>& confidence, uint64_t masked, float threshold, int steps = 0) {
    return choose(Strategy::self_verified, steps, 0, masked, confidence, threshold);
  };
  const std::vector<float> sure{0.95f, 0.8f, 0.9f, 0.3f};  // 1, then 0.95, 0.76, 0.684: 3.394 tokens
  CHECK(chosen(sure, 0b1111, 0.9f) == 0);                  // one above the threshold
  CHECK(chosen(sure, 0b1111, 0.85f) == 0b0101);            // two
  CHECK(chosen(sure, 0b1111, 0.99f) == 0 && chosen(sure, 0b1111, 1) == 0);
  CHECK(chosen(sure, 0b1111, 0.2f) == 0b1111);                       // all: nothing is left to verify
  CHECK(chosen(sure, 0b0011, 0.9f) == 0b0001);                       // 1.95 tokens of two masked positions
  CHECK(chosen(sure, 0b1110, 0.95f) == 0);                           // 1 + 0.8 + 0.72
  CHECK(chosen(sure, 0b1111, 1, 2) == 0b0101);                       // n_s = 2 without it
  CHECK(chosen({0.5f, 0.9f, 0.9f, 0.9f}, 0b1111, 0.95f) == 0);       // 1 + 0.5 + 0.45 + 0.405
  CHECK(chosen({0.3f, 0.9f, 0.9f, 0.9f}, 0b1111, 0.95f) == 0b0010);  // 1 + 0.3 + 0.27 + 0.243: the best one
}

TEST("pairwise_factor: a larger factor, and more confidence anywhere, fill a superset") {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<float> uniform(0, 1);
  for (int round = 0; round < 5000; round++) {
    const int block_length = 1 + static_cast<int>(random() % 64);
    std::vector<float> confidence(block_length);
    for (float& c : confidence) c = 1 - uniform(random) * uniform(random);
    const uint64_t masked = block_length < 64 ? random() & ((uint64_t{1} << block_length) - 1) : random();
    const float factor = 4 * uniform(random);
    const auto chosen = [&](float f) { return choose(Strategy::pairwise_factor, 64, 0, masked, confidence, f); };
    const uint64_t before = chosen(factor);
    CHECK((before & ~chosen(factor + uniform(random))) == 0);
    CHECK(masked == 0 || count_bits(chosen(0)) == 1);
    if (before == 0) continue;
    confidence[best_position(before, confidence.data(), -1)] = 1;
    CHECK((before & ~chosen(factor)) == 0);
  }
}

TEST("strategies: a NaN still makes progress") {
  const std::vector<float> score(8, std::nanf(""));
  for (int s = 0; s < kStrategies; s++) CHECK(choose(static_cast<Strategy>(s), 8, 0, 0b10110, score) != 0);
}

int main(int c, char** v) { return check::run(c, v); }
