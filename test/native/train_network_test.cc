// The whole network: gradients against central differences on odd shapes, all masks, tied and untied, dense and with
// experts, with and without biases; the same bits whatever the threads and whether activations are kept; rows that are refused.
#include "check.h"
#include "gradients.h"
#include "train/network.h"
#include "train/recipe.h"
#include "train_networks.h"

using namespace sdar;
using namespace sdar::train;

namespace {

std::vector<TrainingRows> batches() {
  std::vector<Sample> samples;
  std::vector<Noise> noise;
  for (const int32_t n : {11, 6}) {
    Sample sample{ids_of(n, 5), std::vector<uint8_t>(static_cast<size_t>(n), 1)};
    sample.answer[0] = sample.answer[1] = 0;
    noise.push_back({std::vector<uint8_t>(static_cast<size_t>(n), 0), 0.4f});
    for (size_t i = 2; i < noise.back().masked.size(); i += 2) noise.back().masked[i] = 1;
    samples.push_back(std::move(sample));
  }
  TrainingRows blocks;
  add_block_causal(blocks, ids_of(13, 7), 4);
  for (size_t i = 0; i < 13; i++) blocks.targets[i] = static_cast<int32_t>(i), blocks.weights[i] = 0.1f;
  return {autoregressive_rows(samples), sdar_rows(samples, noise, 4, 36), blocks};
}

}  // namespace

// Every expert is chosen, or a small step might change which are: choices are in train_ops_test and train_golden_test.
TEST("gradients: all masks, tied with biases and untied without, dense and with experts") {
  Compute compute(2);
  for (const int32_t experts : {0, 3}) {
    for (const bool tied : {false, true}) {
      Network network(config_of(tied, experts, experts, tied), compute);
      std::vector<float> weights = weights_of(network.layout());
      for (const TrainingRows& rows : batches()) {
        std::vector<float> g(weights.size());
        const auto loss = [&] { return network.loss(weights.data(), rows); };
        CHECK(network.loss_and_gradients(weights.data(), rows, g.data()) == loss());
        for (const Parameter& p : network.layout().parameters()) {
          const float* own = g.data() + p.offset;
          const auto n = static_cast<size_t>(p.elements());
          // Small gradients take a larger step, or rounding of the loss would be most of the difference.
          const bool small = p.vector || p.name.find("experts") != std::string::npos;
          gradients::check(loss, weights.data() + p.offset, n, own, p.name.c_str(), small ? 5e-3 : 1e-3);
        }
      }
    }
  }
}

TEST("the same bits with 1, 2 and 3 threads, and with activations kept") {
  for (const int32_t experts : {0, 5}) {
    for (const TrainingRows& rows : batches()) {
      std::vector<float> first;
      for (const int threads : {1, 2, 3}) {
        for (const Activations activations : {Activations::recompute, Activations::keep}) {
          Compute compute(threads);
          Network network(config_of(false, experts), compute, activations);
          const std::vector<float> weights = weights_of(network.layout());
          std::vector<float> g(weights.size());
          const double loss = network.loss_and_gradients(weights.data(), rows, g.data());
          g.push_back(static_cast<float>(loss));
          if (first.empty()) first = g;
          CHECK(g == first);
        }
      }
    }
  }
}

TEST("rows that the model cannot take are refused by name") {
  Compute compute(1);
  Network network(config_of(true, 0), compute);
  const std::vector<float> weights = weights_of(network.layout());
  const auto refused = [&](auto change, const char* code, const char* part) {
    TrainingRows rows = batches()[2];
    change(rows);
    CHECK_THROWS(code, part, network.loss(weights.data(), rows));
  };
  refused([](TrainingRows& r) { r.ids[2] = 37; }, "TOKEN_OUT_OF_RANGE", "id of row 2 is 37; allowed: 0 to 36");
  refused([](TrainingRows& r) { r.targets[3] = -1; }, "TOKEN_OUT_OF_RANGE", "target of row 3 is -1");
  refused([](TrainingRows& r) { r.positions[4] = 64; }, "PROMPT_TOO_LONG", "below max_position_embeddings, 64");
  refused([](TrainingRows& r) { r.sight[5] = {{{0, 14}, {}}}; }, "INVALID_OPTION", "row 5 sees rows outside");
  refused([](TrainingRows& r) { r.sight[5] = {}; }, "INVALID_OPTION", "row 5 sees 0 rows");
  refused([](TrainingRows& r) { r.samples.clear(); }, "INVALID_OPTION", "samples hold 0 of 13 rows");
}

TEST("recipes: weights, noise and what is refused") {
  const Sample sample{ids_of(8, 5), {0, 0, 1, 1, 1, 1, 1, 1}};
  const TrainingRows causal = autoregressive_rows(std::span(&sample, 1));
  CHECK(causal.targets[1] == sample.ids[2]);
  CHECK_NEAR(causal.weights[1], 1.0 / 6, 1e-7);
  CHECK(causal.weights[0] == 0 && causal.weights[7] == 0);
  int masked = 0, total = 0;
  double p = 0;
  for (uint64_t i = 0; i < 400; i++) {
    const Noise noise = draw_noise(sample, 5, i);
    CHECK(noise.p > 0 && noise.p <= 1);
    CHECK(!noise.masked[0] && !noise.masked[1]);
    for (size_t j = 2; j < 8; j++) masked += noise.masked[j], total++;
    p += noise.p / 400;
    CHECK(noise.masked == draw_noise(sample, 5, i).masked);
  }
  CHECK_NEAR(p, 0.5, 0.06);
  CHECK_NEAR(masked / static_cast<double>(total), p, 0.04);
  const Noise noise{std::vector<uint8_t>(8, 1), 0.5f};
  const TrainingRows rows = sdar_rows(std::span(&sample, 1), std::span(&noise, 1), 4, 36);
  CHECK(rows.size() == 16 && rows.ids[3] == 36 && rows.ids[11] == sample.ids[3]);
  CHECK(rows.positions[3] == 3 && rows.positions[11] == 3);
  CHECK_NEAR(rows.weights[3], 1 / (6 * 0.5), 1e-7);
  const Sample none{sample.ids, std::vector<uint8_t>(8, 0)};
  CHECK_THROWS("INVALID_OPTION", "no token of an answer", autoregressive_rows(std::span(&none, 1)));
  CHECK_THROWS("INVALID_OPTION", "block is 0", sdar_rows(std::span(&sample, 1), std::span(&noise, 1), 0, 36));
  CHECK_THROWS("INVALID_OPTION", "noise: of 0 samples", sdar_rows(std::span(&sample, 1), {}, 4, 36));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
