// Which launches an op is: forward() calls the recorder's ops, and they are kept in a LaunchGraph.
#pragma once
#include <cstdint>
#include <map>
#include <span>

#include "backend/cuda/graph.h"
#include "backend/cuda/step_input.h"
#include "backend/cuda/workspace.h"
#include "backend/ops.h"

namespace sdar::cuda {

/// A matrix in weight tiles, or a vector or the router in `values`.
struct DeviceWeight final : Weight {
  DeviceMatrix matrix;
  const float* values = nullptr;
};
inline const DeviceWeight& held(const Weight& weight) { return static_cast<const DeviceWeight&>(weight); }

/// A model on a device, as launches refer to it.
struct DeviceModel {
  ModelShape shape;
  int32_t mask_id = 0;
  int32_t multiprocessors = 0;
  bool dependent_launch = false;  ///< GEMMs may begin while the launch before them runs
  bool warpgroup_mma = false;     ///< gemm_warpgroup runs here and gives gemm's bits
  bool wide_experts = false;      ///< gemm_grouped_wide takes experts of more than 8 rows
  DevicePages pages;
  Workspace work;
  StepBuffers buffers;
  float* logits = nullptr;  ///< [kLmHeadChunk, vocabulary], once a step has needed them
  /// Device arrays of the experts' weights, by the span that MoeArgs names them with.
  std::map<const Weight* const*, const uint8_t**> experts;
};

class LaunchRecorder final : public Ops {
 public:
  /// logits: where the host wants those of all sampled rows, or null.
  LaunchRecorder(const DeviceModel& model, const StepInput& input, LaunchGraph& graph, float* logits)
      : model_(model), input_(input), graph_(graph), logits_(logits) {}

  /// Before and after the forward pass: which rows are sampled; select and unmask.
  void gather_rows();
  void select_unmask();

  const StepBuffers& buffers() const override { return model_.buffers; }
  void embed(const EmbedArgs& args) override;
  void norm_linear(const NormLinearArgs& args) override;
  void attention(const AttentionArgs& args) override;
  void linear_add(const LinearAddArgs& args) override;
  void moe(const MoeArgs& args) override;
  void lm_head(const LmHeadArgs& args) override;

 private:
  void gemm(const DeviceWeight& weight, const uint16_t* tiles, int32_t tokens, Epilogue epilogue, float* out);
  void rms_norm(const float* x, const Weight& weight, const int32_t* rows, uint16_t* tiles, int32_t tokens);

  const DeviceModel& model_;
  const StepInput& input_;
  LaunchGraph& graph_;
  float* logits_;
};

}  // namespace sdar::cuda
