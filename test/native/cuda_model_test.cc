// The whole of sdar-nano on the CUDA backend under host execution: the CPU backend's tokens, the same bits alone, in
// any batch and in any order of fibers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "backend/cuda/backend.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/library.h"
#include "check.h"
#include "generations.h"
#include "harness.h"
#include "simt/device.h"
#include "simt/executor.h"
#include "simt/memory.h"

using namespace sdar;
using namespace generations;

namespace {

const char kNano[] = "models/sdar-nano";
const bool kFull = std::getenv("SDAR_TEST_FULL") != nullptr;

EngineOptions options_of(const char* device, WeightFormat weights = WeightFormat::bf16) {
  return {.path = kNano,
          .device = device,
          .weights = weights,
          .threads = 1,
          .max_concurrent = 128,
          .kv_tokens = 32768,
          .max_rows = 1024,
          .prefill_rows = 512,
          .prefix_cache = false};
}

/// Steps that ran launches recorded before.
int64_t replayed(harness::Runner& r) {
  return dynamic_cast<const cuda::CudaBackend&>(*r.engine().model().backend).replayed();
}

/// Under sanitizers everything is slow: fewer requests, one order.
const int kCount = harness::quick() ? 4 : 20;
const uint64_t kOrders = harness::quick() ? 1 : 3;

struct Executor {
  Executor() { cuda::use_interface(&cuda_host::device_interface()); }
  ~Executor() { cuda::use_interface(nullptr); }
};

}  // namespace

TEST("the CPU's tokens with every strategy, in a mixed batch, in three orders of fibers, and alone") {
  const Executor executor;
  // Each case with one strategy, or with all of them.
  std::vector<Request> requests;
  for (int shift = 0; shift < (kFull ? kGpuStrategies : 1); shift++)
    for (Request& r : requests_of(kCount, shift)) requests.push_back(std::move(r));
  const Results want = harness::Runner(options_of("cpu")).run(requests);
  Results first;
  for (uint64_t order = 1; order <= kOrders; order++) {
    cuda_host::set_seed(order);
    harness::Runner mixed(options_of("cuda"));
    // The other orders of a short run take fewer requests.
    const size_t count = kFull || order == 1 ? requests.size() : std::min<size_t>(requests.size(), 8);
    const Results got = mixed.run({requests.begin(), requests.begin() + static_cast<std::ptrdiff_t>(count)});
    if (order == 1) first = got;
    check_same(got, first, "in another order");
    const Differences d = differences(got, {want.begin(), want.begin() + static_cast<std::ptrdiff_t>(count)});
    CHECK(d.tokens == 0);
    const auto stats = mixed.engine().stats();
    std::printf(
        "# order %d: %zu requests in %d steps, %d of them launches that were recorded before; %d other tokens "
        "than on the CPU, %d at other steps\n",
        int(order), count, int(stats.steps), int(replayed(mixed)), d.tokens, d.steps);
    CHECK(replayed(mixed) > stats.steps / 4);
    CHECK(stats.max_sequences >= int(count) / 2);
  }
  harness::Runner alone(options_of("cuda"));
  const int64_t before = replayed(alone);
  for (size_t i = 0; i < requests.size(); i += kFull ? 1 : 3) {
    const harness::Result got = alone.run({requests[i]})[0];
    if (!got.same(first[i])) check::fail(__FILE__, __LINE__, "request " + std::to_string(i) + " differs alone");
  }
  CHECK(replayed(alone) > before);
}

TEST("samples, biases and suppressed ids: the same bits alone, in a batch and the second time") {
  const Executor executor;
  const auto requests = sampled(harness::quick() ? 3 : 8);
  harness::Runner device(options_of("cuda"));
  const Results together = device.run(requests);
  check_same(device.run(requests), together, "the second time");
  for (size_t i = 0; i < requests.size(); i += 2) CHECK(device.run({requests[i]})[0].same(together[i]));
}

namespace {

/// A small mixture of experts of random weights.
ModelConfig experts() {
  ModelConfig config;
  config.shape = {.layers = 2,
                  .hidden = 136,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 64,
                  .vocabulary = 300,
                  .context = 512,
                  .experts = 8,
                  .experts_per_token = 3,
                  .moe_intermediate = 72};
  config.model_type = "sdar_moe";
  config.tied = true;
  config.mask_token_id = 299;
  config.norm_topk_prob = true;
  config.sparse = {true, true};
  return config;
}

}  // namespace

TEST("a mixture of experts: the CPU's logits; the same bits alone and together") {
  const Executor executor;
  const auto model_on = [](const char* device) { return random_model(experts(), options_of(device), 5, {}); };
  const auto cpu = model_on("cpu"), gpu = model_on("cuda");
  std::vector<int32_t> pages = {3, 1, 0, 2}, ids(24);
  for (int32_t i = 0; i < 24; i++) ids[i] = i % 2 ? i * 37 % 299 : 299;  // every other one is masked
  std::vector<std::vector<float>> logits;
  for (Model* m : {cpu.get(), gpu.get()}) {
    // All masked positions are sampled: each block is a sequence of its own, of the same pages.
    const SamplingParams greedy;
    Step step;
    for (int32_t at = 0; at < 24; at += 4)
      step.add({.segment = {.rows = 4, .position = at, .block_length = 4, .pages = pages.data()},
                .ids = ids.data() + at,
                .denoise = true,
                .masked = 5,
                .sampling = &greedy});
    logits.emplace_back(size_t{12} * 300);
    step.logits = logits.back().data();
    m->backend->run(step);
  }
  double largest = 0, difference = 0;
  for (size_t i = 0; i < logits[0].size(); i++) {
    largest = std::max(largest, std::abs(double{logits[0][i]}));
    difference = std::max(difference, std::abs(double{logits[0][i]} - logits[1][i]));
  }
  std::printf("# largest logit %.3f, largest difference %.5f\n", largest, difference);
  CHECK(largest > 0.1 && difference < 0.02 * largest);

  std::vector<Request> requests = requests_of(harness::quick() ? 3 : 6, 0);
  for (Request& r : requests) {
    for (int32_t& id : r.tokens) id %= 299;
    r.max_tokens = 8;
  }
  harness::Runner together(model_on("cuda"), options_of("cuda")), alone(model_on("cuda"), options_of("cuda"));
  const Results want = together.run(requests);
  for (size_t i = 0; i < requests.size(); i += 2) CHECK(alone.run({requests[i]})[0].same(want[i]));
}

TEST("int8 and int4 weights: nearly always the CPU's tokens, whose activations are rounded otherwise") {
  const Executor executor;
  const auto requests = requests_of(harness::quick() ? 2 : 5, 0);
  for (const WeightFormat weights : {WeightFormat::int8, WeightFormat::int4}) {
    const Results got = harness::Runner(options_of("cuda", weights)).run(requests);
    const Differences d = differences(got, harness::Runner(options_of("cpu", weights)).run(requests));
    std::printf("# %s: %d of %zu requests have other tokens than on the CPU\n", name_of(weights), d.tokens,
                requests.size());
    CHECK(d.tokens <= 1);
  }
}

TEST("pages that ran out, prompts in chunks and a step of more rows than fit: the same bits") {
  const Executor executor;
  auto requests = requests_of(6, 2);
  for (Request& r : requests) r.max_tokens = 10;
  // One of several pages, so that chunks of keys are merged, and wide items appear.
  std::vector<int32_t> prompt;
  for (int i = 0; i < 300; i++) prompt.push_back(requests[i % 6].tokens[i % 12]);
  requests[0].tokens = prompt;
  requests[0].max_tokens = 3;
  const Results wide = harness::Runner(options_of("cuda")).run(requests);
  EngineOptions narrow = options_of("cuda");
  narrow.max_rows = 130, narrow.prefill_rows = 64, narrow.kv_tokens = 512;
  check_same(harness::Runner(narrow).run(requests), wide, "in narrow steps");
}

TEST("a GPU that breaks fails what runs and all that comes later") {
  const Executor executor;
  const auto requests = requests_of(2, 0);
  harness::Runner runner(options_of("cuda"));
  CHECK(runner.run({requests[0]})[0].error.empty());
  cuda_host::break_launch(20);
  const Results broken = runner.run(requests);
  cuda_host::break_launch(0);
  for (const auto& r : broken) {
    CHECK(r.error == "DEVICE_FAILED");
    CHECK(r.message.find("cuda:0 (host executor) failed: an illegal memory access") == 0);
  }
  CHECK(runner.run({requests[0]})[0].error == "DEVICE_FAILED");
  CHECK(runner.engine().stats().failure == broken[0].message);
  CHECK(harness::Runner(options_of("cuda")).run({requests[0]})[0].error.empty());  // another engine is not touched
}

TEST("out of memory says what was asked, what is free, and what would fit") {
  const Executor executor;
  cuda_host::set_device_memory_limit(cuda_host::allocated_bytes() + (size_t{3} << 20));
  CHECK_THROWS("OUT_OF_MEMORY",
               "10 MiB for the weights do not fit on cuda:0 (host executor), where 3 MiB of 8192 MiB are free: "
               "weights: \"int8\" takes about",
               load_model(options_of("cuda"), {}));
  cuda_host::set_device_memory_limit(cuda_host::allocated_bytes() + (size_t{200} << 20));
  EngineOptions much = options_of("cuda");
  much.kv_tokens = 1 << 20;
  CHECK_THROWS("OUT_OF_MEMORY", "MiB for the KV cache of 1048576 tokens and the workspace do not fit",
               load_model(much, {}));
  CHECK_THROWS("OUT_OF_MEMORY", "kvCache: { tokens: ", load_model(much, {}));
  cuda_host::set_device_memory_limit(size_t{8} << 30);
}

TEST("what this backend cannot run is refused by name; auto takes the CPU then") {
  const Executor executor;
  CHECK_THROWS("UNSUPPORTED_DEVICE", "device \"cuda\" cannot run weights f32; allowed: bf16, int8, int4",
               load_model(options_of("cuda", WeightFormat::f32), {}));
  EngineOptions kv = options_of("cuda:0");
  kv.kv_format = KvFormat::int8;
  CHECK_THROWS("UNSUPPORTED_DEVICE", "device \"cuda:0\" cannot run kvCache.dtype int8; allowed: bf16",
               load_model(kv, {}));
  EngineOptions isa = options_of("cuda");
  isa.isa = "avx2";
  CHECK_THROWS("INVALID_OPTION", "isa", load_model(isa, {}));
  CHECK(load_model(options_of("auto", WeightFormat::f32), {})->backend->device() == "cpu");
  CHECK(load_model(options_of("auto"), {})->backend->device() == "cuda:0");
  Request verified = requests_of(1, 0)[0];
  verified.denoise.strategy = Strategy::self_verified;
  harness::Runner runner(options_of("cuda"));
  CHECK_THROWS("INVALID_OPTION", "denoise.strategy is \"self_verified\"; on cuda:0 allowed: any other",
               runner.submit(verified));
  CHECK_THROWS("UNSUPPORTED_DEVICE", "this machine has one GPU, cuda:0", load_model(options_of("cuda:1"), {}));
  CHECK_THROWS("UNSUPPORTED_DEVICE", "allowed: auto, cpu, cuda, cuda:N", load_model(options_of("cuda:x"), {}));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
