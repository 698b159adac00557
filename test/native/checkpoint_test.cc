#include "model/checkpoint.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/reference/reference.h"
#include "backend/cpu/reference/weights.h"
#include "check.h"
#include "checkpoint_files.h"
#include "model/weights.h"
#include "util/error.h"

using namespace sdar;
using files::find;
using files::Tensor;

namespace {

ModelWeights load(const std::string& folder, WeightFormat format = WeightFormat::f32, const WeightHooks& hooks = {}) {
  // A handle's bytes do not depend on the backend object, which is the same for all here.
  static const std::unique_ptr<Backend> backend = cpu::make_reference_backend(1);
  return load_weights(*backend, folder, read_config(folder), format, hooks);
}

/// What loading says of the tiny checkpoint with these tensors.
void load_tensors(const std::vector<Tensor>& tensors) {
  files::TinyFolder folder;
  folder.model(tensors);
  load(folder.path);
}
void load_file(const std::string& bytes) {
  files::TinyFolder folder;
  files::write(folder / "model.safetensors", bytes);
  load(folder.path);
}
/// The tiny checkpoint with the header entry of one tensor replaced.
void load_entry(const std::string& name, const std::string& entry) {
  auto tensors = files::tiny_tensors();
  find(tensors, name).entry = entry;
  load_tensors(tensors);
}

std::vector<float> row(const Weight& weight, int64_t index) {
  std::vector<float> values(weight.spec.cols);
  cpu::reference::packed(weight).load_row(index, values.data());
  return values;
}
std::vector<float> floats(const Tensor& tensor, int64_t row, int64_t cols) {
  std::vector<float> values(cols);
  std::memcpy(values.data(), tensor.data.data() + row * cols * 4, cols * 4);
  return values;
}

bool whole(const ModelWeights& weights) {
  bool all = weights.memory && weights.embedding && weights.final_norm && !weights.layers.empty();
  for (const LayerWeights& layer : weights.layers)
    all = all && layer.input_norm && layer.qkv && layer.q_norm && layer.k_norm && layer.o && layer.post_norm &&
          ((layer.gate_up && layer.down) || (layer.router && !layer.expert_down.empty()));
  return all;
}

/// Three shards and an index for the tiny checkpoint.
struct Sharded : files::TinyFolder {
  Sharded() {
    std::filesystem::remove(*this / "model.safetensors");
    const auto all = files::tiny_tensors();
    for (size_t i = 0; i < all.size(); i++) {
      shards[std::string("s") + std::to_string(i % 3)].push_back(all[i]);
      map[all[i].name] = std::string("\"s") + std::to_string(i % 3) + "\"";
    }
    write();
  }
  void write() {
    for (const auto& [name, tensors] : shards) files::write(*this / name, files::safetensors(tensors));
    files::write(*this / "model.safetensors.index.json", "{\"weight_map\": " + files::object(map) + "}");
  }
  std::map<std::string, std::vector<Tensor>> shards;
  files::Members map;
};

constexpr char kQ[] = "model.layers.0.self_attn.q_proj.weight";  // [8, 8]

}  // namespace

TEST("the shipped model and the golden checkpoints load in every format") {
  for (const char* folder : {"models/sdar-nano", "test/golden/tiny-dense", "test/golden/tiny-f16-sharded",
                             "test/golden/tiny-tied", "test/golden/tiny-moe"})
    for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4})
      CHECK(whole(load(folder, format)));
  const ModelWeights nano = load("models/sdar-nano");
  CHECK(nano.parameters == 4276224 && !nano.lm_head && nano.layers.size() == 6);
  const size_t plain = 4 * static_cast<size_t>(nano.parameters);
  CHECK(nano.bytes >= plain && nano.bytes < plain + (1 << 16));
  const ModelWeights moe = load("test/golden/tiny-moe", WeightFormat::int4);
  CHECK(moe.lm_head && moe.layers[2].expert_gate_up_views.size() == 8 && moe.layers[2].expert_down_views.size() == 8);
  CHECK(moe.layers[0].router->spec.format == WeightFormat::f32 && !moe.layers[0].gate_up);
  CHECK(moe.embedding->spec.format == WeightFormat::int8 && moe.lm_head->spec.format == WeightFormat::int8);
  CHECK(moe.layers[0].qkv->spec.format == WeightFormat::int4);
}

TEST("tensors arrive where they belong") {
  files::TinyFolder folder;
  auto tensors = files::tiny_tensors();
  const ModelWeights w = load(folder.path);
  const LayerWeights& layer = w.layers[1];
  const std::string at = "model.layers.1.";
  for (int i = 0; i < 8; i++) CHECK(row(*layer.qkv, i) == floats(find(tensors, at + "self_attn.q_proj.weight"), i, 8));
  for (int i = 0; i < 4; i++) {
    CHECK(row(*layer.qkv, 8 + i) == floats(find(tensors, at + "self_attn.k_proj.weight"), i, 8));
    CHECK(row(*layer.qkv, 12 + i) == floats(find(tensors, at + "self_attn.v_proj.weight"), i, 8));
  }
  for (int i = 0; i < 12; i++) {
    CHECK(row(*layer.gate_up, i) == floats(find(tensors, at + "mlp.gate_proj.weight"), i, 8));
    CHECK(row(*layer.gate_up, 12 + i) == floats(find(tensors, at + "mlp.up_proj.weight"), i, 8));
  }
  for (int i = 0; i < 8; i++) {
    CHECK(row(*layer.down, i) == floats(find(tensors, at + "mlp.down_proj.weight"), i, 12));
    CHECK(row(*layer.o, i) == floats(find(tensors, at + "self_attn.o_proj.weight"), i, 8));
  }
  CHECK(row(*layer.input_norm, 0) == floats(find(tensors, at + "input_layernorm.weight"), 0, 8));
  CHECK(row(*layer.post_norm, 0) == floats(find(tensors, at + "post_attention_layernorm.weight"), 0, 8));
  CHECK(row(*layer.q_norm, 0) == floats(find(tensors, at + "self_attn.q_norm.weight"), 0, 4));
  CHECK(row(*layer.k_norm, 0) == floats(find(tensors, at + "self_attn.k_norm.weight"), 0, 4));
  CHECK(row(*w.embedding, 15) == floats(find(tensors, "model.embed_tokens.weight"), 15, 8));
  CHECK(row(*w.lm_head, 15) == floats(find(tensors, "lm_head.weight"), 15, 8));
  CHECK(row(*w.final_norm, 0) == floats(find(tensors, "model.norm.weight"), 0, 8));
  CHECK(w.layers[0].qkv->spec.rows == 16 && w.layers[0].gate_up->spec.rows == 24);
}

TEST("data need not be aligned, in order, or in one file") {
  auto tensors = files::tiny_tensors();
  std::reverse(tensors.begin(), tensors.end());
  std::string bytes = files::safetensors(tensors);
  uint64_t length;
  std::memcpy(&length, bytes.data(), 8);
  const std::string header = bytes.substr(8, length), data = bytes.substr(8 + length);
  for (int pad = 0; pad < 4; pad++) load_file(files::with_header(header + std::string(pad, ' '), data));
  Sharded sharded;
  CHECK(whole(load(sharded.path)));
}

TEST("missing files and folders in their place") {
  files::TinyFolder folder;
  std::filesystem::remove(folder / "model.safetensors");
  CHECK_THROWS("FILE_NOT_FOUND", "has no model.safetensors and no model.safetensors.index.json", load(folder.path));
  std::filesystem::create_directory(folder / "model.safetensors");
  CHECK_THROWS("FILE_UNREADABLE", "model.safetensors: is a folder", load(folder.path));
  std::filesystem::remove(folder / "model.safetensors");
  std::filesystem::create_directory(folder / "model.safetensors.index.json");
  CHECK_THROWS("FILE_UNREADABLE", "index.json: is a folder", load(folder.path));
}

TEST("files that end too soon, at every kind of place") {
  const std::string whole_file = files::safetensors(files::tiny_tensors());
  for (const size_t size : {size_t{0}, size_t{5}})
    CHECK_THROWS("CHECKPOINT_TRUNCATED", "has at least 8", load_file(whole_file.substr(0, size)));
  for (const size_t size : {size_t{8}, size_t{100}})
    CHECK_THROWS("CHECKPOINT_TRUNCATED", "ends inside its header", load_file(whole_file.substr(0, size)));
  CHECK_THROWS("CHECKPOINT_TRUNCATED", "tensor lm_head.weight lies at",
               load_file(whole_file.substr(0, whole_file.size() - 1)));
  CHECK_THROWS("CHECKPOINT_TRUNCATED", "the file is truncated", load_file(whole_file.substr(0, whole_file.size() / 2)));
  CHECK_THROWS("CHECKPOINT_INVALID", "no tensor covers", load_file(whole_file + "x"));
}

TEST("headers that lie") {
  const auto with_length = [](uint64_t length) {
    std::string bytes = files::safetensors(files::tiny_tensors());
    std::memcpy(bytes.data(), &length, 8);
    return bytes;
  };
  CHECK_THROWS("CHECKPOINT_INVALID", "header length is 18446744073709551615", load_file(with_length(UINT64_MAX)));
  CHECK_THROWS("CHECKPOINT_INVALID", "header length is 33554433", load_file(with_length((32 << 20) + 1)));
  CHECK_THROWS("CHECKPOINT_TRUNCATED", "ends inside its header", load_file(with_length(32 << 20)));
  CHECK_THROWS("CHECKPOINT_INVALID", "header: not valid JSON", load_file(with_length(100)));
  CHECK_THROWS("CHECKPOINT_INVALID", "header: not valid JSON", load_file(with_length(0)));
  CHECK_THROWS("CHECKPOINT_INVALID", "header is not a JSON object", load_file(files::with_header("[1, 2]", "")));
  CHECK_THROWS("CHECKPOINT_INVALID", "occurs twice", load_file(files::with_header("{\"a\": 1, \"a\": 1}", "")));
  CHECK_THROWS("CHECKPOINT_INVALID", "not valid JSON", load_file(files::with_header("{\"\xff\": 1}", "")));
  CHECK_THROWS("CHECKPOINT_INVALID", "deeper than 64", load_file(files::with_header(std::string(100000, '['), "")));
  CHECK_THROWS("CHECKPOINT_INVALID", "are missing", load_file(files::with_header("{}", "")));
}

TEST("entries that lie") {
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "{\"dtype\": " + dtype + ", \"shape\": " + shape + ", \"data_offsets\": " + offsets + "}";
  };
  const std::pair<std::string, const char*> bad[] = {
      {"3", "is described by 3"},
      {"{}", "dtype is missing"},
      {entry("\"I64\"", "[8, 8]", "[0, 512]"), "dtype \"I64\" is not supported; allowed: F32, F16, BF16"},
      {entry("\"F8_E4M3\"", "[8, 8]", "[0, 64]"), "dtype \"F8_E4M3\" is not supported"},
      {entry("7", "[8, 8]", "[0, 256]"), "dtype is missing or not a string"},
      {entry("\"F32\"", "8", "[0, 256]"), "shape is missing or not an array"},
      {entry("\"F32\"", "[8, -8]", "[0, 256]"), "shape has -8"},
      {entry("\"F32\"", "[8, 8.0]", "[0, 256]"), "shape has 8"},
      {entry("\"F32\"", "[\"8\", 8]", "[0, 256]"), "shape has \"8\""},
      {entry("\"F32\"", "[4294967296, 4294967296]", "[0, 256]"), "more than 2^64 bytes"},
      {entry("\"F32\"", "[9223372036854775807, 9223372036854775807, 4]", "[0, 256]"), "more than 2^64 bytes"},
      {entry("\"F32\"", "[99999999999999999999]", "[0, 256]"), "shape has 1e+20"},
      {entry("\"F32\"", "[8, 8]", "[0]"), "data_offsets is missing or not"},
      {entry("\"F32\"", "[8, 8]", "[512, 256]"), "expected integers, 0 <= begin <= end"},
      {entry("\"F32\"", "[8, 8]", "[-256, 0]"), "expected integers, 0 <= begin <= end"},
      {entry("\"F32\"", "[8, 8]", "[0, 255]"), "data_offsets span 255 bytes; shape and dtype mean 256"},
      {entry("\"F16\"", "[8, 8]", "[0, 256]"), "data_offsets span 256 bytes; shape and dtype mean 128"}};
  for (const auto& [text, message] : bad) {
    CHECK_THROWS("CHECKPOINT_INVALID", message, load_entry(kQ, text));
    CHECK_THROWS("CHECKPOINT_INVALID", kQ, load_entry(kQ, text));
  }
  CHECK_THROWS("CHECKPOINT_TRUNCATED", "offsets are out of range",
               load_entry(kQ, entry("\"F32\"", "[8, 8]", "[1000000000, 1000000256]")));
  CHECK_THROWS("CHECKPOINT_TRUNCATED", "offsets are out of range",
               load_entry(kQ, entry("\"F32\"", "[2305843009213693951]", "[0, 9223372036854775804]")));
  CHECK_THROWS("CHECKPOINT_INVALID", "overlaps tensor", load_entry(kQ, entry("\"F32\"", "[8, 8]", "[0, 256]")));
  CHECK_THROWS("CHECKPOINT_INVALID", "leaves a hole before it", load_entry(kQ, entry("\"F32\"", "[0, 8]", "[0, 0]")));
}

TEST("tensors that the configuration does not ask for, or misses") {
  auto tensors = files::tiny_tensors();
  std::erase_if(tensors, [](const Tensor& t) { return t.name == kQ; });
  CHECK_THROWS("CHECKPOINT_INVALID", (std::string("tensor ") + kQ + " is missing").c_str(), load_tensors(tensors));
  std::erase_if(tensors, [](const Tensor& t) { return t.name.starts_with("model.layers.1."); });
  CHECK_THROWS("CHECKPOINT_INVALID", "and 11 more are missing", load_tensors(tensors));
  tensors = files::tiny_tensors();
  std::erase_if(tensors, [](const Tensor& t) { return t.name == "lm_head.weight"; });
  CHECK_THROWS("CHECKPOINT_INVALID", "(tie_word_embeddings in config.json is false)", load_tensors(tensors));
  tensors = files::tiny_tensors(16, 3);
  CHECK_THROWS("CHECKPOINT_INVALID",
               "tensor model.layers.2.input_layernorm.weight and 10 more are not part of the model",
               load_tensors(tensors));
  tensors = files::tiny_tensors();
  tensors.push_back(files::f32("model.layers.0.self_attn.q_proj.bias", {8}));
  CHECK_THROWS("CHECKPOINT_INVALID", "q_proj.bias is not part", load_tensors(tensors));
}

TEST("superfluous tensors that are passed over") {
  auto tensors = files::tiny_tensors();
  tensors.push_back(files::f32("model.layers.0.self_attn.rotary_emb.inv_freq", {2}));
  load_tensors(tensors);
  files::TinyFolder folder;
  auto config = files::tiny_config();
  config["tie_word_embeddings"] = "true";
  folder.config(config);
  CHECK(!load(folder.path).lm_head);
}

TEST("shapes that contradict the configuration") {
  const auto with_shape = [](const std::string& name, std::vector<int64_t> shape) {
    auto tensors = files::tiny_tensors();
    find(tensors, name) = files::f32(name, shape);
    load_tensors(tensors);
  };
  CHECK_THROWS("CHECKPOINT_INVALID", "q_proj.weight has shape [8, 7]; config.json means [8, 8]",
               with_shape(kQ, {8, 7}));
  CHECK_THROWS("CHECKPOINT_INVALID", "has shape [64]; config.json means [8, 8]", with_shape(kQ, {64}));
  CHECK_THROWS("CHECKPOINT_INVALID", "has shape [8, 8, 1]", with_shape(kQ, {8, 8, 1}));
  CHECK_THROWS("CHECKPOINT_INVALID", "has shape []", with_shape("model.norm.weight", {}));
  CHECK_THROWS("CHECKPOINT_INVALID", "has shape [0]; config.json means [8]", with_shape("model.norm.weight", {0}));
  CHECK_THROWS("CHECKPOINT_INVALID", "has shape [1, 8]; config.json means [8]",
               with_shape("model.norm.weight", {1, 8}));
  files::TinyFolder folder;
  auto config = files::tiny_config();
  config["hidden_size"] = "1048576";
  config["vocab_size"] = "268435456";
  folder.config(config);
  CHECK_THROWS("CHECKPOINT_INVALID", "config.json means [268435456, 1048576]", load(folder.path));
}

TEST("NaN and infinity in norms") {
  const auto with_value = [](const std::string& name, float value) {
    auto tensors = files::tiny_tensors();
    std::memcpy(find(tensors, name).data.data() + 8, &value, 4);
    load_tensors(tensors);
  };
  CHECK_THROWS("CHECKPOINT_INVALID", "tensor model.norm.weight has NaN at element 2",
               with_value("model.norm.weight", NAN));
  CHECK_THROWS("CHECKPOINT_INVALID", "q_norm.weight has infinity at element 2",
               with_value("model.layers.1.self_attn.q_norm.weight", -INFINITY));
  with_value(kQ, NAN);  // seen when it reaches the logits
  const std::pair<const char*, uint16_t> halves[] = {
      {"BF16", 0x7fc0}, {"BF16", 0xff80}, {"F16", 0x7e00}, {"F16", 0x7c00}};
  for (const auto& [dtype, bits] : halves) {
    auto tensors = files::tiny_tensors();
    Tensor& norm = find(tensors, "model.norm.weight");
    norm = {norm.name, dtype, {8}, std::string(16, '\0')};
    load_tensors(tensors);
    std::memcpy(norm.data.data() + 14, &bits, 2);
    CHECK_THROWS("CHECKPOINT_INVALID", "at element 7", load_tensors(tensors));
  }
}

TEST("indexes that lie") {
  const auto with_index = [](const std::string& text) {
    Sharded folder;
    files::write(folder / "model.safetensors.index.json", text);
    load(folder.path);
  };
  CHECK_THROWS("CHECKPOINT_INVALID", "index.json: not valid JSON", with_index("{"));
  CHECK_THROWS("CHECKPOINT_INVALID", "weight_map is missing", with_index("{}"));
  CHECK_THROWS("CHECKPOINT_INVALID", "weight_map is missing or not an object", with_index("{\"weight_map\": []}"));
  CHECK_THROWS("CHECKPOINT_INVALID", "names no tensor", with_index("{\"weight_map\": {}}"));
  CHECK_THROWS("CHECKPOINT_INVALID", "occurs twice", with_index("{\"weight_map\": {\"a\": \"s0\", \"a\": \"s1\"}}"));
  const auto with_shard = [](const std::string& value) {
    Sharded folder;
    folder.map[kQ] = value;
    folder.write();
    load(folder.path);
  };
  for (const char* value :
       {"\"../s0\"", "\"/etc/passwd\"", "\"..\"", "\".\"", "\"\"", "\"a/b\"", "\"a\\\\b\"", "\"s0\\u0000\""})
    CHECK_THROWS("CHECKPOINT_INVALID", "expected the name of a file in the same folder", with_shard(value));
  CHECK_THROWS("CHECKPOINT_INVALID", "expected a file name", with_shard("3"));
  CHECK_THROWS("FILE_NOT_FOUND", "names the shard \"s9\", which is missing", with_shard("\"s9\""));
  CHECK_THROWS("CHECKPOINT_INVALID", "q_proj.weight is not in the shard", with_shard("\"s0\""));  // it is in s2
  Sharded missing;
  std::filesystem::remove(missing / "s1");
  CHECK_THROWS("FILE_NOT_FOUND", "names the shard \"s1\", which is missing", load(missing.path));
  Sharded cut;
  std::filesystem::resize_file(cut / "s1", std::filesystem::file_size(cut / "s1") - 4);
  CHECK_THROWS("CHECKPOINT_TRUNCATED", "/s1: tensor", load(cut.path));
  Sharded twice;
  twice.shards["s1"].push_back(twice.shards["s0"][0]);
  twice.write();
  CHECK_THROWS("CHECKPOINT_INVALID", "is also in", load(twice.path));
  Sharded extra;
  extra.map["model.extra"] = "\"s0\"";
  extra.write();
  CHECK_THROWS("CHECKPOINT_INVALID", "tensor model.extra is not in the shard \"s0\"", load(extra.path));
}

namespace {

constexpr int64_t kManyTokens = 1 << 19;  // × 8 × 4 bytes: 16 MiB twice, so that a load takes many jobs

struct LargeFolder : files::TinyFolder {
  LargeFolder() {
    auto members = files::tiny_config();
    members["vocab_size"] = std::to_string(kManyTokens);
    config(members);
    model(files::tiny_tensors(kManyTokens));
  }
};

}  // namespace

TEST("progress rises from 0 to the whole, on the calling thread") {
  LargeFolder folder;
  for (const int threads : {1, 3}) {
    std::vector<int64_t> seen;
    int64_t total = 0;
    load(folder.path, WeightFormat::bf16,
         {.progress = [&](int64_t done, int64_t all) { seen.push_back(done), total = all; }, .threads = threads});
    CHECK(seen.size() > 3 && seen.front() == 0 && seen.back() == total);
    CHECK(total > 2 * kManyTokens * 8 * 4);
    for (size_t i = 1; i < seen.size(); i++) CHECK(seen[i] > seen[i - 1]);
  }
}

TEST("the packed bytes do not depend on the threads") {
  LargeFolder folder;
  const ModelWeights one = load(folder.path, WeightFormat::int8, {.threads = 1});
  const ModelWeights three = load(folder.path, WeightFormat::int8, {.threads = 3});
  CHECK(one.bytes == three.bytes && std::memcmp(one.memory.get(), three.memory.get(), one.bytes) == 0);
}

TEST("loading can be cancelled at any moment") {
  LargeFolder folder;
  for (int after = 0; after < 12; after++) {
    int asked = 0;
    CHECK_THROWS("ABORTED", "cancelled",
                 load(folder.path, WeightFormat::bf16, {.cancelled = [&] { return asked++ == after; }, .threads = 2}));
  }
}

TEST("what the progress hook throws comes out") {
  LargeFolder folder;
  CHECK_THROWS("INTERNAL", "hook", load(folder.path, WeightFormat::f32, {.progress = [](int64_t done, int64_t) {
                                          if (done > 0) throw Error(code::kInternal, "hook");
                                        }}));
}

TEST("a file truncated in the middle of a load") {
  for (const int threads : {1, 2})
    for (const size_t left : {size_t{0}, size_t{4096}, size_t{20} << 20}) {
      LargeFolder folder;
      bool cut = false;
      CHECK_THROWS("CHECKPOINT_TRUNCATED", "model.safetensors: was truncated while it was in use",
                   load(folder.path, WeightFormat::bf16,
                        {.progress =
                             [&](int64_t done, int64_t) {
                               if (done > 0 && !cut) std::filesystem::resize_file(folder / "model.safetensors", left);
                               cut = cut || done > 0;
                             },
                         .threads = threads}));
      CHECK(cut);
    }
}

TEST("mutated headers load or throw Error") {
  std::mt19937_64 random(11);
  files::TinyFolder folder;
  const std::string whole_file = files::safetensors(files::tiny_tensors());
  uint64_t length;
  std::memcpy(&length, whole_file.data(), 8);
  int good = 0, bad = 0;
  for (int i = 0; i < 6000; i++) {
    std::string bytes = whole_file;
    for (uint64_t n = 1 + random() % 3; n > 0; n--) {
      const size_t at = random() % 8 == 0 ? random() % 8 : 8 + random() % length;
      char& c = bytes[at];
      if (c >= '0' && c <= '9')
        c = static_cast<char>('0' + random() % 10);  // numbers that stay numbers lie best
      else
        c = static_cast<char>(random() % 2 ? 32 + random() % 95 : random());
    }
    if (random() % 10 == 0) bytes.resize(random() % bytes.size());
    files::write(folder / "model.safetensors", bytes);
    try {
      good += whole(load(folder.path));
    } catch (const Error& e) {
      bad += !std::string(e.what()).empty();
    }
  }
  CHECK(good + bad == 6000);
  CHECK(good > 20 && bad > 3000);  // metadata and numbers that did not change still load
}

TEST("random weights: seeded, spread as asked, independent of threads") {
  const auto backend = cpu::make_reference_backend(1);
  const ModelConfig config = read_config("models/sdar-nano");
  const ModelWeights a = random_weights(*backend, config, WeightFormat::f32, 5, {.threads = 1});
  const ModelWeights b = random_weights(*backend, config, WeightFormat::f32, 5, {.threads = 3});
  const ModelWeights c = random_weights(*backend, config, WeightFormat::f32, 6);
  CHECK(whole(a) && a.parameters == 4276224);
  CHECK(std::memcmp(a.memory.get(), b.memory.get(), a.bytes) == 0);
  CHECK(std::memcmp(a.memory.get(), c.memory.get(), a.bytes) != 0);
  CHECK(row(*a.layers[0].qkv, 0) != row(*a.layers[1].qkv, 0));
  double sum = 0, squares = 0;
  for (int i = 0; i < 560; i++)
    for (const float v : row(*a.embedding, i)) sum += v, squares += v * v;
  const double n = 560 * 256;
  CHECK_NEAR(sum / n, 0, 3e-4);
  CHECK_NEAR(std::sqrt(squares / n), 0.02, 2e-4);
  for (const float v : row(*a.final_norm, 0)) CHECK(std::abs(v - 1) < 0.1);
  CHECK(whole(random_weights(*backend, read_config("test/golden/tiny-moe"), WeightFormat::int8, 1)));
}

TEST("a shape that no machine can hold") {
  const auto backend = cpu::make_reference_backend(1);
  ModelConfig config = read_config("models/sdar-nano");
  config.shape.vocabulary = 1 << 28;
  config.shape.hidden = 1 << 20;
  CHECK_THROWS("OUT_OF_MEMORY", "the weights take", random_weights(*backend, config, WeightFormat::bf16, 1));
}

int main(int c, char** v) { return check::run(c, v); }
