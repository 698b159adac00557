// Reference outputs of a float32 PyTorch model: the same tokens, every token's step, and its confidence to 1e-4, in
// every instruction set this machine has, all cases of a model running at once.
#include <cstdio>

#include "check.h"
#include "golden_cases.h"
#include "harness.h"

using nlohmann::json;

namespace {

void compare(const json& c, const harness::Result& result, const std::string& where) {
  const auto output = c["output"].get<std::vector<int32_t>>();
  std::vector<int32_t> ids;
  for (const auto& t : result.tokens) ids.push_back(t.id);
  if (ids != output) check::fail(__FILE__, __LINE__, where + ": other tokens");
  const int wanted = c["finish"] == "end" ? 0 : 2;
  if (result.reason != wanted) check::fail(__FILE__, __LINE__, where + ": finish " + result.message);
  const int block = c["B"], first = int(c["tokens"].size()) / block;
  for (const auto& t : result.tokens) {
    const json& expected = c["trace"].at(t.position / block - first).at(t.position % block);
    if (t.step != expected.at(0).get<int>()) check::fail(__FILE__, __LINE__, where + ": other step");
    CHECK_NEAR(t.confidence, expected.at(1).get<double>(), 1e-4);
  }
}

void compare_all(const std::string& name, const std::string& model) {
  const json cases = golden::cases(name);
  for (const std::string& isa : harness::instruction_sets()) {
    harness::Runner runner({.path = model, .weights = sdar::WeightFormat::f32, .threads = 2, .isa = isa});
    std::vector<sdar::Request> requests;
    for (const json& c : cases) requests.push_back(golden::request_of(c));
    const auto results = runner.run(requests);
    for (size_t i = 0; i < results.size(); i++)
      compare(cases[i], results[i], name + " case " + std::to_string(i) + " " + isa);
    std::printf("# %s: %zu cases in %s\n", name.c_str(), results.size(), isa.c_str());
  }
}

}  // namespace

TEST("golden tiny-dense") { compare_all("tiny-dense", "test/golden/tiny-dense"); }
TEST("golden tiny-f16-sharded") { compare_all("tiny-f16-sharded", "test/golden/tiny-f16-sharded"); }
TEST("golden tiny-tied") { compare_all("tiny-tied", "test/golden/tiny-tied"); }
TEST("golden tiny-moe") { compare_all("tiny-moe", "test/golden/tiny-moe"); }
TEST("golden sdar-nano") { compare_all("sdar-nano", "test/golden/sdar-nano"); }
TEST("golden of the model that ships") { compare_all("shipped", "models/sdar-nano"); }

TEST("golden first logits of the tiny models") {
  for (const char* name : {"tiny-dense", "tiny-f16-sharded", "tiny-tied", "tiny-moe"}) {
    const json cases = golden::cases(name);
    for (const std::string& isa : harness::instruction_sets()) {
      auto model = sdar::load_model(
          {.path = std::string("test/golden/") + name, .weights = sdar::WeightFormat::f32, .isa = isa}, {});
      std::vector<int32_t> pages(64);
      for (int i = 0; i < 64; i++) pages[i] = 63 - i;
      for (const json& c : cases) {
        const int block = c["B"];
        std::vector<int32_t> ids = c["tokens"];
        const int prompt = static_cast<int>(ids.size());
        ids.resize((prompt / block + 1) * block, model->config.mask_token_id);
        const auto positions = c["first_logits"]["positions"].get<std::vector<int>>();
        const int first = int(ids.size()) - block, vocabulary = model->config.shape.vocabulary;
        uint64_t masked = 0;
        for (int p : positions) masked |= uint64_t{1} << (p - first);
        std::vector<float> logits(positions.size() * static_cast<size_t>(vocabulary));
        const sdar::SamplingParams greedy;
        sdar::Step step;
        step.add({.segment = {.rows = int(ids.size()), .position = 0, .block_length = block, .pages = pages.data()},
                  .ids = ids.data(),
                  .denoise = true,
                  .masked = masked,
                  .sampling = &greedy});
        step.logits = logits.data();
        const sdar::SequenceResult& result = model->backend->run(step)[0];
        for (size_t i = 0; i < positions.size(); i++) {
          const json& f = c["first_logits"];
          CHECK(result.at[positions[i] - first].token == f["argmax"][i].get<int>());
          const double scale = std::max(1.0, std::abs(f["max"][i].get<double>()));
          CHECK_NEAR(result.at[positions[i] - first].max, f["max"][i].get<double>(), 1e-4 * scale);
          CHECK_NEAR(result.at[positions[i] - first].logsumexp, f["logsumexp"][i].get<double>(), 1e-4 * scale);
          for (int v = 0; v < 16; v++)
            CHECK_NEAR(logits[i * vocabulary + v], f["head"][i][v].get<double>(), 1e-4 * scale);
        }
      }
    }
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
