// The CUDA backend: ops become launches, asked for at once or kept in a list (launch_list.h) by the runner.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/device.h"
#include "backend/cuda/launch_list.h"
#include "backend/cuda/step_input.h"
#include "backend/cuda/workspace.h"

namespace sdar::cuda {

/// A matrix in slabs, or a vector or the router in `values`.
struct DeviceWeight final : Weight {
  DeviceMatrix matrix;
  const float* values = nullptr;
};

class CudaBackend final : public Backend {
 public:
  /// Throws Error: UNSUPPORTED_DEVICE when the card cannot run the kernels, OUT_OF_MEMORY.
  CudaBackend(const SdarCudaInterface& interface, int32_t index, int threads);

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
  void configure(const ModelShape& shape, const CacheShape& cache, int32_t max_rows) override;
  int32_t buffer_rows(int32_t max_rows) const override;
  float* allocate(size_t floats) override;
  std::unique_ptr<StepRunner> make_runner(int32_t mask_id, StepWalk walk, bool timed) override;

  void begin_step(std::span<const Segment> segments, int32_t rows) override;
  void embed(const Weight& table, std::span<const int32_t> ids, float* x) override;
  void norm_linear(const NormLinearArgs& args) override;
  void attention(const sdar::AttentionArgs& args) override;
  void linear_add(const LinearAddArgs& args) override;
  void moe(const MoeArgs& args) override;
  void head(const sdar::LmHeadArgs& args) override;
  void finish_step() override;

  // For the runner.
  Device& card() { return device_; }
  StepInput& input() { return *input_; }
  /// Ops and emit() add to `list` until it is null again; embed's ids and head's requests are then those on the device.
  void record(LaunchList* list) { recording_ = list; }
  template <Kernel kernel>
  void emit(const ParamsOf<kernel>& arguments) {
    if (recording_) {
      recording_->add<kernel>(arguments);
    } else {
      device_.launch(kernel, &arguments, sizeof arguments);
    }
  }
  /// Memory that sampling steps need beyond others; taken, of what configure() reserved, when the first one comes.
  void prepare_sampling();

 private:
  void begin_kind(LaunchList::Kind kind) {
    if (recording_) recording_->begin_kind(kind);
  }
  void product(const DeviceWeight& weight, const uint16_t* tiles, int32_t tokens, Epilogue epilogue, float* out);
  void norm(const float* x, const Weight& weight, const int32_t* rows, uint16_t* tiles, int32_t tokens);
  const uint8_t* const* expert_pointers(std::span<const Weight* const> experts);
  void list_on_host(const sdar::LmHeadArgs& args);
  void head_turns(const DeviceWeight& weight, SampledRows lists, bool sampling, float* logits);

  Device device_;
  int threads_;
  bool early_ = false;       ///< products may begin while the launch before them runs
  bool warpgroups_ = false;  ///< gemm_warpgroup runs here and gives gemm's bits
  Arena weights_, memory_;
  ModelShape shape_;
  int32_t rows_capacity_ = 0;  ///< of buffers
  DevicePages pages_;
  Workspace work_;
  std::unique_ptr<StepInput> input_;
  float* logits_ = nullptr;  ///< [kLmHeadChunk, vocabulary]
  std::map<const Weight* const*, const uint8_t**> experts_;
  LaunchList* recording_ = nullptr;
  std::string advice_;  ///< how weights of another format would fit
};

SampledToken host_result(const DeviceSampledToken& result);
inline const DeviceWeight& held(const Weight& weight) { return static_cast<const DeviceWeight&>(weight); }

}  // namespace sdar::cuda
