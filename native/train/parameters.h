// The weights that are trained: one array of f32 and where each tensor of the checkpoint lies in it. Gradients and the
// optimiser's moments are arrays of the same layout.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace sdar::train {

struct Parameter {
  std::string name;  ///< as in the checkpoint
  int64_t rows = 0, cols = 0;
  bool vector = false;  ///< of shape [cols], rows is 1: a norm's or bias, which weight decay leaves alone
  int64_t offset = 0;   ///< in floats

  int64_t elements() const { return rows * cols; }
  /// A matrix of a layer: not of the embedding, the head, a norm or a bias.
  bool in_layer() const { return !vector && name.starts_with("model.layers."); }
};

/// Whether a tensor is an expert's, or routes to them.
bool in_mixture(std::string_view name);

class Layout {
 public:
  Layout() = default;
  /// All of a model, in the order of plan_weights().
  explicit Layout(const ModelConfig& config);

  /// Behind the others; its offset is given here.
  void add(Parameter parameter);

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

/// A check that lets everything go on.
inline void never_stops() {}

/// visit(tensor, its values in f32 [elements]) for each of the checkpoint's tensors, in the order of Layout(config). Throws
/// what CheckpointSource does.
void visit_parameters(const std::string& folder, const ModelConfig& config,
                      const std::function<void(const Parameter&, const float*)>& visit);
/// The checkpoint's tensors in f32: [layout.size()], `layout` being Layout(config). Throws what CheckpointSource does;
/// `check` is called with each tensor, and what it throws comes out.
std::vector<float> read_parameters(const std::string& folder, const ModelConfig& config, const Layout& layout,
                                   const std::function<void()>& check = never_stops);

}  // namespace sdar::train
