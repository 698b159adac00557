#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "backend/cuda/library.h"
#include "check.h"
#include "device.h"
#include "util/error.h"

namespace sdar::cuda {
extern "C" const SdarCudaInterface* sdar_cuda_interface(uint32_t version);  // backend/cuda/abi/runtime.cc, linked in
}

namespace gpu_bench {

using sdar::Error;
using Json = nlohmann::ordered_json;

namespace {

constexpr int kLeastMajor = 8;          // bf16 mma and cp.async
constexpr double kGraphSeconds = 4e-4;  // of work in a graph, so that the events beside it do not count
constexpr int kMostLaunches = 100;
constexpr int kLeastRuns = 5, kMostRuns = 40;
constexpr double kRunSeconds = 0.012;

std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

[[noreturn]] void unsupported(const std::string& why) { throw Error(sdar::code::kUnsupportedDevice, why); }

}  // namespace

void succeed(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  throw Error(status == cudaErrorMemoryAllocation ? sdar::code::kOutOfMemory : sdar::code::kInternal,
              what + ": " + cudaGetErrorString(status));
}

Json open_card(const Options& options) {
  int driver = 0, runtime = 0, count = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (driver == 0)
    unsupported(
        "no NVIDIA driver answers on this machine (libcuda.so.1 was not found); --device cpu measures the engine "
        "without a card");
  if (status == cudaErrorInsufficientDriver)
    unsupported("the driver knows CUDA " + version(driver) + "; this program needs " + version(runtime) + " or newer");
  if (status != cudaSuccess || count == 0)
    unsupported(std::string("no card answers: ") + cudaGetErrorString(status) + "; see nvidia-smi");
  const int index = options.device_index();
  if (index >= count)
    unsupported("--device " + options.device + ": there are " + std::to_string(count) + " cards, numbered from 0");
  cudaDeviceProp card;
  succeed(cudaGetDeviceProperties(&card, index), "reading the card's properties");
  if (card.major < kLeastMajor)
    unsupported(std::string(card.name) + " is sm_" + std::to_string(card.major) + std::to_string(card.minor) +
                "; the kernels need sm_80 (A100, RTX 30) or newer");
  succeed(cudaSetDevice(index), "opening " + options.device);
  sdar::cuda::use_interface(sdar::cuda::sdar_cuda_interface(sdar::cuda::kAbiVersion));
  return {{"name", card.name},
          {"architecture", "sm_" + std::to_string(card.major) + std::to_string(card.minor)},
          {"multiprocessors", card.multiProcessorCount},
          {"memoryBytes", card.totalGlobalMem},
          {"l2Bytes", card.l2CacheSize},
          {"sharedBytes", card.sharedMemPerBlockOptin},
          {"driver", version(driver)},
          {"runtime", version(runtime)}};
}

Json card_memory() {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return nullptr;
  return {{"used", total - free}, {"free", free}, {"total", total}};
}

int run_oracle_tests(int argc, char** argv) {
  Options options;
  if (argc > 1 && std::strncmp(argv[1], "cuda:", 5) == 0) {
    options.device = argv[1];
    argc--, argv++;
  }
  try {
    open_card(options);
  } catch (const Error& e) {
    std::printf("1..0 # SKIP %s\n", e.what());
    return 2;
  }
  return check::run(argc, argv);
}

Timer::Timer() {
  succeed(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  succeed(cudaEventCreate(&begin_), "making an event");
  succeed(cudaEventCreate(&end_), "making an event");
}

Timer::~Timer() {
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
  cudaStreamDestroy(stream_);
}

cudaGraphExec_t Timer::record(const std::function<void(sdar::cuda::Stream, int)>& launch, int count) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  succeed(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a graph");
  try {
    for (int i = 0; i < count; i++) launch(stream_, i);
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    cudaGraphDestroy(graph);
    throw;
  }
  succeed(cudaStreamEndCapture(stream_, &graph), "recording a graph");
  const cudaError_t status = cudaGraphInstantiateWithFlags(&exec, graph, 0);
  cudaGraphDestroy(graph);
  succeed(status, "making a graph");
  return exec;
}

double Timer::run(cudaGraphExec_t graph) {
  float ms = 0;
  succeed(cudaEventRecord(begin_, stream_), "timing");
  succeed(cudaGraphLaunch(graph, stream_), "running a graph");
  succeed(cudaEventRecord(end_, stream_), "timing");
  succeed(cudaEventSynchronize(end_), "a kernel");
  succeed(cudaEventElapsedTime(&ms, begin_, end_), "timing");
  return 1e-3 * ms;
}

double Timer::seconds(const std::function<void(sdar::cuda::Stream, int)>& launch) {
  constexpr int kTrial = 4;
  launch(stream_, 0);  // what is loaded at its first launch is loaded before the capture
  succeed(cudaStreamSynchronize(stream_), "a kernel");
  cudaGraphExec_t graph = record(launch, kTrial);
  run(graph);
  const double trial = std::max(1e-7, run(graph) / kTrial);
  const int count = std::clamp(static_cast<int>(kGraphSeconds / trial), kTrial, kMostLaunches);
  if (count != kTrial) {
    cudaGraphExecDestroy(graph);
    graph = record(launch, count);
    run(graph);
  }
  const int runs = std::clamp(static_cast<int>(kRunSeconds / (trial * count)), kLeastRuns, kMostRuns);
  std::vector<double> times;
  for (int i = 0; i < runs; i++) times.push_back(run(graph) / count);
  cudaGraphExecDestroy(graph);
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<size_t>(runs / 2)];
}

}  // namespace gpu_bench
