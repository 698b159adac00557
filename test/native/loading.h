// Loads checkpoints for the portable backend, and looks at what came of it.
#pragma once
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backend/cpu/cpu.h"
#include "backend/cpu/reference/weights.h"
#include "checkpoint_files.h"
#include "model/checkpoint.h"
#include "model/weights.h"

namespace loading {

using namespace sdar;

inline ModelWeights load(const std::string& folder, WeightFormat format = WeightFormat::f32,
                         const WeightHooks& hooks = {}) {
  // A handle's bytes do not depend on the backend object, which is the same for all here.
  static const std::unique_ptr<Backend> backend = cpu::make_reference_backend(1);
  return load_weights(*backend, folder, read_config(folder), format, hooks);
}

inline bool whole(const ModelWeights& weights) {
  bool all = weights.memory && weights.embedding && weights.final_norm && !weights.layers.empty();
  for (const LayerWeights& layer : weights.layers)
    all = all && layer.input_norm && layer.qkv && layer.q_norm && layer.k_norm && layer.o && layer.post_norm &&
          ((layer.gate_up && layer.down) || (layer.router && !layer.expert_down.empty()));
  return all;
}

inline std::vector<float> row(const Weight& weight, int64_t index) {
  std::vector<float> values(weight.spec.cols);
  cpu::reference::packed(weight).load_row(index, values.data());
  return values;
}
inline std::vector<float> floats(const files::Tensor& tensor, int64_t row, int64_t cols) {
  std::vector<float> values(cols);
  std::memcpy(values.data(), tensor.data.data() + row * cols * 4, cols * 4);
  return values;
}

}  // namespace loading
