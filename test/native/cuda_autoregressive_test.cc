// Autoregressive sequences on the CUDA backend under host execution: the CPU's tokens, and the same bits whether rows
// are decided one at a time or several in one step.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "backend/cuda/cuda.h"
#include "backend/cuda/library.h"
#include "bench/shapes.h"
#include "check.h"
#include "harness.h"
#include "simt/device.h"

using namespace sdar;

namespace {

EngineOptions options_of(const char* device, const std::string& path = "models/qwen3-nano") {
  return {.path = path,
          .device = device,
          .weights = WeightFormat::bf16,
          .threads = 1,
          .kv_tokens = 4096,
          .max_rows = 256,
          .prefill_rows = 100,
          .prefix_cache = false};
}

struct Executor {
  Executor() { cuda::use_interface(&cuda_host::device_interface()); }
  ~Executor() { cuda::use_interface(nullptr); }
};

std::vector<int32_t> prompt(int length) {
  std::vector<int32_t> ids;
  for (int i = 0; i < length; i++) ids.push_back((i * 7919 + length) % 550);
  return ids;
}

}  // namespace

TEST("the CPU's tokens; the same bits alone and together") {
  const Executor executor;
  std::vector<Request> requests;
  for (const int length : {64, 70, 17}) {
    Request r;
    r.tokens = prompt(length);
    r.max_tokens = 3;
    r.ignore_eos = true;
    if (length == 17) r.temperature = 0.8f, r.seed = 4;
    requests.push_back(r);
  }
  const auto want = harness::Runner(options_of("cpu")).run(requests);
  harness::Runner device(options_of("cuda"));
  const auto together = device.run(requests);
  for (size_t i = 0; i < requests.size(); i++) {
    CHECK(together[i].tokens.size() == 3 && together[i].forwards == 3);
    for (size_t k = 0; requests[i].temperature == 0 && k < 3; k++)
      CHECK(together[i].tokens[k].id == want[i].tokens[k].id);
    if (i % 2) CHECK(device.run({requests[i]})[0].same(together[i]));
  }
}

TEST("rows of one step decide what they decide one after the other") {
  const Executor executor;
  for (const float temperature : {0.9f, 0.0f}) {
    if (harness::quick() && temperature == 0) continue;
    auto model = load_model(options_of("cuda"), {});
    const std::vector<int32_t> ids = prompt(70), pages{4, 2}, other_pages{0, 3};
    const SamplingParams sampling{
        .denoise = {.strategy = Strategy::sequential, .steps = 1}, .temperature = temperature, .seed = 11};
    const auto run = [&](const std::vector<int32_t>& at, int position, int rows, int window) {
      Step step;
      step.add({.segment = {.rows = rows, .position = position, .block_length = 1, .pages = at.data()},
                .ids = ids.data() + position,
                .denoise = window > 0,
                .window = window,
                .ahead = 1,
                .masked = window > 0 ? (uint64_t{1} << window) - 1 : 0,
                .sampling = &sampling});
      return model->backend->run(step)[0];
    };
    const int first = 62, window = 4;
    const SequenceResult all = run(pages, 0, first + window, window);
    CHECK(all.finite && all.filled == 0xf);
    run(other_pages, 0, first, 0);
    for (int i = 0; i < window; i++) {
      const SequenceResult one = run(other_pages, first + i, 1, 1);
      CHECK(one.filled == 1 && one.at[0].token == all.at[i].token);
      CHECK(one.at[0].logprob == all.at[i].logprob && one.at[0].confidence == all.at[i].confidence);
    }
  }
}

TEST("biases of the projections: the CPU's tokens") {
  const Executor executor;
  std::string folder = (std::filesystem::temp_directory_path() / "sdar-bias-XXXXXX").string();
  CHECK(mkdtemp(folder.data()));
  ModelConfig config = shape_config("sdar-nano", 2);
  config.shape.attention_bias = true;
  write_checkpoint(folder + "/model", config, {});
  std::vector<Request> requests;
  for (const int length : {9, 12}) {
    Request r;
    r.tokens = prompt(length);
    r.max_tokens = 4;
    r.ignore_eos = true;
    requests.push_back(r);
  }
  const auto want = harness::Runner(options_of("cpu", folder + "/model")).run(requests);
  const auto got = harness::Runner(options_of("cuda", folder + "/model")).run(requests);
  for (size_t i = 0; i < requests.size(); i++) {
    CHECK(got[i].tokens.size() == 4);
    for (size_t k = 0; k < 4; k++) {
      CHECK(got[i].tokens[k].id == want[i].tokens[k].id);
      CHECK_NEAR(got[i].tokens[k].logprob, want[i].tokens[k].logprob, 0.02);
    }
  }
  std::filesystem::remove_all(folder);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
