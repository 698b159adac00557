// Objectives: views of one clean half against the published rows, their masks, and what a sample draws.
#include <algorithm>
#include <set>

#include "check.h"
#include "train/recipe.h"
#include "train_networks.h"

using namespace sdar;
using namespace sdar::train;

namespace {

constexpr int32_t kMask = 2, kPad = 3;

/// Ids 4 … 36; the answer is what follows the prompt.
Sample sample_of(int32_t prompt, int32_t answer, uint32_t seed) {
  Sample sample;
  for (int32_t i = 0; i < prompt + answer; i++) {
    sample.ids.push_back(static_cast<int32_t>(4 + (seed * 31 + static_cast<uint32_t>(i) * 17) % 33));
    sample.answer.push_back(i >= prompt);
  }
  return sample;
}

std::vector<Sample> samples() {
  return {sample_of(5, 9, 1), sample_of(0, 3, 2), sample_of(8, 8, 3), sample_of(13, 1, 4)};
}

Recipe recipe_of(int32_t views, std::vector<int32_t> blocks, int32_t pad_id = kPad) {
  return {
      .objective = Objective::views, .blocks = std::move(blocks), .views = views, .mask_id = kMask, .pad_id = pad_id};
}

Sample padded(Sample sample, int32_t block) {
  while (sample.ids.size() % static_cast<size_t>(block) != 0) sample.ids.push_back(kPad), sample.answer.push_back(1);
  return sample;
}

/// The same objective as rows [x_t | x_0] of each view: what view rows leave out sees or teaches nothing.
TrainingRows as_published(const TrainingRows& rows, const std::vector<Sample>& all, int32_t block, int32_t views) {
  TrainingRows full;
  size_t row = 0;
  for (const Sample& unpadded : all) {
    const Sample sample = padded(unpadded, block);
    const size_t length = sample.ids.size(),
                 last = (length - 1) / static_cast<size_t>(block) * static_cast<size_t>(block);
    size_t begin = 0;
    while (!sample.answer[begin]) begin++;
    begin -= begin % static_cast<size_t>(block);
    row += last;
    for (int32_t v = 0; v < views; v++) {
      std::vector<int32_t> noisy = sample.ids;
      const size_t base = full.ids.size();
      for (size_t j = begin; j < length; j++) noisy[j] = rows.ids[row + j - begin];
      add_noisy_and_clean(full, noisy, sample.ids, block);
      for (size_t j = begin; j < length; j++, row++) {
        full.weights[base + j] = rows.weights[row];
        full.targets[base + j] = rows.targets[row];
      }
    }
  }
  CHECK(row == rows.ids.size());
  return full;
}

}  // namespace

TEST("views of one clean half have the loss and gradients of whole copies") {
  const ModelConfig config = config_of(true, 0);
  Compute compute(2);
  Network network(config, compute);
  const std::vector<float> weights = weights_of(network.layout());
  for (const int32_t block : {1, 4, 8}) {
    const Recipe recipe = recipe_of(3, {block});
    const TrainingRows rows = rows_of(recipe, samples(), 7, 11), full = as_published(rows, samples(), block, 3);
    CHECK(rows.size() < full.size());
    std::vector<float> got(weights.size()), expected(weights.size());
    const double loss = network.loss_and_gradients(weights.data(), full, expected.data());
    CHECK_NEAR(network.loss_and_gradients(weights.data(), rows, got.data()), loss, 1e-5 * loss);
    for (size_t i = 0; i < got.size(); i++) CHECK_NEAR(got[i], expected[i], 1e-5);
  }
}

TEST("a block of a view has 1 to all of its answer masked, and nothing else") {
  const int32_t block = 8, views = 4;
  for (uint64_t first = 0; first < 50; first++) {
    const Sample sample = sample_of(5, 14, static_cast<uint32_t>(first)), whole = padded(sample, block);
    const TrainingRows rows = rows_of(recipe_of(views, {block}), std::vector{sample}, 1, first);
    CHECK(rows.size() == 16 + views * 24);
    for (int32_t b = 0; b < 3; b++) {
      std::vector<int> strata(static_cast<size_t>(views));
      for (int32_t v = 0; v < views; v++) {
        int masked = 0, answers = 0;
        double weight = 0;
        for (int32_t j = b * block; j < (b + 1) * block; j++) {
          const size_t row = static_cast<size_t>(16 + v * 24 + j), at = static_cast<size_t>(j);
          const bool noisy = rows.ids[row] == kMask;
          CHECK(rows.ids[row] == (noisy ? kMask : whole.ids[at]));
          CHECK(noisy == (rows.weights[row] > 0) &&
                (!noisy || (whole.answer[at] && rows.targets[row] == whole.ids[at])));
          CHECK(rows.positions[row] == j);
          masked += noisy, answers += whole.answer[at], weight += rows.weights[row];
        }
        CHECK(masked >= 1);
        CHECK_NEAR(weight, static_cast<double>(answers) / (views * 19.0), 1e-6);
        strata[static_cast<size_t>((masked * views + answers - 1) / answers - 1)]++;
      }
      // Blocks of 8 and 4 views: two counts of masked positions to each.
      if (b > 0) CHECK(strata == std::vector<int>(static_cast<size_t>(views), 1));
    }
  }
}

TEST("complementary views mask between them all of an answer") {
  Recipe recipe = recipe_of(4, {8});
  recipe.complementary = true;
  for (uint64_t first = 0; first < 50; first++) {
    const Sample sample = sample_of(5, 14, static_cast<uint32_t>(first));
    const TrainingRows rows = rows_of(recipe, std::vector{sample}, 1, first);
    const Sample whole = padded(sample, 8);
    for (int32_t v = 0; v < 4; v += 2) {
      for (int32_t b = 0; b < 24; b += 8) {
        int masked[2] = {}, both = 0, answers = 0;
        for (int32_t j = b; j < b + 8; j++) {
          const bool noisy[2] = {rows.ids[static_cast<size_t>(16 + v * 24 + j)] == kMask,
                                 rows.ids[static_cast<size_t>(16 + (v + 1) * 24 + j)] == kMask};
          for (int i = 0; i < 2; i++) masked[i] += noisy[i];
          both += noisy[0] && noisy[1], answers += whole.answer[static_cast<size_t>(j)];
        }
        // Where the first masks everything, the second draws its own.
        CHECK(masked[0] == answers ? masked[1] >= 1 : both == 0 && masked[0] + masked[1] == answers);
      }
    }
  }
}

TEST("with a suffix the last of a block's answer are masked, in the share of blocks that is asked for") {
  for (const double share : {0.0, 0.5, 1.0}) {
    Recipe recipe = recipe_of(2, {8});
    recipe.suffix = share, recipe.complementary = true;
    int blocks = 0, suffixes = 0, unlike = 0;
    for (uint64_t first = 0; first < 200; first++) {
      const Sample sample = padded(sample_of(5, 14, static_cast<uint32_t>(first)), 8);
      const TrainingRows rows = rows_of(recipe, std::vector{sample}, 1, first);
      for (int32_t b = 8; b < 24; b += 8, blocks++) {
        int masked[2] = {}, steps[2] = {};
        for (int32_t v = 0; v < 2; v++) {
          for (int32_t j = b; j < b + 8; j++) {
            const size_t row = static_cast<size_t>(16 + v * 24 + j);
            const bool noisy = rows.ids[row] == kMask;
            masked[v] += noisy;
            steps[v] += noisy != (j > b && rows.ids[row - 1] == kMask);
          }
        }
        // One change from shown to masked, and none back, in both views.
        const auto last = [&](int v) {
          return steps[v] == 1 && rows.ids[static_cast<size_t>(16 + v * 24 + b + 7)] == kMask;
        };
        suffixes += last(0) && last(1), unlike += masked[0] != masked[1];
      }
    }
    // Both views of a random pair are suffixes only where one masks everything.
    CHECK_NEAR(suffixes, share * blocks, 0.15 * blocks);
    if (share == 1) CHECK(suffixes == blocks && unlike == blocks);
  }
}

TEST("with a full mask the first view has nothing of an answer, and the second one draws how much") {
  Recipe recipe = recipe_of(2, {8});
  recipe.full_mask = recipe.complementary = true;
  std::set<int> counts;
  for (uint64_t i = 0; i < 200; i++) {
    const TrainingRows rows = rows_of(recipe, std::vector{sample_of(8, 8, 1)}, 3, i);
    // x_0 of the prompt's block, then the answer's block twice.
    const auto masked = [&](int64_t view) {
      const auto begin = rows.ids.begin() + 8 + 8 * view;
      return static_cast<int>(std::count(begin, begin + 8, kMask));
    };
    CHECK(rows.size() == 24 && masked(0) == 8);
    for (size_t j = 8; j < 24; j++) CHECK((rows.weights[j] > 0) == (rows.ids[j] == kMask));
    counts.insert(masked(1));
  }
  CHECK(counts.size() == 8 && *counts.begin() == 1);
}

TEST("blocks that grow come one after the other") {
  Recipe recipe = recipe_of(1, {2, 4, 8});
  recipe.growth = true;
  for (const auto& [progress, block] : {std::pair(0.0, 2), {0.3, 2}, {0.34, 4}, {0.6, 4}, {0.67, 8}, {1.0, 8}}) {
    const Sample sample = sample_of(9, 8, 1);
    const int32_t end = (17 + block - 1) / block * block;
    CHECK(rows_of(recipe, std::vector{sample}, 1, 0, progress).size() == end - block + end - 8);
  }
}

TEST("what a sample draws depends on the seed and its number alone") {
  const Recipe recipe = recipe_of(2, {4, 8});
  const std::vector<Sample> all = samples();
  const TrainingRows together = rows_of(recipe, all, 5, 100);
  std::vector<int32_t> apart;
  for (size_t i = 0; i < all.size(); i++) {
    const TrainingRows one = rows_of(recipe, std::span(all).subspan(i, 1), 5, 100 + i);
    apart.insert(apart.end(), one.ids.begin(), one.ids.end());
    CHECK(one.size() <= row_count(recipe, all[i]));
  }
  CHECK(together.ids == apart);
  CHECK(rows_of(recipe, all, 6, 100).ids != together.ids);
  CHECK(rows_of(recipe, all, 5, 101).ids != together.ids);
  std::set<int64_t> sizes;
  for (uint64_t i = 0; i < 20; i++) sizes.insert(rows_of(recipe, std::span(all).first(1), 5, i).size());
  CHECK(sizes.size() == 2);  // both block lengths are drawn
}

TEST("recipes that cannot be are refused by name") {
  const auto refused = [](const char* part, const Recipe& recipe) {
    CHECK_THROWS("INVALID_OPTION", part, rows_of(recipe, samples(), 1, 0));
  };
  refused("recipe.views is 0", recipe_of(0, {8}));
  refused("recipe.blocks", recipe_of(1, {}));
  Recipe full = recipe_of(1, {8});
  full.full_mask = true;
  refused("recipe.views is 1; allowed: 2 to 64", full);
  Recipe suffix = recipe_of(1, {8});
  suffix.suffix = 1.5;
  refused("recipe.suffix is 1.5", suffix);
  refused("recipe.blocks is 0", recipe_of(1, {4, 0}));
  Recipe unmasked = recipe_of(1, {4});
  unmasked.mask_id = -1;
  refused("recipe.mask_id is -1", unmasked);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
