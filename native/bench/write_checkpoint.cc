#include <cstdio>
#include <filesystem>
#include <vector>

#include "bench/shapes.h"
#include "model/checkpoint.h"
#include "util/error.h"
#include "util/output_file.h"

namespace sdar {
namespace {

namespace fs = std::filesystem;

std::string list(const std::vector<int32_t>& ids) {
  std::string text = "[";
  for (size_t i = 0; i < ids.size(); i++) text += (i ? ", " : "") + std::to_string(ids[i]);
  return text + "]";
}

/// Settings as read_config takes them.
std::string config_json(const ModelConfig& config, DType dtype) {
  const ModelShape& s = config.shape;
  std::string text;
  const auto add = [&](const char* name, const std::string& value) {
    text += (text.empty() ? "{\n  \"" : ",\n  \"") + std::string(name) + "\": " + value;
  };
  const auto integer = [&](const char* name, int64_t value) { add(name, std::to_string(value)); };
  const auto real = [&](const char* name, double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.6g", value);
    add(name, digits);
  };
  const bool sparse = s.experts > 0;
  add("architectures", sparse ? "[\"SDARMoeForCausalLM\"]" : "[\"SDARForCausalLM\"]");
  add("model_type", "\"" + config.model_type + "\"");
  add("attention_bias", s.attention_bias ? "true" : "false");
  add("hidden_act", "\"silu\"");
  add("eos_token_id", list(config.end_token_ids));
  integer("max_position_embeddings", s.context);
  add("torch_dtype", dtype == DType::f32 ? "\"float32\"" : "\"bfloat16\"");
  integer("vocab_size", s.vocabulary);
  integer("hidden_size", s.hidden);
  if (s.intermediate > 0) integer("intermediate_size", s.intermediate);
  integer("num_hidden_layers", s.layers);
  integer("num_attention_heads", s.heads);
  integer("num_key_value_heads", s.kv_heads);
  integer("head_dim", s.head_dim);
  if (sparse) {
    integer("num_experts", s.experts);
    integer("num_experts_per_tok", s.experts_per_token);
    integer("moe_intermediate_size", s.moe_intermediate);
    add("norm_topk_prob", config.norm_topk_prob ? "true" : "false");
    integer("decoder_sparse_step", 1);
  }
  real("rms_norm_eps", s.rms_eps);
  real("rope_theta", s.rope_theta);
  add("tie_word_embeddings", config.tied ? "true" : "false");
  integer("block_size", config.block_size);
  integer("mask_token_id", config.mask_token_id);
  return text + "\n}\n";
}

/// What may be there already: nothing, an empty folder or, if it is to be replaced, a checkpoint.
void check_target(const fs::path& folder, bool overwrite) {
  if (!fs::exists(fs::symlink_status(folder))) return;
  if (!fs::is_directory(folder)) throw Error(code::kInvalidOption, folder.string() + ": exists and is no folder");
  if (fs::is_empty(folder)) return;
  if (!fs::exists(folder / "config.json"))
    throw Error(code::kInvalidOption,
                folder.string() + ": exists and holds something else than a checkpoint; give another folder");
  if (!overwrite)
    throw Error(code::kInvalidOption,
                folder.string() + ": holds a checkpoint already; give another folder, or overwrite it (--force)");
}

/// Whether the loader would take the file for a part of a checkpoint's model.
bool is_of_model(const std::string& name) {
  return name == "model.safetensors.index.json" || (name.starts_with("model") && name.ends_with(".safetensors"));
}

/// Puts what `made` holds into `target`, config.json last; other files that are there stay as they are.
void move_into(const fs::path& made, const fs::path& target) {
  constexpr char kLast[] = "config.json";
  fs::create_directory(target);
  std::vector<fs::path> stale, names;
  for (const auto& entry : fs::directory_iterator(target))
    if (entry.path().filename() == kLast || is_of_model(entry.path().filename().string()))
      stale.push_back(entry.path());
  for (const auto& entry : fs::directory_iterator(made)) names.push_back(entry.path().filename());
  for (const fs::path& file : stale) fs::remove(file);
  for (const fs::path& name : names)
    if (name != kLast) fs::rename(made / name, target / name);
  fs::rename(made / kLast, target / kLast);
}

}  // namespace

WrittenCheckpoint write_checkpoint(const std::string& folder, const ModelConfig& config, const WriteOptions& options,
                                   const WeightHooks& hooks) {
  if (options.dtype == DType::f16) throw Error(code::kInvalidOption, "dtype is f16; allowed: bf16, f32");
  fs::path target = fs::absolute(folder).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // a slash at the end
  try {
    check_target(target, options.overwrite);
    const FolderBeside made(target);
    ModelWeights unused;
    std::vector<TensorSpec> tensors;
    for (const PlannedWeight& weight : plan_weights(config, WeightFormat::bf16, unused))
      tensors.insert(tensors.end(), weight.parts.begin(), weight.parts.end());
    RandomSource source(options.seed, hooks.threads > 0 ? hooks.threads : 1);
    const WrittenCheckpoint written = write_tensors(
        made.path().string(), tensors, source, {.dtype = options.dtype, .shard_bytes = options.shard_bytes}, hooks);
    write_text(made.path() / "generation_config.json",
               "{\n  \"eos_token_id\": " + list(config.end_token_ids) + "\n}\n");
    write_text(made.path() / "config.json", config_json(config, options.dtype));
    move_into(made.path(), target);
    return written;
  } catch (const fs::filesystem_error& e) {
    unwritable(target.string(), e.code().message());
  }
}

}  // namespace sdar
