// Recorded launches as graphs, on a device that keeps launches instead of running them while it captures: the same bits
// as one by one, also when it has no memory for a graph or a launch.
#include <cstddef>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "backend/cuda/library.h"
#include "check.h"
#include "harness.h"
#include "simt/device.h"

using namespace sdar;

namespace sdar::cuda {
struct SdarCudaGraph {
  std::vector<std::pair<int32_t, std::vector<std::byte>>> launches;  ///< below 0: stamp −1 − kernel
};
}  // namespace sdar::cuda

namespace {

using namespace sdar::cuda;

struct State {
  int room = 1000;       ///< graphs that the device has memory for
  int bad_captures = 0;  ///< of the next captures one launch is refused
  int asked = 0, held = 0, replays = 0, stamps = 0;
  bool capturing = false, captured_badly = false, replay_fails = false;
  SdarCudaGraph captured = {};
} state;

const SdarCudaInterface& plain = cuda_host::device_interface();

int32_t refuse(SdarCudaError* error, const char* code, const char* message) {
  std::snprintf(error->code, sizeof error->code, "%s", code);
  std::snprintf(error->message, sizeof error->message, "%s", message);
  return 1;
}
int32_t out_of_memory(SdarCudaError* error) { return refuse(error, code::kOutOfMemory, "out of memory (a graph)"); }

/// The host executor with graphs.
struct Executor {
  SdarCudaInterface interface = plain;
  explicit Executor(State s = {}) {
    state = std::move(s);
    interface.launch = [](SdarCudaDevice* d, int32_t kernel, const void* arguments, size_t bytes, SdarCudaError* e) {
      if (!state.capturing) return plain.launch(d, kernel, arguments, bytes, e);
      if (state.bad_captures > 0 && state.captured.launches.size() == 2) {
        state.captured_badly = true;
        return refuse(e, code::kDeviceFailed, "operation would make the legacy stream depend on a capture");
      }
      const auto* begin = static_cast<const std::byte*>(arguments);
      state.captured.launches.push_back({kernel, {begin, begin + bytes}});
      return 0;
    };
    interface.record_timestamp = [](SdarCudaDevice* d, int32_t index, SdarCudaError* e) {
      state.stamps++;
      if (!state.capturing) return plain.record_timestamp(d, index, e);
      state.captured.launches.push_back({-1 - index, {}});
      return 0;
    };
    interface.begin_capture = [](SdarCudaDevice*, SdarCudaError*) {
      CHECK(!state.capturing);
      state.capturing = true;
      return 0;
    };
    interface.end_capture = [](SdarCudaDevice*, SdarCudaGraph** to, SdarCudaError* error) {
      CHECK(state.capturing);
      state.capturing = false;
      const SdarCudaGraph captured = std::exchange(state.captured, {});
      if (std::exchange(state.captured_badly, false)) {
        state.bad_captures--;
        return refuse(error, code::kDeviceFailed, "the capture was invalidated");
      }
      if (++state.asked > state.room) return out_of_memory(error);
      state.held++;
      *to = new SdarCudaGraph(captured);
      return 0;
    };
    interface.replay = [](SdarCudaDevice* d, SdarCudaGraph* graph, SdarCudaError* error) {
      if (state.replay_fails) return out_of_memory(error);
      state.replays++;
      for (const auto& [kernel, bytes] : graph->launches)
        if (kernel < 0 ? plain.record_timestamp(d, -1 - kernel, error)
                       : plain.launch(d, kernel, bytes.data(), bytes.size(), error) != 0)
          return 1;
      return 0;
    };
    interface.release_graph = [](SdarCudaDevice*, SdarCudaGraph* graph) {
      state.held--;
      delete graph;
    };
    use_interface(&interface);
  }
  ~Executor() { use_interface(nullptr); }
};

const EngineOptions kOptions{.device = "cuda", .threads = 1, .kv_tokens = 4096, .max_rows = 64, .prefix_cache = false};

std::unique_ptr<Model> small_model() { return random_model(cuda_host::smallest_config(200, 199), kOptions, 3, {}); }

std::vector<harness::Result> run(harness::Runner& runner) {
  std::vector<Request> requests(3);
  for (int32_t i = 0; i < 3; i++) {
    Request& r = requests[static_cast<size_t>(i)];
    r.tokens = {3 + i, 40, 7, 90 + i};
    r.max_tokens = 24;
    r.block_length = 4;
    r.denoise.steps = 4;
  }
  return runner.run(requests);
}
std::vector<harness::Result> run() {
  harness::Runner runner(small_model(), kOptions);
  return run(runner);
}

void check_same(const std::vector<harness::Result>& a, const std::vector<harness::Result>& b) {
  for (size_t i = 0; i < a.size(); i++) CHECK(a[i].error.empty() && a[i].same(b[i]));
}

}  // namespace

TEST("graphs compute what single launches do, and those without memory for one go on with single launches") {
  use_interface(&plain);
  const auto want = run();
  {
    const Executor executor;
    check_same(run(), want);
    std::printf("# %d graphs, replayed %d times\n", state.asked, state.replays);
    CHECK(state.replays > 5 && state.asked > 0 && state.held == 0);
  }
  {
    const Executor executor({.room = 0});
    check_same(run(), want);
    CHECK(state.asked == 1 && state.replays == 0);  // it is not asked for again
  }
  {
    const Executor executor({.room = 1});
    check_same(run(), want);
    CHECK(state.asked == 2 && state.replays > 0 && state.held == 0);  // the one that it has is used
  }
  {
    const Executor executor({.bad_captures = 1});  // the library does without what was refused from then on
    check_same(run(), want);
    CHECK(state.replays > 5 && state.bad_captures == 0 && state.held == 0);
  }
  {
    const Executor executor({.bad_captures = 2});
    check_same(run(), want);
    CHECK(state.asked == 0 && state.replays == 0 && state.bad_captures == 0);
  }
  {
    const Executor executor({.replay_fails = true});
    check_same(run(), want);
    CHECK(state.asked == 1 && state.held == 0);
  }
}

TEST("the time of a step in parts, when asked for") {
  use_interface(&plain);
  const auto want = run();
  const Executor executor;
  for (const bool timed : {false, true}) {
    EngineOptions options = kOptions;
    options.time_steps = timed;
    harness::Runner runner(random_model(cuda_host::smallest_config(200, 199), options, 3, {}), options);
    check_same(run(runner), want);
    const EngineStats stats = runner.engine().stats();
    const StepSeconds& s = stats.seconds;
    if (!timed) {
      CHECK(state.stamps == 0 && s.sum() == 0);
      continue;
    }
    CHECK(state.stamps > 0 && state.replays > 0);
    CHECK(s.attention > 0 && s.gemm > 0 && s.lm_head > 0 && s.denoise > 0);
    CHECK(s.sum() <= stats.step_seconds * 1.0001);
  }
}

TEST("a launch without memory fails its step alone") {
  use_interface(&plain);
  harness::Runner runner(small_model(), kOptions);
  const auto want = run(runner);
  for (const int at : {1, 9, 30}) {
    cuda_host::break_launch(at, code::kOutOfMemory);
    const auto broken = run(runner);
    cuda_host::break_launch(0);
    CHECK(broken[0].error == "OUT_OF_MEMORY" && broken[0].message.find("cuda:0 (host executor): ") == 0);
    CHECK(runner.engine().stats().failure.empty());
    check_same(run(runner), want);
  }
  use_interface(nullptr);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
