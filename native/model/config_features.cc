#include "model/config_features.h"

#include <cmath>

namespace sdar {
namespace {

/// Fields of models related to Qwen3 that must be absent or have the value that changes nothing.
struct Neutral {
  const char* name;
  double value;  ///< false and true count as 0 and 1
};
constexpr Neutral kNeutral[] = {{"use_sliding_window", 0},
                                {"partial_rotary_factor", 1},
                                {"mlp_bias", 0},
                                {"use_bidirectional_attention", 0},
                                {"use_qk_norm", 1},
                                {"qk_norm", 1},
                                {"num_shared_experts", 0},
                                {"n_shared_experts", 0},
                                {"shared_expert_intermediate_size", 0},
                                {"moe_shared_expert_intermediate_size", 0},
                                {"n_group", 1},
                                {"topk_group", 1},
                                {"routed_scaling_factor", 1},
                                {"attn_logit_softcapping", 0},
                                {"final_logit_softcapping", 0},
                                {"logits_soft_cap", 0},
                                {"logit_scale", 1},
                                {"logits_scaling", 1},
                                {"embedding_multiplier", 1},
                                {"residual_multiplier", 1}};

/// That must be absent whatever they say.
constexpr const char* kForeign[] = {"attention_multiplier", "query_pre_attn_scalar", "attention_chunk_size",
                                    "no_rope_layers", "no_rope_layer_interval"};

void refuse_fields(const Fields& fields) {
  for (const Neutral& neutral : kNeutral) {
    const Json* value = fields.find(neutral.name);
    if (!value) continue;
    double number = 0;
    if (const bool* boolean = value->boolean()) {
      number = *boolean ? 1 : 0;
    } else if (!value->number(number)) {
      fields.refuse(neutral.name, value, "true, false or a number");
    }
    if (number == neutral.value) continue;
    const Json same = value->boolean() ? Json{neutral.value != 0} : Json{static_cast<int64_t>(neutral.value)};
    fields.unsupported(neutral.name, *value, same.brief());
  }
  for (const char* name : kForeign)
    if (const Json* value = fields.find(name)) fields.unsupported(name, *value, "absent");
  if (const Json* scoring = fields.find("scoring_func"); scoring && *scoring != Json{std::string("softmax")})
    fields.unsupported("scoring_func", *scoring, "\"softmax\"");
}

/// 0.1 · ln(scale) · weight + 1, the temperature of YaRN's attention.
double yarn_temperature(double scale, double weight = 1) { return scale <= 1 ? 1 : 0.1 * weight * std::log(scale) + 1; }

void read_yarn(const Fields& rope, ModelShape& shape) {
  constexpr double kMost = 1e6, kMostContext = 1 << 28;
  RopeScaling& scaling = shape.rope_scaling;
  const double trained = rope.number_from("original_max_position_embeddings", 1, kMostContext, shape.context);
  scaling.kind = RopeScaling::Kind::yarn;
  scaling.original_context = trained;
  scaling.beta_fast = rope.number_from("beta_fast", 1e-3, kMost, 32);
  scaling.beta_slow = rope.number_from("beta_slow", 1e-3, kMost, 1);
  scaling.truncate = rope.boolean("truncate", true);
  if (scaling.beta_fast < scaling.beta_slow)
    rope.refuse("beta_fast", rope.find("beta_fast"), "a number not below beta_slow");
  const double mscale = rope.number_from("mscale", 0, kMost, 0), all = rope.number_from("mscale_all_dim", 0, kMost, 0);
  const double usual = mscale > 0 && all > 0
                           ? yarn_temperature(scaling.factor, mscale) / yarn_temperature(scaling.factor, all)
                           : yarn_temperature(scaling.factor);
  scaling.attention_factor = rope.find("attention_factor") ? rope.number("attention_factor", 0, kMost) : usual;
  if (rope.find("original_max_position_embeddings"))
    shape.context = std::max(shape.context, static_cast<int32_t>(std::min(trained * scaling.factor, kMostContext)));
}

void read_scaling(const Fields& fields, const char* name, ModelShape& shape) {
  const Json* object = fields.find(name);
  if (!object) return;
  if (!object->object()) fields.refuse(name, object, "an object or null");
  const Fields rope(*object, fields.where() + ": " + name);
  const Json* type = rope.find("rope_type");
  if (!type) type = rope.find("type");
  if (type && !type->string()) rope.refuse("rope_type", type, "a string");
  const std::string kind = type ? *type->string() : "default";
  const auto allowed = "\"default\", \"linear\", \"dynamic\", \"yarn\"";
  if (kind != "default" && kind != "linear" && kind != "dynamic" && kind != "yarn")
    fields.unsupported(std::string(name) + ".rope_type", *type, allowed);
  for (const char* foreign : {"mrope_section", "short_factor", "long_factor"})
    if (const Json* value = rope.find(foreign)) rope.unsupported(foreign, *value, "absent");
  if (const Json* part = rope.find("partial_rotary_factor"); part && rope.number("partial_rotary_factor", 0, 1) != 1)
    rope.unsupported("partial_rotary_factor", *part, "1");
  if (kind == "default") {
    double factor = 1;
    if (const Json* value = rope.find("factor"); value && value->number(factor) && factor != 1)
      fields.unsupported(std::string(name) + ".factor", *value, "absent, or 1, or with a rope_type");
    return;
  }
  if (!rope.find("factor")) rope.refuse("factor", nullptr, "a number from 1 to 10000");
  RopeScaling& scaling = shape.rope_scaling;
  scaling.factor = rope.number_from("factor", 1, 10000, 1);
  if (kind == "yarn") return read_yarn(rope, shape);
  if (kind == "linear") scaling.kind = RopeScaling::Kind::linear;
}

}  // namespace

void refuse_variants(const Fields& fields) {
  refuse_fields(fields);
  if (const Json* act = fields.find("hidden_act"); act && (!act->string() || *act->string() != "silu"))
    fields.unsupported("hidden_act", *act, "\"silu\"");
  if (const Json* quantised = fields.find("quantization_config"))
    fields.unsupported("quantization_config", *quantised,
                       "absent (weights in F32, F16 or BF16; they are quantised when loaded)");
  if (const Json* types = fields.find("layer_types")) {
    if (!types->array()) fields.refuse("layer_types", types, "a list of strings");
    for (const Json& type : *types->array())
      if (!type.string() || *type.string() != "full_attention")
        fields.unsupported("an element of layer_types", type, "\"full_attention\"");
  }
}

void read_rope(const Fields& fields, ModelShape& shape) {
  constexpr double kMost = 1e12;
  const Json* newer = fields.find("rope_parameters");
  if (!fields.find("rope_theta") && newer && newer->find("rope_theta")) {
    const Fields rope(*newer, fields.where() + ": rope_parameters");
    shape.rope_theta = static_cast<float>(rope.number("rope_theta", 1, kMost));
  } else {
    shape.rope_theta = static_cast<float>(fields.number("rope_theta", 1, kMost));
  }
  // Of both, the older one is what its own version of transformers reads.
  for (const char* name : {"rope_parameters", "rope_scaling"}) read_scaling(fields, name, shape);
}

}  // namespace sdar
