// The whole network (Qwen3, dense or with experts): loss and gradients of a batch of rows, f32
// but for the operands of products, which are of the format of `compute`.
#pragma once
#include <cstdint>
#include <vector>

#include "model/config.h"
#include "train/compute.h"
#include "train/lora.h"
#include "train/moe.h"
#include "train/ops.h"
#include "train/parameters.h"
#include "train/projection.h"
#include "train/rows.h"

namespace sdar::train {

/// What the backward pass needs of a layer: kept from the forward pass, or computed again from the layer's input, which
/// costs a forward pass more and saves most of the memory. The results are the same.
enum class Activations : uint8_t { recompute, keep };

class Network {
 public:
  /// `compute` must outlive it. Throws Error(UNSUPPORTED_MODEL).
  Network(const ModelConfig& config, Compute& compute, Activations activations = Activations::recompute);
  /// With adapters on frozen weights. `adaptation` must outlive it and serve no other network at the same time.
  Network(Adaptation& adaptation, Compute& compute, Activations activations = Activations::recompute);

  /// Of the weights that are trained.
  const Layout& layout() const { return adaptation_ ? adaptation_->layout() : layout_; }
  /// What results depend on besides the weights that are trained, as a line.
  std::string text() const { return adaptation_ ? adaptation_->text() : "all weights"; }

  /// Σ weight · cross-entropy over the rows. `weights` is [layout().size()]. Throws Error for rows that the model cannot
  /// take (TOKEN_OUT_OF_RANGE, PROMPT_TOO_LONG, INVALID_OPTION).
  double loss(const float* weights, const TrainingRows& rows);
  /// The same; adds the loss's gradients to `gradients` [layout().size()].
  double loss_and_gradients(const float* weights, const TrainingRows& rows, float* gradients);

 private:
  struct Layer {
    Place input_norm, q_norm, k_norm, post_norm;
    Projection q, k, v, o, gate, up, down;
    bool sparse;
    Place moe_begin;   ///< of the mixture's tensors, which follow each other
    MoeOffsets moe;    ///< from there
    int64_t moe_size;  ///< floats
  };
  /// [rows, …] each; n1, q, k, v, n2 and act for products.
  struct LayerState {
    Buffer n1, factor1, q_raw, k_raw, q_factor, k_factor, q, k, v, o, logsumexp;
    Buffer middle, n2, factor2, gate, up, act;
    MoeState moe;
  };

  Network(const ModelConfig& config, Adaptation* adaptation, Compute& compute, Activations activations);
  Place place(const std::string& name) const;
  Projection projection(const std::string& name, int64_t in, int64_t out) const;
  void find_moe(const std::string& prefix, Layer& layer) const;
  void check(const TrainingRows& rows) const;
  void start(const TrainingRows& rows);
  void forward(const TrainingRows& rows, bool keep);
  /// `out` null: only the state is wanted.
  void layer(const TrainingRows& rows, const Layer& at, const float* in, LayerState& s, float* out);
  void layer_backward(const TrainingRows& rows, const Layer& at, const float* in, LayerState& s);
  /// Of [m, hidden].
  void norm(const Place& weight, const float* x, int64_t m, const OperandOut& y, float* factor);
  void norm_backward(const Place& weight, const float* x, const float* factor, const float* dy, int64_t m, float* dx,
                     bool add);
  Angles angles() const { return {cos_.data(), sin_.data()}; }
  Operand operand(const Buffer& buffer) const { return {buffer.data(), compute_.format()}; }

  ModelConfig config_;
  Compute& compute_;
  Activations activations_;
  Adaptation* adaptation_;
  Layout layout_;  ///< of a network without an adaptation
  Tensors tensors_;
  std::vector<Layer> layers_;
  Place embedding_, final_norm_, head_;
  Place rows_;  ///< of the embedding, trained apart
  std::vector<float> frequencies_;
  Buffer cos_, sin_;
  std::vector<LayerState> states_;  ///< one, or one of each layer
  std::vector<Buffer> inputs_;      ///< [layers + 1] of [rows, hidden]: of each layer, and the last one's output
  Buffer n_, factor_;               ///< of the final norm
  Buffer dx_, dn_, dq_, dk_, dv_, d_o_, d_raw_, d_act_, d_gate_, d_up_;
};

}  // namespace sdar::train
