#include "bench/shapes.h"

#include "util/error.h"

namespace sdar {
namespace {

struct NamedShape {
  const char* name;
  ModelShape shape;
  bool tied;
};

constexpr int32_t kVocabulary = 151936, kContext = 32768;

const NamedShape kShapes[] = {
    {"sdar-nano",
     {.layers = 6,
      .hidden = 256,
      .intermediate = 640,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 64,
      .vocabulary = 560,
      .context = 1024,
      .rope_theta = 1e4f},
     true},
    {"sdar-1.7b",
     {.layers = 28,
      .hidden = 2048,
      .intermediate = 6144,
      .heads = 16,
      .kv_heads = 8,
      .head_dim = 128,
      .vocabulary = kVocabulary,
      .context = kContext},
     true},
    {"sdar-4b",
     {.layers = 36,
      .hidden = 2560,
      .intermediate = 9728,
      .heads = 32,
      .kv_heads = 8,
      .head_dim = 128,
      .vocabulary = kVocabulary,
      .context = kContext},
     true},
    {"sdar-8b",
     {.layers = 36,
      .hidden = 4096,
      .intermediate = 12288,
      .heads = 32,
      .kv_heads = 8,
      .head_dim = 128,
      .vocabulary = kVocabulary,
      .context = kContext},
     false},
    {"sdar-30b-a3b",
     {.layers = 48,
      .hidden = 2048,
      .intermediate = 0,
      .heads = 32,
      .kv_heads = 4,
      .head_dim = 128,
      .vocabulary = kVocabulary,
      .context = kContext,
      .experts = 128,
      .experts_per_token = 8,
      .moe_intermediate = 768},
     false},
};

}  // namespace

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const NamedShape& known : kShapes) names.push_back(known.name);
  return names;
}

ModelConfig shape_config(const std::string& name, int32_t layers) {
  for (const NamedShape& known : kShapes) {
    if (name != known.name) continue;
    if (layers < 0 || layers > known.shape.layers)
      throw Error(code::kInvalidOption, "layers is " + std::to_string(layers) + "; " + name + " has 1 to " +
                                            std::to_string(known.shape.layers) + ", or 0 for all");
    ModelConfig config;
    config.shape = known.shape;
    if (layers > 0) config.shape.layers = layers;
    const bool nano = known.shape.vocabulary != kVocabulary, sparse = known.shape.experts > 0;
    config.model_type = sparse ? "sdar_moe" : "sdar";
    config.tied = known.tied;
    config.block_size = nano ? 8 : 4;
    config.mask_token_id = nano ? 559 : 151669;
    config.end_token_ids = nano ? std::vector{558, 556} : std::vector{151645, 151643};
    config.norm_topk_prob = sparse;
    config.sparse.assign(config.shape.layers, sparse);
    return config;
  }
  std::string allowed;
  for (const std::string& known : shape_names()) allowed += (allowed.empty() ? "" : ", ") + known;
  throw Error(code::kInvalidOption, "shape is \"" + name + "\"; allowed: " + allowed);
}

}  // namespace sdar
