// What the measurements of kernels share: a timer, the card's limits, and the list of results.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "backend/backend.h"
#include "backend/cuda/kernels/gemm.h"
#include "cublaslt.h"
#include "device.h"
#include "fill.h"
#include "runtime.h"

namespace gpu_bench {

/// A kernel's least traffic: each input read once, each output written once; operations of the tensor cores that the
/// result needs, two per multiply-add.
struct Work {
  double bytes = 0, operations = 0;
};

class KernelBench {
 public:
  using Launch = std::function<void(sdar::cuda::Stream, int)>;

  KernelBench(const Options& o, const nlohmann::ordered_json& limits, Budget& b);

  /// Times and lists one kernel; null when no time is left or the kernel failed.
  nlohmann::ordered_json* measure(const std::string& kernel, const std::string& shape, const std::string& weights,
                                  const std::string& size, const Work& work, const Launch& launch);
  /// Random packed weights, all that there is room for. `copies` matrices of `bytes` lie in them one after the other.
  const DeviceArray<uint8_t>& weights(sdar::WeightFormat format);
  int copies(size_t bytes) const;

  const Options& options;
  Budget& budget;
  Timer timer;
  std::unique_ptr<CublasLt> lt;
  nlohmann::ordered_json results = nlohmann::ordered_json::array();

 private:
  double bandwidth_, tensor_peak_;
  std::unique_ptr<DeviceArray<uint8_t>> pool_;
  int pool_format_ = -1;
};

/// Random activations in tiles, and other inputs.
std::unique_ptr<DeviceArray<uint16_t>> random_tiles(int tokens, int columns);
std::unique_ptr<DeviceArray<float>> random_floats(size_t count, float low, float high);

struct NamedShape {
  std::string name;
  sdar::ModelShape shape;
};

// One function per group of kernels; `shape` is that of a whole model.
void measure_gemm(KernelBench& bench, const NamedShape& model);
void measure_lm_head(KernelBench& bench, const NamedShape& model);
void measure_attention(KernelBench& bench, const NamedShape& model);
void measure_rows(KernelBench& bench, const NamedShape& model);
void measure_experts(KernelBench& bench, const NamedShape& model);

}  // namespace gpu_bench
