// Small networks of odd shapes for tests of training.
#pragma once
#include "gradients.h"
#include "train/network.h"

/// Two layers of odd shapes, 37 ids; with experts the second layer is sparse.
inline sdar::ModelConfig config_of(bool tied, int32_t experts, int32_t per_token = 2, bool bias = false) {
  sdar::ModelConfig config;
  config.shape = {.layers = 2,
                  .hidden = 20,
                  .intermediate = 28,
                  .heads = 6,
                  .kv_heads = 2,
                  .head_dim = 10,
                  .vocabulary = 37,
                  .context = 64,
                  .experts = experts,
                  .experts_per_token = per_token,
                  .moe_intermediate = 12,
                  .rms_eps = 1e-5f,
                  .rope_theta = 1e4f,
                  .rope_scaling = {},
                  .attention_bias = bias};
  config.model_type = "qwen3";
  config.tied = tied;
  config.norm_topk_prob = true;
  config.sparse = {false, experts > 0};
  return config;
}

inline std::vector<float> weights_of(const sdar::train::Layout& layout) {
  std::vector<float> weights;
  for (const sdar::train::Parameter& p : layout.parameters()) {
    const bool table = p.name == "model.embed_tokens.weight";
    const auto values = gradients::random_values(p.elements(), static_cast<uint32_t>(p.offset) + 1,
                                                 p.vector && !p.name.ends_with("bias") ? 1.0f : 0.0f,
                                                 p.vector ? 0.2f
                                                 : table  ? 0.7f
                                                          : 0.25f);
    weights.insert(weights.end(), values.begin(), values.end());
  }
  return weights;
}

inline std::vector<int32_t> ids_of(int32_t n, int32_t factor) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < n; i++) ids.push_back((i * factor + 3) % 37);
  return ids;
}
