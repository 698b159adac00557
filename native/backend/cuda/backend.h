// The CUDA backend. A step's launches are recorded by forward() the first time its shape comes up and replayed from then
// on: which requests they are for is data in memory. Blocks are denoised on the device, so that the host waits once a
// step.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/device.h"
#include "backend/cuda/graph.h"
#include "backend/cuda/recorder.h"
#include "backend/cuda/step_input.h"

namespace sdar::cuda {

class CudaBackend final : public Backend {
 public:
  /// Shapes of steps kept; when there are more, all are recorded anew as they come up.
  static constexpr size_t kMaxShapes = 256;

  /// Throws Error: UNSUPPORTED_DEVICE when the GPU cannot run the kernels, OUT_OF_MEMORY.
  CudaBackend(const SdarCudaInterface& interface, int32_t index, const Options& options);

  std::string device() const override { return "cuda:" + std::to_string(device_.index()); }
  std::string isa() const override;
  /// For packing: steps need none.
  int threads() const override { return threads_; }
  std::string layout_id() const override { return "cuda-slabs-2"; }

  size_t packed_bytes(const WeightSpec& spec) const override;
  int64_t pack_units(const WeightSpec& spec) const override;
  void pack(const WeightSpec& spec, std::span<const SourceTensor> parts, int64_t unit_begin, int64_t unit_end,
            std::byte* packed) const override;
  bool begin_adopting(size_t bytes, WeightFormat format) override;
  std::unique_ptr<Weight> adopt(const WeightSpec& spec, const std::byte* packed) override;

  size_t page_bytes(const ModelShape& shape, KvFormat format) const override;
  std::optional<int64_t> cache_memory(const ModelShape& shape, int32_t max_rows) const override;
  void configure(const ModelShape& shape, const CacheShape& cache, const ModelWeights& weights,
                 const RunOptions& options) override;

  std::span<const SequenceResult> run(const Step& step) override;
  bool can_verify() const override { return false; }
  int32_t max_sequences() const override { return kMaxSlots; }
  /// All 0 unless RunOptions::time_ops: timestamps separate launches that would follow one another at once.
  const StepSeconds& seconds() const override { return seconds_; }

  /// Steps that ran launches recorded before.
  int64_t replayed() const { return replayed_; }

 private:
  void upload_expert_pointers(std::span<const Weight* const> experts);
  LaunchGraph& recorded();
  void record(LaunchGraph& graph, float* logits);
  void wait_quietly() noexcept;
  void share_ranked(const Step& step);
  void take_result(const StepSequence& sequence, const DenoiseOutcome& outcome, SequenceResult& result) const;

  Device device_;
  int threads_;
  Arena weights_, memory_;
  std::string advice_;  ///< how weights of another format would fit
  const ModelWeights* model_ = nullptr;
  RunOptions options_;
  DeviceModel state_;
  std::unique_ptr<StepInput> input_;
  std::map<StepShape, std::unique_ptr<LaunchGraph>> graphs_;
  uint64_t version_ = 0;  ///< of the input, that the graphs are for
  int64_t replayed_ = 0;
  std::vector<SequenceResult> results_;
  StepSeconds seconds_;
};

}  // namespace sdar::cuda
