#include "train/parameters.h"

#include <cstring>

#include "model/checkpoint.h"
#include "util/error.h"
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

Layout::Layout(const ModelConfig& config) {
  if (config.shape.attention_bias)
    throw Error(code::kUnsupportedModel, "config.json: attention_bias is true; training allows: false");
  ModelWeights unused;
  for (const PlannedWeight& weight : plan_weights(config, WeightFormat::f32, unused)) {
    for (const TensorSpec& part : weight.parts) {
      parameters_.push_back({part.name, part.rows, part.cols, part.vector, size_});
      offsets_[part.name] = size_;
      size_ += part.elements();
    }
  }
}

std::vector<float> read_parameters(const std::string& folder, const ModelConfig& config, const Layout& layout) {
  ModelWeights unused;
  const std::vector<PlannedWeight> plan = plan_weights(config, WeightFormat::f32, unused);
  CheckpointSource source(folder, plan);
  std::vector<float> values(static_cast<size_t>(layout.size()));
  for (const PlannedWeight& weight : plan) {
    for (const TensorSpec& part : weight.parts) {
      widen(source.open(part), part.elements(), values.data() + layout.offset(part.name));
      source.close(part);
    }
  }
  source.check();
  return values;
}

}  // namespace sdar::train
