#include "models.h"

#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/packing.h"
#include "bench/shapes.h"
#include "model/checkpoint.h"

namespace gpu_bench {
namespace {

using namespace sdar;
using Json = nlohmann::ordered_json;

constexpr WeightFormat kFormats[] = {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4};

const char* name_of_kind(WeightKind kind) {
  return kind == WeightKind::table ? "table" : kind == WeightKind::gate_up ? "gate_up" : "linear";
}

Json describe(const ModelConfig& config) {
  const ModelShape& s = config.shape;
  Json model{{"layers", s.layers},
             {"hidden", s.hidden},
             {"intermediate", s.intermediate},
             {"heads", s.heads},
             {"kvHeads", s.kv_heads},
             {"headDim", s.head_dim},
             {"vocabulary", s.vocabulary},
             {"experts", s.experts},
             {"expertsPerToken", s.experts_per_token},
             {"expertIntermediate", s.moe_intermediate},
             {"tied", config.tied}};
  Json matrices = Json::object(), total = Json::object();
  for (WeightFormat format : kFormats) {
    ModelWeights weights;
    const std::vector<PlannedWeight> plan = plan_weights(config, format, weights);
    const LayerWeights& layer = weights.layers[0];
    const auto* gate_up = s.experts > 0 ? layer.expert_gate_up.data() : nullptr;
    const auto* down = s.experts > 0 ? layer.expert_down.data() : nullptr;
    int64_t bytes = 0;
    for (const PlannedWeight& weight : plan) {
      const WeightSpec& spec = weight.spec;
      bytes += static_cast<int64_t>(cuda::packed_bytes(spec));
      const char* name = weight.handle == &layer.qkv                                              ? "qkv"
                         : weight.handle == &layer.o                                              ? "o"
                         : weight.handle == &layer.gate_up                                        ? "gateUp"
                         : weight.handle == &layer.down                                           ? "down"
                         : weight.handle == &layer.router                                         ? "router"
                         : weight.handle == gate_up                                               ? "expertGateUp"
                         : weight.handle == down                                                  ? "expertDown"
                         : weight.handle == (config.tied ? &weights.embedding : &weights.lm_head) ? "head"
                                                                                                  : nullptr;
      if (!name) continue;
      Json& matrix = matrices[name];
      matrix["kind"] = name_of_kind(spec.kind);
      matrix["rows"] = spec.rows;
      matrix["cols"] = spec.cols;
      // Experts' products have one part.
      matrix["parts"] = weight.handle == down ? 1
                                              : cuda::splits_of(spec.kind, static_cast<int32_t>(spec.rows),
                                                                static_cast<int32_t>(spec.cols));
      matrix["bytes"][name_of(format)] = cuda::packed_bytes(spec);
    }
    total[name_of(format)] = bytes;
  }
  model["matrices"] = matrices;
  model["weightBytes"] = total;
  return model;
}

}  // namespace

nlohmann::ordered_json describe_models() {
  Json models = Json::object();
  for (const std::string& name : shape_names()) models[name] = describe(shape_config(name));
  return models;
}

}  // namespace gpu_bench
