#include "train/parameters.h"

#include <algorithm>
#include <cstring>

#include "model/checkpoint.h"
#include "util/half.h"

namespace sdar::train {
namespace {

void widen(const SourceTensor& from, int64_t elements, float* to) {
  const auto* bytes = static_cast<const std::byte*>(from.data);
  if (from.dtype == DType::f32) {
    std::memcpy(to, bytes, static_cast<size_t>(elements) * sizeof *to);
    return;
  }
  for (int64_t i = 0; i < elements; i++) {
    uint16_t half;
    std::memcpy(&half, bytes + 2 * i, sizeof half);
    to[i] = from.dtype == DType::bf16 ? bf16_to_f32(half) : f16_to_f32(half);
  }
}

}  // namespace

bool in_mixture(std::string_view name) {
  return name.find(".mlp.experts.") != name.npos || name.ends_with(".mlp.gate.weight");
}

Layout::Layout(const ModelConfig& config) {
  ModelWeights unused;
  for (const PlannedWeight& weight : plan_weights(config, WeightFormat::f32, unused))
    for (const TensorSpec& part : weight.parts) add({part.name, part.rows, part.cols, part.vector});
}

void Layout::add(Parameter parameter) {
  parameter.offset = size_;
  offsets_[parameter.name] = size_;
  size_ += parameter.elements();
  parameters_.push_back(std::move(parameter));
}

void visit_parameters(const std::string& folder, const ModelConfig& config,
                      const std::function<void(const Parameter&, const float*)>& visit) {
  ModelWeights unused;
  const std::vector<PlannedWeight> plan = plan_weights(config, WeightFormat::f32, unused);
  CheckpointSource source(folder, plan);
  std::vector<float> values;
  int64_t offset = 0;
  for (const PlannedWeight& weight : plan) {
    for (const TensorSpec& part : weight.parts) {
      values.resize(static_cast<size_t>(part.elements()));
      widen(source.open(part), part.elements(), values.data());
      source.close(part);
      visit({part.name, part.rows, part.cols, part.vector, offset}, values.data());
      offset += part.elements();
    }
  }
  source.check();
}

std::vector<float> read_parameters(const std::string& folder, const ModelConfig& config, const Layout& layout,
                                   const std::function<void()>& check) {
  std::vector<float> all(static_cast<size_t>(layout.size()));
  visit_parameters(folder, config, [&](const Parameter& tensor, const float* values) {
    check();
    std::copy_n(values, tensor.elements(), all.begin() + tensor.offset);
  });
  return all;
}

}  // namespace sdar::train
