// Loading on a card: what fits is taken, "auto" goes back to the CPU, a load from the cache can be stopped.
#include <algorithm>
#include <filesystem>
#include <random>

#include "backend/cuda/backend.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/library.h"
#include "check.h"
#include "golden_cases.h"
#include "harness.h"
#include "simt/device.h"
#include "simt/memory.h"

namespace fs = std::filesystem;
using namespace sdar;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// The host executor as the card, of 8 GB until a test says otherwise.
struct Executor {
  Executor() { cuda::use_interface(&cuda_host::device_interface()); }
  ~Executor() {
    cuda_host::set_device_memory_limit(size_t{8} << 30);
    cuda::use_interface(nullptr);
  }
};
/// So many bytes are free from now on.
void leave(size_t bytes) { cuda_host::set_device_memory_limit(cuda_host::allocated_bytes() + bytes); }

EngineOptions options_of(const char* device) {
  return {.path = "models/sdar-nano", .device = device, .threads = 1, .max_rows = 128};
}

/// A layer under a vocabulary that makes logits larger than what is kept free.
ModelConfig wide() { return cuda_host::smallest_config(100000, 0); }

}  // namespace

TEST("the default cache is what the card has room for, even if that is less than the model's context") {
  const Executor executor;
  const size_t before = cuda_host::allocated_bytes();
  size_t page = 0, other = 0;  // bytes of a page, and of all else that is allocated
  {
    const auto model = load_model(options_of("cuda"), {});
    page = model->page_bytes;
    CHECK(model->cache.pages * kPageSlots == 64 * model->config.shape.context);
    other = cuda_host::allocated_bytes() - before - page * static_cast<size_t>(model->cache.pages);
  }
  leave(other + 65 * kMiB + 8 * page);  // 64 MiB are kept free
  harness::Runner runner(options_of("cuda"));
  const int64_t pages = runner.engine().model().cache.pages;
  CHECK(pages >= 2 && pages * kPageSlots < runner.engine().model().config.shape.context);
  Request request = golden::request_of(golden::cases("sdar-nano")[0]);
  request.max_tokens = 4;
  CHECK(runner.run({request})[0].error.empty());
}

TEST("the cache that is said to fit does fit, and samples then have their memory too") {
  const Executor executor;
  leave(400 * kMiB);
  EngineOptions options = options_of("cuda");
  options.kv_tokens = int64_t{1} << 24;
  std::string message;
  try {
    random_model(wide(), options, 1, {});
  } catch (const Error& e) {
    message = e.what();
  }
  const std::string before = "kvCache: { tokens: ";
  const size_t at = message.find(before);
  CHECK(at != std::string::npos);
  if (at == std::string::npos) return;
  options.kv_tokens = std::stoll(message.substr(at + before.size()));
  CHECK(options.kv_tokens > 10000);
  const auto model = random_model(wide(), options, 1, {});
  const SamplingParams sampling{.temperature = 1};
  const std::vector<int32_t> ids(4, model->config.mask_token_id), pages = {0};
  Step step;
  step.add({.segment = {.rows = 4, .position = 0, .block_length = 4, .pages = pages.data()},
            .ids = ids.data(),
            .denoise = true,
            .masked = 15,
            .sampling = &sampling});
  CHECK(model->backend->run(step)[0].finite);
}

TEST("auto computes on the CPU when the GPU has no room, or cannot run the library, and says why") {
  const Executor executor;
  int64_t reported = -1, falls = 0, end = 0;
  const WeightHooks hooks{.progress = [&](int64_t done, int64_t total) {
    falls += done < reported;
    reported = done, end = total;
  }};
  CHECK(load_model(options_of("auto"), hooks)->cuda_unavailable.empty());
  reported = -1;
  leave(12 * kMiB);  // the weights, and no cache
  auto model = load_model(options_of("auto"), hooks);
  CHECK(model->backend->device() == "cpu");
  CHECK(model->cuda_unavailable.find("the workspace do not fit on cuda:0 (host executor)") != std::string::npos);
  CHECK(falls == 0 && reported == end && end > 0);
  CHECK_THROWS("OUT_OF_MEMORY", "the workspace do not fit on cuda:0", load_model(options_of("cuda"), {}));
  cuda_host::set_device_memory_limit(size_t{8} << 30);

  cuda_host::break_launch(1);
  model = load_model(options_of("auto"), {});
  CHECK(model->backend->device() == "cpu" &&
        model->cuda_unavailable.find("SDAR_CUDA_ARCHITECTURES=86") != std::string::npos);
  cuda_host::break_launch(0);
  CHECK(random_model(wide(), options_of("auto"), 1, {})->backend->device() == "cuda:0");
  CHECK_THROWS("ABORTED", "cancelled", load_model(options_of("auto"), {.cancelled = [] { return true; }}));
}

TEST("weights that come from the cache are told as they reach the GPU, and can be stopped between two") {
  const Executor executor;
  const fs::path folder = fs::temp_directory_path() / ("sdar-load-" + std::to_string(std::random_device{}()));
  const auto backend = cuda::make_backend({.threads = 1});
  const EngineOptions options = options_of("cuda");
  const ModelConfig config = read_config(options.path);
  const auto load = [&](WeightHooks hooks) {
    hooks.cache = {.folder = folder.string(), .above = 0, .stream_above = 0};
    return load_weights(*backend, options.path, config, WeightFormat::bf16, hooks);
  };
  std::vector<int64_t> reports;
  int64_t end = 0;
  const auto progress = [&](int64_t done, int64_t total) {
    reports.push_back(done);
    end = total;
  };
  const ModelWeights written = load({.progress = progress});  // through the file to the GPU
  CHECK(!written.cache && !written.memory && written.embedding && !fs::is_empty(folder));
  CHECK(std::is_sorted(reports.begin(), reports.end()) && reports.back() == end);
  reports.clear();
  load({.progress = progress});
  CHECK(reports.size() > 10 && std::is_sorted(reports.begin(), reports.end()) && reports.back() == end);
  CHECK(reports[0] < end / 2);
  reports.clear();
  CHECK_THROWS("ABORTED", "loading was cancelled",
               load({.progress = progress, .cancelled = [&] { return reports.size() >= 5; }}));
  CHECK(reports.size() == 5);
  fs::remove_all(folder);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
