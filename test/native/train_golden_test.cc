// Losses and gradients of whole networks against those of a float32 PyTorch reference (test/golden/train-*.json), in bf16
// within what its operands' rounding makes of them.
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "check.h"
#include "model/config.h"
#include "train/network.h"
#include "train/recipe.h"

using namespace sdar;
using namespace sdar::train;

namespace {

TrainingRows rows_of(const nlohmann::json& c) {
  std::vector<Sample> samples;
  std::vector<Noise> noise;
  for (size_t i = 0; i < c["ids"].size(); i++) {
    samples.push_back({c["ids"][i].get<std::vector<int32_t>>(), c["answer"][i].get<std::vector<uint8_t>>()});
    if (c["kind"] == "sdar") noise.push_back({c["masked"][i].get<std::vector<uint8_t>>(), c["p"][i].get<float>()});
  }
  return c["kind"] == "sdar" ? sdar_rows(samples, noise, c["block"], c["mask_id"]) : autoregressive_rows(samples);
}

struct Tolerance {
  double loss, gradients;  ///< of the loss; of a tensor's norm
};

void compare(const std::string& name, Format format = Format::f32, Tolerance allowed = {1e-4, 1e-4}) {
  const std::string folder = "test/golden/" + name;
  const ModelConfig config = read_config(folder);
  std::ifstream file("test/golden/train-" + name + ".json");
  const nlohmann::json cases = nlohmann::json::parse(file)["cases"];
  Compute compute(2, "", format);
  Network network(config, compute);
  const std::vector<float> weights = read_parameters(folder, config, network.layout());
  int compared = 0;
  for (const nlohmann::json& c : cases) {
    std::vector<float> gradients(weights.size());
    const double expected = c["loss"];
    CHECK_NEAR(network.loss_and_gradients(weights.data(), rows_of(c), gradients.data()), expected,
               allowed.loss * expected);
    CHECK(c["gradients"].size() == network.layout().parameters().size());
    for (const Parameter& p : network.layout().parameters()) {
      const nlohmann::json& gradient = c["gradients"][p.name];
      const float* g = gradients.data() + p.offset;
      double squares = 0;
      for (int64_t i = 0; i < p.elements(); i++) squares += static_cast<double>(g[i]) * g[i];
      const double norm = gradient["norm"];
      CHECK_NEAR(std::sqrt(squares), norm, allowed.gradients * norm + 1e-7);
      const auto first = gradient["first"].get<std::vector<double>>();
      for (size_t i = 0; i < first.size(); i++) CHECK_NEAR(g[i], first[i], allowed.gradients * norm + 1e-7);
      compared++;
    }
  }
  CHECK(compared > 0);
}

}  // namespace

TEST("losses and gradients: 5 heads on 1, untied") { compare("tiny-ar"); }
TEST("losses and gradients: tied, from bf16") { compare("tiny-ar-tied"); }
TEST("losses and gradients: experts, not renormalised") { compare("tiny-ar-moe"); }

TEST("bf16: losses within 0.3 %, gradients within 5 % of a tensor's norm") {
  for (const char* name : {"tiny-ar", "tiny-ar-tied"}) compare(name, Format::bf16, {3e-3, 5e-2});
}

int main(int argc, char** argv) { return check::run(argc, argv); }
