// Answers of given forms on the CUDA backend under host execution: the device tells the candidates, the host combines them.
#include <cstdio>

#include "backend/cuda/cuda.h"
#include "backend/cuda/library.h"
#include "check.h"
#include "formed.h"
#include "simt/device.h"

using namespace sdar;
using namespace formed;

namespace {

struct Executor {
  Executor() { cuda::use_interface(&cuda_host::device_interface()); }
  ~Executor() { cuda::use_interface(nullptr); }
};

EngineOptions options_of(const char* path) {
  return {.path = path,
          .device = "cuda",
          .weights = WeightFormat::bf16,
          .threads = 1,
          .kv_tokens = 2048,
          .max_rows = 256,
          .prefill_rows = 100};
}

}  // namespace

TEST("texts are of their form and within their budget, and the same alone") {
  const Executor executor;
  for (const char* path : {"models/sdar-nano", "models/qwen3-nano"}) {
    Formed formed(options_of(path));
    std::mt19937 random(21);
    std::vector<Request> requests;
    // A quick run has half of the forms with one model, and the others with the other.
    const int first = harness::quick() && path[7] == 'q' ? 1 : 0, step = harness::quick() ? 2 : 1;
    for (int i = first; i < harness::full_or(2 * kFormCount, kFormCount); i += step) {
      Request r = random_request(formed, random, i, path[7] == 'q');
      r.tokens.resize(std::min<size_t>(r.tokens.size(), 5));
      r.max_tokens = std::min(r.max_tokens, static_cast<int32_t>(r.form->least_tokens()) + 3);
      if (r.denoise.strategy == Strategy::self_verified) r.denoise.strategy = Strategy::sequential;
      requests.push_back(r);
    }
    const auto results = formed.runner.run(requests);
    int64_t tokens = 0, forwards = 0;
    for (size_t i = 0; i < results.size(); i++) {
      CHECK(results[i].error.empty());
      CHECK(static_cast<int>(results[i].tokens.size()) <= requests[i].max_tokens);
      if (!formed.valid(requests[i], results[i]))
        check::fail(__FILE__, __LINE__, std::string(path) + ": not of the form " + kForms[formed.form_of(requests[i])]);
      if (i % 5 == 0) CHECK(formed.runner.run({requests[i]})[0].same(results[i]));
      tokens += static_cast<int64_t>(results[i].tokens.size()), forwards += results[i].forwards;
    }
    std::printf("# %s: %zu texts, %.2f tokens per forward\n", path, results.size(), double(tokens) / double(forwards));
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
