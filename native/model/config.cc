#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "model/config_features.h"
#include "model/config_fields.h"
#include "util/error.h"
#include "util/json.h"
#include "util/mapped_file.h"

namespace sdar {
namespace {

constexpr size_t kMaxConfig = 16 << 20;
constexpr size_t kMaxTokenizer = 64 << 20;
// Several times those of the largest models; beyond them a small file could ask for any memory.
constexpr int32_t kMaxWidth = 1 << 18, kMaxHeads = 1024, kMaxHeadDim = 1024, kMaxVocabulary = 1 << 22;

Json read_object(const std::string& path, size_t limit) {
  Json json = parse_json(read_file(path, limit), path, code::kConfigInvalid);
  if (!json.object()) throw Error(code::kConfigInvalid, path + ": is not a JSON object");
  return json;
}

std::string read_model_type(const Fields& fields) {
  constexpr char kAllowed[] = "\"sdar\", \"sdar_moe\", \"qwen3\", \"qwen3_moe\"";
  const Json* value = fields.find("model_type");
  if (!value || !value->string()) fields.refuse("model_type", value, kAllowed);
  const std::string& type = *value->string();
  for (const char* known : {"sdar", "sdar_moe", "qwen3", "qwen3_moe"})
    if (type == known) return type;
  fields.unsupported("model_type", *value, kAllowed);
}

ModelShape read_shape(const Fields& fields) {
  ModelShape s;
  s.layers = fields.integer("num_hidden_layers", 1, 1024);
  s.hidden = fields.integer("hidden_size", 1, kMaxWidth);
  s.heads = fields.integer("num_attention_heads", 1, kMaxHeads);
  s.kv_heads = fields.integer("num_key_value_heads", 1, kMaxHeads, s.heads);
  if (s.heads % s.kv_heads != 0)
    fields.refuse("num_key_value_heads", fields.find("num_key_value_heads"),
                  "a divisor of num_attention_heads, " + std::to_string(s.heads));
  s.head_dim = fields.find("head_dim") ? fields.integer("head_dim", 2, kMaxHeadDim) : s.hidden / s.heads;
  if (!fields.find("head_dim") && (s.hidden % s.heads != 0 || s.head_dim > kMaxHeadDim))
    fields.refuse("head_dim", nullptr, "a number, since hidden_size / num_attention_heads does not give one");
  if (s.head_dim % 2 != 0)
    fields.refuse("head_dim", fields.find("head_dim"), "an even number (also as hidden_size / num_attention_heads)");
  s.vocabulary = fields.integer("vocab_size", 1, kMaxVocabulary);
  s.context = fields.integer("max_position_embeddings", 1, 1 << 28);
  if (fields.find("rms_norm_eps")) s.rms_eps = static_cast<float>(fields.number("rms_norm_eps", 0, 1));
  read_rope(fields, s);
  s.attention_bias = fields.boolean("attention_bias", false);
  return s;
}

void read_experts(const Fields& fields, ModelConfig& config) {
  ModelShape& s = config.shape;
  s.experts = fields.integer("num_experts", 1, 1024);
  s.experts_per_token = fields.integer("num_experts_per_tok", 1, s.experts);
  s.moe_intermediate = fields.integer("moe_intermediate_size", 1, kMaxWidth);
  config.norm_topk_prob = fields.boolean("norm_topk_prob", false);
  const int32_t step = fields.integer("decoder_sparse_step", 1, 1024, 1);
  const std::vector<int32_t> dense = fields.integers("mlp_only_layers", 0, s.layers - 1);
  for (int32_t i = 0; i < s.layers; i++)
    config.sparse[i] = (i + 1) % step == 0 && std::find(dense.begin(), dense.end(), i) == dense.end();
  if (static_cast<int64_t>(s.experts) * s.layers > 65536)  // each is a handful of tensors to keep account of
    fields.refuse("num_experts", fields.find("num_experts"), "num_experts × num_hidden_layers of at most 65536");
}

/// The id of the added token with this text: tokenizer_config.json's added_tokens_decoder, else tokenizer.json's
/// added_tokens.
const Json* find_added_token(const Json& tokenizer_config, const Json& tokenizer, const std::string& text, Json& id) {
  const auto is_it = [&](const Json& token) {
    const Json* content = token.find("content");
    return content && content->string() && *content->string() == text;
  };
  if (const Json* decoder = tokenizer_config.find("added_tokens_decoder"); decoder && decoder->object())
    for (const auto& [key, token] : *decoder->object())
      if (is_it(token)) {
        const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos;
        id = digits ? Json{static_cast<int64_t>(std::stoll(key))} : Json{key};
        return &id;
      }
  if (const Json* added = tokenizer.find("added_tokens"); added && added->array())
    for (const Json& token : *added->array())
      if (is_it(token)) return token.find("id");
  return nullptr;
}

int32_t read_mask_token(const Fields& fields, const std::string& folder, int32_t vocabulary) {
  if (fields.find("mask_token_id")) return fields.integer("mask_token_id", 0, vocabulary - 1);
  const std::string config_path = folder + "/tokenizer_config.json", path = folder + "/tokenizer.json";
  const std::string expected = "an integer from 0 to " + std::to_string(vocabulary - 1);
  if (!is_file(config_path))
    fields.refuse("mask_token_id", nullptr, expected + ", or a tokenizer_config.json with mask_token");
  const Json tokenizer_config = read_object(config_path, kMaxConfig);
  const Json* mask = tokenizer_config.find("mask_token");
  if (mask && mask->object()) mask = mask->find("content");
  if (!mask || !mask->string())
    fields.refuse("mask_token_id", nullptr, expected + ", since tokenizer_config.json has no mask_token either");
  const Json tokenizer = is_file(path) ? read_object(path, kMaxTokenizer) : Json{Json::Object{}};
  Json storage;
  const Json* id = find_added_token(tokenizer_config, tokenizer, *mask->string(), storage);
  const std::string name = "the id of mask_token " + mask->brief();
  if (!id || !id->integer() || *id->integer() < 0 || *id->integer() >= vocabulary)
    Fields(tokenizer_config, config_path)
        .refuse(name, id, expected + ", in added_tokens_decoder or in tokenizer.json's added_tokens");
  return static_cast<int32_t>(*id->integer());
}

}  // namespace

ModelConfig read_config(const std::string& folder) {
  if (!is_folder(folder))
    throw Error(code::kFileNotFound,
                folder + ": no such folder; expected one that holds config.json and model.safetensors");
  const std::string path = folder + "/config.json", generation_path = folder + "/generation_config.json";
  const Json json = read_object(path, kMaxConfig);
  const Fields fields(json, path);

  ModelConfig config;
  config.model_type = read_model_type(fields);
  config.decoding = config.model_type.starts_with("qwen3") ? Decoding::autoregressive : Decoding::block_diffusion;
  refuse_variants(fields);
  config.shape = read_shape(fields);
  ModelShape& s = config.shape;
  const Json* dtype = fields.find("torch_dtype");
  if (!dtype) dtype = fields.find("dtype");
  if (dtype && dtype->string() && *dtype->string() == "float32") config.dtype = DType::f32;
  config.tied = fields.boolean("tie_word_embeddings", false);
  const bool blocks = config.decoding == Decoding::block_diffusion;
  config.block_size = blocks ? fields.integer("block_size", 1, kPageSlots, 4) : 1;
  config.sparse.assign(s.layers, false);
  if (config.model_type.ends_with("_moe")) read_experts(fields, config);
  const bool any_dense = std::find(config.sparse.begin(), config.sparse.end(), false) != config.sparse.end();
  if (any_dense || fields.find("intermediate_size")) s.intermediate = fields.integer("intermediate_size", 1, kMaxWidth);

  if (blocks) config.mask_token_id = read_mask_token(fields, folder, s.vocabulary);
  config.end_token_ids = fields.integers("eos_token_id", 0, s.vocabulary - 1);
  if (is_file(generation_path)) {
    const Json generation = read_object(generation_path, kMaxConfig);
    const Fields more(generation, generation_path);
    if (more.find("eos_token_id")) config.end_token_ids = more.integers("eos_token_id", 0, s.vocabulary - 1);
  }
  return config;
}

}  // namespace sdar
