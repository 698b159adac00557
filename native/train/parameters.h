// The weights that are trained: one array of f32 and where each tensor of the checkpoint lies in it. Gradients and the
// optimiser's moments are arrays of the same layout.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace sdar::train {

struct Parameter {
  std::string name;  ///< as in the checkpoint
  int64_t rows = 0, cols = 0;
  bool vector = false;  ///< of shape [cols], rows is 1: a norm's, which weight decay leaves alone
  int64_t offset = 0;   ///< in floats

  int64_t elements() const { return rows * cols; }
};

class Layout {
 public:
  /// In the order of plan_weights(). Throws Error(UNSUPPORTED_MODEL) for a model with biases.
  explicit Layout(const ModelConfig& config);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  int64_t size() const { return size_; }  ///< floats
  bool has(std::string_view name) const { return offsets_.contains(name); }
  /// Of a tensor that the model has.
  int64_t offset(std::string_view name) const { return offsets_.find(name)->second; }

 private:
  std::vector<Parameter> parameters_;
  std::map<std::string, int64_t, std::less<>> offsets_;
  int64_t size_ = 0;
};

/// The checkpoint's tensors in f32: [layout.size()]. Throws what CheckpointSource does.
std::vector<float> read_parameters(const std::string& folder, const ModelConfig& config, const Layout& layout);

}  // namespace sdar::train
