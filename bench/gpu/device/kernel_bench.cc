#include "kernel_bench.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "bench/shapes.h"
#include "card_limits.h"
#include "util/error.h"

namespace gpu_bench {

using namespace sdar;
using Json = nlohmann::ordered_json;

namespace {

constexpr size_t kPoolBytes = size_t{2} << 30;  // many times any L2, and the largest head
constexpr int64_t kLimitBytes = int64_t{1} << 30;
constexpr int kMostCopies = 64;
constexpr double kMeasureSeconds = 0.1;  // of one kernel, all told
constexpr int kMmaRounds = 2000;
constexpr int64_t kLtSize = 8192;

int multiprocessors() {
  int device = 0, count = 0;
  succeed(cudaGetDevice(&device), "asking for the card");
  succeed(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "asking for multiprocessors");
  return count;
}

double cublaslt_rate(Timer& timer) {
  const auto lt = CublasLt::open();
  if (!lt || !lt->prepare(kLtSize, kLtSize, kLtSize, true)) return 0;
  const size_t count = static_cast<size_t>(kLtSize * kLtSize);
  const DeviceArray<uint16_t> a(count), b(count), c(count);
  fill_bf16(nullptr, a.get(), kLtSize * kLtSize, 1);
  fill_bf16(nullptr, b.get(), kLtSize * kLtSize, 2);
  succeed(cudaDeviceSynchronize(), "filling");
  const double seconds = timer.seconds([&](cuda::Stream s, int) { lt->multiply(s, a.get(), b.get(), c.get()); });
  return 2.0 * kLtSize * kLtSize * kLtSize / seconds;
}

}  // namespace

Json measure_limits() {
  size_t free = 0, total = 0;
  succeed(cudaMemGetInfo(&free, &total), "asking for free memory");
  const int64_t bytes = std::min<int64_t>(kLimitBytes, static_cast<int64_t>(free / 4) / (1 << 20) * (1 << 20));
  Timer timer;
  Json limits;
  {
    const DeviceArray<uint8_t> from(static_cast<size_t>(bytes)), to(static_cast<size_t>(bytes));
    fill_bf16(nullptr, reinterpret_cast<uint16_t*>(from.get()), bytes / 2, 3);
    succeed(cudaDeviceSynchronize(), "filling");
    const DeviceArray<uint32_t> out(1);
    limits["copy"] = 2.0 * static_cast<double>(bytes) /
                     timer.seconds([&](cuda::Stream s, int) { copy_memory(s, from.get(), to.get(), bytes); });
    limits["read"] = static_cast<double>(bytes) /
                     timer.seconds([&](cuda::Stream s, int) { read_memory(s, from.get(), out.get(), bytes); });
  }
  const int blocks = 2 * multiprocessors();
  const DeviceArray<float> out(static_cast<size_t>(blocks) * kMmaWarps * 32);
  const double seconds =
      timer.seconds([&](cuda::Stream s, int) { multiply_registers(s, out.get(), blocks, kMmaRounds); });
  limits["mma"] = kMmaOperations * kMmaPerRound * kMmaRounds * kMmaWarps * blocks / seconds;
  const double rate = cublaslt_rate(timer);
  limits["cublasLt"] = rate > 0 ? Json(rate) : Json();
  limits["cardState"] = card_state();
  return limits;
}

KernelBench::KernelBench(const Options& o, const Json& limits, Budget& b)
    : options(o),
      budget(b),
      lt(CublasLt::open()),
      bandwidth_(std::max(limits["copy"].get<double>(), limits["read"].get<double>())),
      tensor_peak_(limits["mma"]) {}

Json* KernelBench::measure(const std::string& kernel, const std::string& shape, const std::string& weights,
                           const std::string& size, const Work& work, const Launch& launch) {
  const std::string what = kernel + ", " + shape + ", " + weights + ", " + size;
  if (!budget.allows(kMeasureSeconds, what)) return nullptr;
  double seconds = 0;
  try {
    succeed(cudaDeviceSynchronize(), "preparing");
    seconds = timer.seconds(launch);
  } catch (const Error& e) {
    budget.skipped.push_back(what + ": " + e.what());
    return nullptr;
  }
  Json j{{"kernel", kernel},
         {"shape", shape},
         {"weights", weights},
         {"size", size},
         {"microseconds", 1e6 * seconds},
         {"bytes", work.bytes},
         {"operations", work.operations}};
  j["ofBandwidth"] = work.bytes / seconds / bandwidth_;
  j["ofTensorPeak"] = work.operations > 0 ? Json(work.operations / seconds / tensor_peak_) : Json();
  results.push_back(j);
  std::printf("# %s: %.1f µs, %.0f %% of bandwidth\n", what.c_str(), 1e6 * seconds,
              100 * work.bytes / seconds / bandwidth_);
  return &results.back();
}

const DeviceArray<uint8_t>& KernelBench::weights(WeightFormat format) {
  if (!pool_) {
    size_t free = 0, total = 0;
    succeed(cudaMemGetInfo(&free, &total), "asking for free memory");
    pool_ = std::make_unique<DeviceArray<uint8_t>>(std::min(kPoolBytes, free / 3));
  }
  if (pool_format_ != static_cast<int>(format)) {
    fill_weight_tiles(nullptr, pool_->get(), static_cast<int64_t>(pool_->size()) / cuda::weight_tile_bytes(format),
                      format, 4);
    succeed(cudaDeviceSynchronize(), "filling weights");
    pool_format_ = static_cast<int>(format);
  }
  return *pool_;
}

int KernelBench::copies(size_t bytes) const {
  if (bytes > pool_->size())
    throw Error(code::kOutOfMemory, "a weight of " + std::to_string(bytes >> 20) + " MiB; there is room for " +
                                        std::to_string(pool_->size() >> 20) + " MiB");
  return static_cast<int>(std::clamp<size_t>(pool_->size() / bytes, 1, kMostCopies));
}

std::unique_ptr<DeviceArray<uint16_t>> random_tiles(int tokens, int columns) {
  const int64_t count = cuda::activation_elements(tokens, columns);
  auto tiles = std::make_unique<DeviceArray<uint16_t>>(static_cast<size_t>(count));
  fill_bf16(nullptr, tiles->get(), count, 5);
  return tiles;
}

std::unique_ptr<DeviceArray<float>> random_floats(size_t count, float low, float high) {
  auto values = std::make_unique<DeviceArray<float>>(count);
  fill_f32(nullptr, values->get(), static_cast<int64_t>(count), low, high, 6);
  return values;
}

Json measure_kernels(const Options& options, const Json& limits, Budget& budget) {
  KernelBench bench(options, limits, budget);
  const auto group = [&](const char* name, const NamedShape& model, void (*measure)(KernelBench&, const NamedShape&)) {
    try {
      measure(bench, model);
    } catch (const Error& e) {
      budget.skipped.push_back(std::string(name) + " of " + model.name + ": " + e.what());
    }
  };
  for (const std::string& name : options.shapes) {
    const NamedShape model{name, shape_config(name == "tiny" ? "sdar-nano" : name).shape};
    if (model.shape.experts == 0) group("gemm", model, measure_gemm);
    group("lm_head", model, measure_lm_head);
    group("attention", model, measure_attention);
    group("rows", model, measure_rows);
    if (model.shape.experts > 0) group("experts", model, measure_experts);
  }
  const NamedShape sparse{"sdar-30b-a3b", shape_config("sdar-30b-a3b").shape};
  if (std::find(options.shapes.begin(), options.shapes.end(), sparse.name) == options.shapes.end())
    group("experts", sparse, measure_experts);
  return bench.results;
}

}  // namespace gpu_bench
