#include "model/config.h"

#include "check.h"
#include "checkpoint_files.h"

using namespace sdar;
using files::Members;

namespace {

/// Reads tiny_config() with one member replaced ("" removes it).
ModelConfig read_with(const std::string& name, const std::string& value, Members members = files::tiny_config()) {
  files::TempFolder folder;
  members[name] = value;
  files::write(folder / "config.json", files::object(members));
  return read_config(folder.path);
}

Members moe_config() {
  Members members = files::tiny_config();
  members.merge(Members{{"num_experts", "4"}, {"num_experts_per_tok", "2"}, {"moe_intermediate_size", "6"}});
  members["model_type"] = "\"sdar_moe\"";
  members["num_hidden_layers"] = "4";
  return members;
}

}  // namespace

TEST("the shipped model's settings") {
  const ModelConfig c = read_config("models/sdar-nano");
  CHECK(c.model_type == "sdar" && c.tied && c.block_size == 8 && c.mask_token_id == 559);
  CHECK((c.end_token_ids == std::vector<int32_t>{558, 556}));
  CHECK(c.shape.layers == 6 && c.shape.hidden == 256 && c.shape.heads == 4 && c.shape.kv_heads == 2);
  CHECK(c.shape.head_dim == 64 && c.shape.intermediate == 640 && c.shape.vocabulary == 560 && c.shape.context == 1024);
  CHECK(c.shape.rope_theta == 10000.0f && c.shape.rms_eps == 1e-6f && c.shape.experts == 0);
  CHECK((c.sparse == std::vector<bool>(6, false)));
}

TEST("the mixture of experts' settings") {
  const ModelConfig c = read_config("test/golden/tiny-moe");
  CHECK(c.model_type == "sdar_moe" && c.shape.experts == 8 && c.shape.experts_per_token == 2 && c.norm_topk_prob);
  CHECK(c.shape.moe_intermediate == 48 && (c.sparse == std::vector<bool>(3, true)));
  const Members moe = moe_config();
  CHECK((read_with("decoder_sparse_step", "2", moe).sparse == std::vector<bool>{false, true, false, true}));
  CHECK((read_with("mlp_only_layers", "[0, 3]", moe).sparse == std::vector<bool>{false, true, true, false}));
  CHECK(read_with("intermediate_size", "", moe).shape.intermediate == 0);
  CHECK_THROWS("CONFIG_INVALID", "num_experts_per_tok is 5", read_with("num_experts_per_tok", "5", moe));
  CHECK_THROWS("CONFIG_INVALID", "num_experts is missing", read_with("num_experts", "", moe));
  CHECK_THROWS("CONFIG_INVALID", "mlp_only_layers is 4", read_with("mlp_only_layers", "[4]", moe));
  CHECK_THROWS("CONFIG_INVALID", "decoder_sparse_step is 0", read_with("decoder_sparse_step", "0", moe));
  CHECK_THROWS("CONFIG_INVALID", "norm_topk_prob is \"yes\"", read_with("norm_topk_prob", "\"yes\"", moe));
  Members many = moe;
  many["num_hidden_layers"] = many["num_experts"] = "1024";
  CHECK_THROWS("CONFIG_INVALID", "at most 65536", read_with("num_experts_per_tok", "1", many));
  Members dense = moe;
  dense["decoder_sparse_step"] = "2";
  CHECK_THROWS("CONFIG_INVALID", "intermediate_size is missing", read_with("intermediate_size", "", dense));
}

TEST("defaults and other spellings") {
  CHECK(read_with("block_size", "").block_size == 4);
  CHECK(read_with("head_dim", "").shape.head_dim == 4);
  CHECK(read_with("num_key_value_heads", "null").shape.kv_heads == 2);
  CHECK(read_with("rms_norm_eps", "").shape.rms_eps == 1e-6f);
  CHECK(!read_with("tie_word_embeddings", "").tied);
  CHECK(read_with("rope_theta", "500000").shape.rope_theta == 500000.0f);
  CHECK(read_with("rope_scaling", "null").shape.rope_theta == 10000.0f);
  CHECK(read_with("rope_scaling", "{\"rope_type\": \"default\"}").shape.rope_theta == 10000.0f);
  Members moved = files::tiny_config();
  moved["rope_theta"] = "";
  CHECK(read_with("rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 7e4}", moved).shape.rope_theta ==
        7e4f);
  CHECK(read_with("eos_token_id", "").end_token_ids.empty());
  CHECK((read_with("eos_token_id", "[3, 1, 3]").end_token_ids == std::vector<int32_t>{3, 1}));
  CHECK(read_with("something_else", "{\"a\": [1]}").block_size == 4);
}

TEST("generation_config.json wins over config.json for end ids") {
  files::TinyFolder folder;
  files::write(folder / "generation_config.json", "{\"eos_token_id\": [2, 5]}");
  CHECK((read_config(folder.path).end_token_ids == std::vector<int32_t>{2, 5}));
  files::write(folder / "generation_config.json", "{\"eos_token_id\": 7}");
  CHECK((read_config(folder.path).end_token_ids == std::vector<int32_t>{7}));
  files::write(folder / "generation_config.json", "{\"temperature\": 1}");
  CHECK((read_config(folder.path).end_token_ids == std::vector<int32_t>{0}));
  files::write(folder / "generation_config.json", "{\"eos_token_id\": 16}");
  CHECK_THROWS("CONFIG_INVALID", "generation_config.json: eos_token_id is 16; expected an integer from 0 to 15",
               read_config(folder.path));
  files::write(folder / "generation_config.json", "[");
  CHECK_THROWS("CONFIG_INVALID", "generation_config.json: not valid JSON", read_config(folder.path));
}

TEST("the mask id from the tokenizer") {
  files::TinyFolder folder;
  Members config = files::tiny_config();
  config["mask_token_id"] = "";
  folder.config(config);
  const auto tokenizer_config = [&](const std::string& text) { files::write(folder / "tokenizer_config.json", text); };
  CHECK_THROWS("CONFIG_INVALID", "mask_token_id is missing", read_config(folder.path));
  tokenizer_config("{\"eos_token\": \"x\"}");
  CHECK_THROWS("CONFIG_INVALID", "no mask_token either", read_config(folder.path));
  tokenizer_config("{\"mask_token\": \"<M>\", \"added_tokens_decoder\": {\"9\": {\"content\": \"<M>\"}}}");
  CHECK(read_config(folder.path).mask_token_id == 9);
  tokenizer_config(
      "{\"mask_token\": {\"content\": \"<M>\"}, \"added_tokens_decoder\": {\"9\": {\"content\": \"<m>\"}}}");
  CHECK_THROWS("CONFIG_INVALID", "the id of mask_token \"<M>\" is missing", read_config(folder.path));
  files::write(folder / "tokenizer.json",
               "{\"added_tokens\": [{\"id\": 3, \"content\": \"a\"}, {\"id\": 11, \"content\": \"<M>\"}]}");
  CHECK(read_config(folder.path).mask_token_id == 11);
  tokenizer_config("{\"mask_token\": \"<M>\", \"added_tokens_decoder\": {\"16\": {\"content\": \"<M>\"}}}");
  CHECK_THROWS("CONFIG_INVALID", "<M>\" is 16", read_config(folder.path));
  for (const char* key : {"", "-1", "99999999999999999999", "4x"}) {
    tokenizer_config(std::string("{\"mask_token\": \"<M>\", \"added_tokens_decoder\": {\"") + key +
                     "\": {\"content\": \"<M>\"}}}");
    CHECK_THROWS("CONFIG_INVALID", "<M>\" is \"", read_config(folder.path));
  }
}

TEST("model types") {
  Members next = files::tiny_config();
  next["mask_token_id"] = next["block_size"] = "";
  const ModelConfig parent = read_with("model_type", "\"qwen3\"", next);
  CHECK(parent.decoding == Decoding::autoregressive && parent.block_size == 1 && parent.mask_token_id == -1);
  CHECK(read_with("block_size", "4").decoding == Decoding::block_diffusion);
  CHECK(read_with("model_type", "\"qwen3_moe\"", moe_config()).shape.experts == 4);
  CHECK_THROWS("UNSUPPORTED_MODEL",
               "\"llama\", which is not supported; allowed: \"sdar\", \"sdar_moe\", \"qwen3\", \"qwen3_moe\"",
               read_with("model_type", "\"llama\""));
  CHECK_THROWS("CONFIG_INVALID", "model_type is missing", read_with("model_type", ""));
  CHECK_THROWS("CONFIG_INVALID", "model_type is 3", read_with("model_type", "3"));
}

TEST("variants that are not computed are refused") {
  const std::pair<const char*, const char*> variants[] = {
      {"hidden_act", "\"gelu\""},
      {"use_sliding_window", "true"},
      {"partial_rotary_factor", "0.5"},
      {"mlp_bias", "true"},
      {"use_qk_norm", "false"},
      {"n_shared_experts", "1"},
      {"routed_scaling_factor", "2.5"},
      {"scoring_func", "\"sigmoid\""},
      {"query_pre_attn_scalar", "64"},
      {"final_logit_softcapping", "30.0"},
      {"rope_scaling", "{\"rope_type\": \"longrope\", \"factor\": 4}"},
      {"rope_scaling", "{\"type\": \"default\", \"mrope_section\": [1, 1, 2]}"},
      {"rope_scaling", "{\"factor\": 2}"},
      {"rope_parameters", "{\"rope_type\": \"llama3\"}"},
      {"quantization_config", "{\"quant_method\": \"fp8\"}"},
      {"layer_types", "[\"full_attention\", \"sliding_attention\"]"}};
  for (const auto& [name, value] : variants) CHECK_THROWS("UNSUPPORTED_MODEL", name, read_with(name, value));
  const std::pair<const char*, const char*> harmless[] = {{"attention_bias", "false"},
                                                          {"hidden_act", "\"silu\""},
                                                          {"use_sliding_window", "false"},
                                                          {"sliding_window", "4096"},
                                                          {"max_window_layers", "28"},
                                                          {"partial_rotary_factor", "1.0"},
                                                          {"mlp_bias", "false"},
                                                          {"use_qk_norm", "true"},
                                                          {"n_shared_experts", "0"},
                                                          {"scoring_func", "\"softmax\""},
                                                          {"attention_dropout", "0.1"},
                                                          {"fuse_cross_entropy", "true"},
                                                          {"query_pre_attn_scalar", "null"}};
  for (const auto& [name, value] : harmless) CHECK(read_with(name, value).shape.hidden == 8);
  read_with("quantization_config", "null");
}

TEST("rope_scaling: what transformers makes of it") {
  const auto scaling = [](const std::string& rope) { return read_with("rope_scaling", rope).shape; };
  const ModelShape linear = scaling("{\"type\": \"linear\", \"factor\": 2.5}");
  CHECK(linear.rope_scaling.kind == RopeScaling::Kind::linear && linear.rope_scaling.factor == 2.5);
  CHECK(linear.rope_scaling.attention_factor == 1 && linear.context == 64);
  // Its stretch begins beyond max_position_embeddings.
  CHECK(scaling("{\"rope_type\": \"dynamic\", \"factor\": 2}").rope_scaling.kind == RopeScaling::Kind::none);
  const ModelShape yarn = scaling("{\"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 48}");
  CHECK(yarn.rope_scaling.kind == RopeScaling::Kind::yarn && yarn.rope_scaling.original_context == 48);
  CHECK(yarn.rope_scaling.beta_fast == 32 && yarn.rope_scaling.beta_slow == 1 && yarn.rope_scaling.truncate);
  CHECK_NEAR(yarn.rope_scaling.attention_factor, 1.138629436111989, 1e-12);
  CHECK(yarn.context == 4 * 48);
  const ModelShape own =
      scaling("{\"rope_type\": \"yarn\", \"type\": \"linear\", \"factor\": 2, \"attention_factor\": 0.5}");
  CHECK(own.rope_scaling.attention_factor == 0.5 && own.rope_scaling.original_context == 64 && own.context == 64);
  CHECK_NEAR(scaling("{\"rope_type\": \"yarn\", \"factor\": 2.5, \"mscale\": 1, \"mscale_all_dim\": 0.7}")
                 .rope_scaling.attention_factor,
             1.0258318575406153, 1e-12);
  for (const char* bad : {"{\"rope_type\": \"yarn\"}", "{\"rope_type\": \"linear\", \"factor\": 0.5}",
                          "{\"rope_type\": \"linear\", \"factor\": \"2\"}", "{\"rope_type\": 3}",
                          "{\"rope_type\": \"yarn\", \"factor\": 2, \"beta_fast\": 1, \"beta_slow\": 2}"})
    CHECK_THROWS("CONFIG_INVALID", "rope_scaling", scaling(bad));
}

TEST("every field: type and range") {
  const std::pair<const char*, std::vector<const char*>> bad[] = {
      {"hidden_size", {"", "0", "-8", "8.5", "\"8\"", "null", "[8]", "1e30", "99999999999999999999"}},
      {"num_hidden_layers", {"", "0", "1025"}},
      {"num_attention_heads", {"", "0", "true"}},
      {"num_key_value_heads", {"0", "3", "4"}},
      {"head_dim", {"3", "0", "-2", "8192"}},
      {"intermediate_size", {"", "0", "2147483648"}},
      {"vocab_size", {"", "0", "4294967296"}},
      {"max_position_embeddings", {"", "0", "1e3"}},
      {"rope_theta", {"", "0", "-1", "\"x\"", "1e300"}},
      {"rms_norm_eps", {"0", "-1e-6", "2", "\"x\""}},
      {"tie_word_embeddings", {"1", "\"true\""}},
      {"attention_bias", {"0"}},
      {"rope_scaling", {"3", "[]"}},
      {"layer_types", {"\"full_attention\""}},
      {"block_size", {"0", "65", "-1", "4.0"}},
      {"mask_token_id", {"16", "-1", "\"15\""}},
      {"eos_token_id", {"16", "-1", "\"0\"", "[0, 16]", "[[0]]", "{}"}}};
  for (const auto& [name, values] : bad)
    for (const char* value : values) CHECK_THROWS("CONFIG_INVALID", name, read_with(name, value));
  CHECK_THROWS("CONFIG_INVALID", "config.json: hidden_size is \"8\"; expected an integer from 1 to 262144",
               read_with("hidden_size", "\"8\""));
  Members odd = files::tiny_config();
  odd["head_dim"] = "";
  CHECK_THROWS("CONFIG_INVALID", "head_dim is missing", read_with("hidden_size", "9", odd));
  CHECK_THROWS("CONFIG_INVALID", "head_dim is missing; expected an even", read_with("hidden_size", "6", odd));
}

TEST("a byte order mark, and a name that comes twice with one value") {
  files::TempFolder folder;
  const std::string text = files::object(files::tiny_config());
  files::write(folder / "config.json", "\xef\xbb\xbf" + text);
  CHECK(read_config(folder.path).shape.hidden == 8);
  files::write(folder / "config.json",
               "{\"hidden_size\": 8, \"x\": {\"y\": [1]}, \"x\": {\"y\": [1]}, " + text.substr(1));
  CHECK(read_config(folder.path).shape.hidden == 8);
}

TEST("end ids: each once, in the order they come, not thousands") {
  CHECK(read_with("eos_token_id", "[3, 1, 3, 2, 1]").end_token_ids == std::vector<int32_t>({3, 1, 2}));
  Members wide = files::tiny_config();
  wide["vocab_size"] = "4194304";
  std::string many = "[0", all = "[0";
  for (int i = 1; i < 1000000; i++) many += "," + std::to_string(i);
  for (int i = 1; i < 1000000; i++) all += "," + std::to_string(i % 4096);
  CHECK_THROWS("CONFIG_INVALID", "config.json: eos_token_id has 1000000 different elements; at most 4096 are allowed",
               read_with("eos_token_id", many + "]", wide));
  CHECK(read_with("eos_token_id", all + "]", wide).end_token_ids.size() == 4096);
  CHECK_THROWS("CONFIG_INVALID", "an element of eos_token_id is 4294967301",
               read_with("eos_token_id", "[4294967301]", wide));
}

TEST("files that are not what they should be") {
  files::TinyFolder folder;
  const std::string path = folder / "config.json";
  CHECK_THROWS("FILE_NOT_FOUND", "no such folder", read_config(folder / "absent"));
  CHECK_THROWS("FILE_NOT_FOUND", "no such folder", read_config(path));
  for (const std::string text : {"", "{", "{} x", "{\"a\": 1,}", "\"\xff\"", "{\"model_type\": \"\xc3\x28\"}"}) {
    files::write(path, text);
    CHECK_THROWS("CONFIG_INVALID", "config.json: not valid JSON", read_config(folder.path));
  }
  files::write(path, "[1]");
  CHECK_THROWS("CONFIG_INVALID", "not a JSON object", read_config(folder.path));
  files::write(path, "{\"a\": 1, \"b\": 2, \"a\": 3}");
  CHECK_THROWS("CONFIG_INVALID", "the name \"a\" occurs twice", read_config(folder.path));
  files::write(path, "{\"a\": [1, {\"c\": 2}], \"b\": 2, \"a\": [1, {\"c\": 3}]}");
  CHECK_THROWS("CONFIG_INVALID", "the name \"a\" occurs twice", read_config(folder.path));
  files::write(path, std::string(1 << 20, '['));
  CHECK_THROWS("CONFIG_INVALID", "deeper than 64 levels", read_config(folder.path));
  std::string nested;
  for (int i = 0; i < 100000; i++) nested += "{\"a\":";
  files::write(path, nested);
  CHECK_THROWS("CONFIG_INVALID", "deeper than 64 levels", read_config(folder.path));
  files::write(path, std::string(17 << 20, ' '));
  CHECK_THROWS("CONFIG_INVALID", "are allowed", read_config(folder.path));
  std::filesystem::remove(path);
  CHECK_THROWS("FILE_NOT_FOUND", "config.json: no such file", read_config(folder.path));
  std::filesystem::create_directory(path);
  CHECK_THROWS("FILE_UNREADABLE", "is a folder", read_config(folder.path));
}

TEST("mutated configurations load or throw Error") {
  std::mt19937_64 random(7);
  files::TempFolder folder;
  const std::string whole = files::object(moe_config());
  int good = 0;
  for (int i = 0; i < 4000; i++) {
    std::string text = whole;
    for (uint64_t n = 1 + random() % 3; n > 0; n--)
      text[random() % text.size()] = static_cast<char>(random() % 3 ? 32 + random() % 95 : random());
    files::write(folder / "config.json", text);
    try {
      good += read_config(folder.path).shape.layers > 0;
    } catch (const Error&) {
    }
  }
  CHECK(good > 0 && good < 4000);
}

int main(int c, char** v) { return check::run(c, v); }
