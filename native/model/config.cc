#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "util/error.h"
#include "util/json.h"
#include "util/mapped_file.h"

namespace sdar {
namespace {

constexpr size_t kMaxConfig = 16 << 20;
constexpr size_t kMaxTokenizer = 64 << 20;
constexpr int32_t kMaxList = 4096;  // of end ids, or of layers
// Several times those of the largest models; beyond them a small file could ask for any memory.
constexpr int32_t kMaxWidth = 1 << 18, kMaxHeads = 1024, kMaxHeadDim = 1024, kMaxVocabulary = 1 << 22;

/// The members of one JSON object; null counts as absent.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  const Json* find(const char* name) const {
    const Json* value = object_.find(name);
    return value && !value->is_null() ? value : nullptr;
  }
  [[noreturn]] void refuse(const std::string& name, const Json* value, const std::string& allowed) const {
    throw Error(code::kConfigInvalid,
                where_ + ": " + name + " is " + (value ? value->brief() : "missing") + "; expected " + allowed);
  }
  [[noreturn]] void unsupported(const std::string& name, const Json& value, const std::string& allowed) const {
    throw Error(code::kUnsupportedModel,
                where_ + ": " + name + " is " + value.brief() + ", which is not supported; allowed: " + allowed);
  }

  int32_t integer(const char* name, int32_t least, int32_t most) const {
    return check_integer(name, find(name), least, most);
  }
  int32_t integer(const char* name, int32_t least, int32_t most, int32_t absent) const {
    return find(name) ? integer(name, least, most) : absent;
  }
  bool boolean(const char* name, bool absent) const {
    const Json* value = find(name);
    if (value && !value->boolean()) refuse(name, value, "true or false");
    return value ? *value->boolean() : absent;
  }
  double number(const char* name, double above, double most) const {
    const Json* value = find(name);
    double number = 0;
    if (!value || !value->number(number) || !(number > above && number <= most))
      refuse(name, value, "a number above " + Json{above}.brief() + ", at most " + Json{most}.brief());
    return number;
  }
  /// One integer or a list of them; absent: none.
  std::vector<int32_t> integers(const char* name, int32_t least, int32_t most) const {
    std::vector<int32_t> all;
    const Json* value = find(name);
    if (!value) return all;
    if (!value->array()) return {check_integer(name, value, least, most)};
    for (const Json& item : *value->array())
      all.push_back(check_integer(std::string("an element of ") + name, &item, least, most));
    std::vector<int32_t> sorted = all;
    std::sort(sorted.begin(), sorted.end());
    const auto distinct = std::unique(sorted.begin(), sorted.end()) - sorted.begin();
    if (distinct > kMaxList)
      throw Error(code::kConfigInvalid, where_ + ": " + name + " has " + std::to_string(distinct) +
                                            " different elements; at most " + std::to_string(kMaxList) +
                                            " are allowed");
    // Each once, where it came first.
    std::vector<bool> seen(static_cast<size_t>(distinct));
    std::erase_if(all, [&](int32_t id) {
      const auto at = std::lower_bound(sorted.begin(), sorted.begin() + distinct, id) - sorted.begin();
      const bool again = seen[at];
      seen[at] = true;
      return again;
    });
    return all;
  }

 private:
  int32_t check_integer(const std::string& name, const Json* value, int32_t least, int32_t most) const {
    const int64_t* integer = value ? value->integer() : nullptr;
    if (!integer || *integer < least || *integer > most)
      refuse(name, value, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
    return static_cast<int32_t>(*integer);
  }

  const Json& object_;
  std::string where_;
};

Json read_object(const std::string& path, size_t limit) {
  Json json = parse_json(read_file(path, limit), path, code::kConfigInvalid);
  if (!json.object()) throw Error(code::kConfigInvalid, path + ": is not a JSON object");
  return json;
}

std::string read_model_type(const Fields& fields) {
  constexpr char kAllowed[] = "\"sdar\", \"sdar_moe\"";
  const Json* value = fields.find("model_type");
  if (!value || !value->string()) fields.refuse("model_type", value, kAllowed);
  const std::string& type = *value->string();
  if (type == "qwen3")
    throw Error(code::kUnsupportedModel,
                fields.where() +
                    ": model_type is \"qwen3\": qwen3, the autoregressive parent, is not supported yet; allowed: " +
                    std::string(kAllowed));
  if (type != "sdar" && type != "sdar_moe") fields.unsupported("model_type", *value, kAllowed);
  return type;
}

/// What Qwen3 configurations may say that this engine does not compute.
void refuse_variants(const Fields& fields) {
  if (fields.boolean("attention_bias", false)) fields.unsupported("attention_bias", Json{true}, "false");
  if (fields.boolean("use_sliding_window", false)) fields.unsupported("use_sliding_window", Json{true}, "false");
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
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = fields.find(name);
    if (!rope) continue;
    if (!rope->object()) fields.refuse(name, rope, "an object or null");
    for (const char* key : {"rope_type", "type"}) {
      const Json* type = rope->find(key);
      if (type && !type->is_null() && (!type->string() || *type->string() != "default"))
        fields.unsupported(std::string(name) + "." + key, *type, "\"default\"");
    }
    double factor = 1;
    if (const Json* value = rope->find("factor"); value && value->number(factor) && factor != 1)
      fields.unsupported(std::string(name) + ".factor", *value, "absent, or 1");
  }
}

float read_rope_theta(const Fields& fields, const std::string& path) {
  constexpr double kMost = 1e12;
  if (!fields.find("rope_theta"))
    if (const Json* rope = fields.find("rope_parameters"); rope && rope->find("rope_theta"))
      return static_cast<float>(Fields(*rope, path + ": rope_parameters").number("rope_theta", 1, kMost));
  return static_cast<float>(fields.number("rope_theta", 1, kMost));
}

ModelShape read_shape(const Fields& fields, const std::string& path) {
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
  s.rope_theta = read_rope_theta(fields, path);
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
  refuse_variants(fields);
  config.shape = read_shape(fields, path);
  ModelShape& s = config.shape;
  const Json* dtype = fields.find("torch_dtype");
  if (!dtype) dtype = fields.find("dtype");
  if (dtype && dtype->string() && *dtype->string() == "float32") config.dtype = DType::f32;
  config.tied = fields.boolean("tie_word_embeddings", false);
  config.block_size = fields.integer("block_size", 1, kPageSlots, 4);
  config.sparse.assign(s.layers, false);
  if (config.model_type == "sdar_moe") read_experts(fields, config);
  const bool any_dense = std::find(config.sparse.begin(), config.sparse.end(), false) != config.sparse.end();
  if (any_dense || fields.find("intermediate_size")) s.intermediate = fields.integer("intermediate_size", 1, kMaxWidth);

  config.mask_token_id = read_mask_token(fields, folder, s.vocabulary);
  config.end_token_ids = fields.integers("eos_token_id", 0, s.vocabulary - 1);
  if (is_file(generation_path)) {
    const Json generation = read_object(generation_path, kMaxConfig);
    const Fields more(generation, generation_path);
    if (more.find("eos_token_id")) config.end_token_ids = more.integers("eos_token_id", 0, s.vocabulary - 1);
  }
  return config;
}

}  // namespace sdar
