// The whole network (Qwen3, dense or with experts): loss and gradients of a batch of rows, f32
// but for the operands of products, which are of the format of `compute`.
#pragma once
#include <cstdint>
#include <vector>

#include "model/config.h"
#include "train/compute.h"
#include "train/moe.h"
#include "train/ops.h"
#include "train/parameters.h"
#include "train/rows.h"

namespace sdar::train {

/// What the backward pass needs of a layer: kept from the forward pass, or computed again from the layer's input, which
/// costs a forward pass more and saves most of the memory. The results are the same.
enum class Activations : uint8_t { recompute, keep };

class Network {
 public:
  /// `compute` must outlive it. Throws Error(UNSUPPORTED_MODEL).
  Network(const ModelConfig& config, Compute& compute, Activations activations = Activations::recompute);

  const Layout& layout() const { return layout_; }

  /// Σ weight · cross-entropy over the rows. `weights` is [layout().size()]. Throws Error for rows that the model cannot
  /// take (TOKEN_OUT_OF_RANGE, PROMPT_TOO_LONG, INVALID_OPTION).
  double loss(const float* weights, const TrainingRows& rows);
  /// The same; adds the loss's gradients to `gradients` [layout().size()].
  double loss_and_gradients(const float* weights, const TrainingRows& rows, float* gradients);

 private:
  struct LayerOffsets {
    int64_t input_norm, q, k, v, q_norm, k_norm, o, post_norm;
    bool sparse;
    MlpOffsets mlp;
    MoeOffsets moe;
  };
  /// [rows, …] each; n1, q, k, v, n2 and act for products.
  struct LayerState {
    Buffer n1, factor1, q_raw, k_raw, q_factor, k_factor, q, k, v, o, logsumexp;
    Buffer middle, n2, factor2, gate, up, act;
    MoeState moe;
  };

  void check(const TrainingRows& rows) const;
  void start(const TrainingRows& rows);
  void forward(const float* weights, const TrainingRows& rows, bool keep);
  /// `out` null: only the state is wanted.
  void layer(const float* weights, const TrainingRows& rows, const LayerOffsets& at, const float* in, LayerState& s,
             float* out);
  void layer_backward(const float* weights, const TrainingRows& rows, const LayerOffsets& at, const float* in,
                      LayerState& s, float* gradients);
  Angles angles() const { return {cos_.data(), sin_.data()}; }
  Operand operand(const Buffer& buffer) const { return {buffer.data(), compute_.format()}; }

  ModelConfig config_;
  Compute& compute_;
  Activations activations_;
  Layout layout_;
  std::vector<LayerOffsets> layers_;
  int64_t embedding_, final_norm_, head_;
  std::vector<float> frequencies_;
  Buffer cos_, sin_;
  std::vector<LayerState> states_;  ///< one, or one of each layer
  std::vector<Buffer> inputs_;      ///< [layers + 1] of [rows, hidden]: of each layer, and the last one's output
  Buffer n_, factor_;               ///< of the final norm
  Buffer dx_, dn_, dq_, dk_, dv_, d_o_, d_raw_, d_act_, d_gate_, d_up_;
};

}  // namespace sdar::train
