// Checkpoints that are broken in one place each, and what loading says of them.
#include "model/checkpoint.h"

#include <algorithm>
#include <cmath>

#include "check.h"
#include "loading.h"
#include "util/error.h"

using files::find;
using files::Sharded;
using files::Tensor;
using loading::load;
using loading::whole;
using namespace sdar;

namespace {

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

constexpr char kQ[] = "model.layers.0.self_attn.q_proj.weight";  // [8, 8]

}  // namespace

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
  CHECK_THROWS("CHECKPOINT_INVALID", "occurs twice", load_file(files::with_header("{\"a\": 1, \"a\": 2}", "")));
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
}

TEST("tensors that are not part of the model are passed over, whatever their type and shape, and told") {
  const auto told = [](const std::vector<Tensor>& tensors) {
    files::TinyFolder folder;
    folder.model(tensors);
    const ModelWeights weights = load(folder.path);
    CHECK(whole(weights));
    return weights.passed_over;
  };
  CHECK(told(files::tiny_tensors()).empty());
  for (const Tensor& extra :
       {files::f32("model.layers.0.self_attn.rotary_emb.inv_freq", {2}),
        Tensor{"model.position_ids", "I64", {1, 4}, std::string(32, '\1')}, Tensor{"mask", "BOOL", {3}, "abc"},
        Tensor{"scale", "F8_E4M3", {}, "a"}, Tensor{"later.type", "U3_PACKED", {5, 7}, "abcde"},
        Tensor{"empty", "C128", {0, 9}, ""}, Tensor{"\\u001b[31m\\n", "F32", {1}, "abcd"}}) {
    auto tensors = files::tiny_tensors();
    tensors.insert(tensors.begin() + 3, extra);
    const std::string message = told(tensors);
    CHECK(message.starts_with("tensor ") &&
          message.ends_with(" is not part of the model in config.json and passed over"));
    CHECK(std::all_of(message.begin(), message.end(), [](char c) { return c >= ' '; }));
  }
  CHECK(
      told(files::tiny_tensors(16, 3)).starts_with("tensor model.layers.2.input_layernorm.weight and 10 more are not"));
  files::TinyFolder folder;
  auto config = files::tiny_config();
  config["tie_word_embeddings"] = "true";
  folder.config(config);
  CHECK(!load(folder.path).lm_head);
}

TEST("the bias of a weight would change what the model computes") {
  for (const char* name : {"model.layers.0.self_attn.q_proj.bias", "model.norm.bias", "lm_head.bias"}) {
    auto tensors = files::tiny_tensors();
    tensors.push_back(files::f32(name, {8}));
    CHECK_THROWS("CHECKPOINT_INVALID", (std::string("tensor ") + name + " is a bias").c_str(), load_tensors(tensors));
  }
}

TEST("a weight of a type that no weight can have") {
  for (const char* dtype : {"I64", "F8_E4M3", "f32", ""}) {
    auto tensors = files::tiny_tensors();
    find(tensors, kQ).dtype = dtype;
    CHECK_THROWS("CHECKPOINT_INVALID",
                 (std::string(kQ) + ": dtype \"" + dtype + "\" is not supported; allowed: F32, F16, BF16").c_str(),
                 load_tensors(tensors));
  }
}

TEST("a tensor with more dimensions than any model has") {
  auto tensors = files::tiny_tensors();
  find(tensors, kQ).shape = std::vector<int64_t>(1000, 1);
  CHECK_THROWS("CHECKPOINT_INVALID", "shape has 1000 dimensions; at most 64 are allowed", load_tensors(tensors));
}

TEST("headers whose sum is too long") {
  Sharded checkpoint;
  const std::string padding(20 << 20, ' ');
  for (const char* shard : {"s0", "s1"}) {
    const std::string bytes = files::read(checkpoint.path + "/" + shard);
    uint64_t length;
    std::memcpy(&length, bytes.data(), 8);
    files::write(checkpoint.path + "/" + shard,
                 files::with_header(bytes.substr(8, length) + padding, bytes.substr(8 + length)));
  }
  CHECK_THROWS("CHECKPOINT_INVALID", "s1: the headers up to this file's have", load(checkpoint.path));
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
  config["hidden_size"] = "262144";
  config["vocab_size"] = "4194304";
  folder.config(config);
  CHECK_THROWS("CHECKPOINT_INVALID", "config.json means [4194304, 262144]", load(folder.path));
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

int main(int c, char** v) { return check::run(c, v); }
