// Small checkpoints made on the spot, whole or broken in a chosen place.
#pragma once
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace files {

struct TempFolder {
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "sdar-test-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path); }
  TempFolder(const TempFolder&) = delete;
  std::string operator/(const std::string& name) const { return path + "/" + name; }
  std::string path;
};

/// A new file: some file systems flush to disk when one is overwritten.
inline void write(const std::string& path, const std::string& bytes) {
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
inline std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Members of a JSON object as raw values; "" leaves a member out.
using Members = std::map<std::string, std::string>;

inline std::string object(const Members& members) {
  std::string text = "{";
  for (const auto& [name, value] : members)
    if (!value.empty()) text += (text.size() > 1 ? ", " : "") + ("\"" + name + "\": ") + value;
  return text + "}";
}

inline Members tiny_config() {
  return {{"model_type", "\"sdar\""},   {"hidden_size", "8"},         {"num_hidden_layers", "2"},
          {"num_attention_heads", "2"}, {"num_key_value_heads", "1"}, {"head_dim", "4"},
          {"intermediate_size", "12"},  {"vocab_size", "16"},         {"max_position_embeddings", "64"},
          {"rope_theta", "10000.0"},    {"rms_norm_eps", "1e-6"},     {"tie_word_embeddings", "false"},
          {"mask_token_id", "15"},      {"eos_token_id", "0"},        {"block_size", "4"}};
}

/// One tensor of a file, all of its header entry open to lies.
struct Tensor {
  std::string name;
  std::string dtype = "F32";
  std::vector<int64_t> shape;
  std::string data;
  std::string entry{};  ///< replaces the header entry when set
};

inline Tensor f32(const std::string& name, std::vector<int64_t> shape, uint64_t seed = 1) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  std::minstd_rand random(static_cast<uint32_t>(seed + std::hash<std::string>{}(name)));
  Tensor tensor{name, "F32", std::move(shape), std::string(static_cast<size_t>(count) * 4, '\0')};
  for (int64_t i = 0; i < count; i++) {
    const float value = static_cast<float>(random() % 2001) * 1e-4f - 0.1f;
    std::memcpy(tensor.data.data() + 4 * i, &value, 4);
  }
  return tensor;
}

/// All tensors of tiny_config(), or of a wider vocabulary.
inline std::vector<Tensor> tiny_tensors(int64_t vocabulary = 16, int64_t layers = 2) {
  std::vector<Tensor> all{f32("model.embed_tokens.weight", {vocabulary, 8})};
  for (int64_t i = 0; i < layers; i++) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    for (auto& [name, shape] :
         std::vector<std::pair<std::string, std::vector<int64_t>>>{{"input_layernorm", {8}},
                                                                   {"self_attn.q_proj", {8, 8}},
                                                                   {"self_attn.k_proj", {4, 8}},
                                                                   {"self_attn.v_proj", {4, 8}},
                                                                   {"self_attn.q_norm", {4}},
                                                                   {"self_attn.k_norm", {4}},
                                                                   {"self_attn.o_proj", {8, 8}},
                                                                   {"post_attention_layernorm", {8}},
                                                                   {"mlp.gate_proj", {12, 8}},
                                                                   {"mlp.up_proj", {12, 8}},
                                                                   {"mlp.down_proj", {8, 12}}})
      all.push_back(f32(at + name + ".weight", shape));
  }
  all.push_back(f32("model.norm.weight", {8}));
  all.push_back(f32("lm_head.weight", {vocabulary, 8}));
  return all;
}

inline std::string with_header(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + data;
}

inline std::string safetensors(const std::vector<Tensor>& tensors) {
  std::string header = "{\"__metadata__\": {\"format\": \"pt\"}", data;
  for (const Tensor& t : tensors) {
    std::string shape;
    for (const int64_t size : t.shape) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
    const std::string entry = "{\"dtype\": \"" + t.dtype + "\", \"shape\": [" + shape + "], \"data_offsets\": [" +
                              std::to_string(data.size()) + ", " + std::to_string(data.size() + t.data.size()) + "]}";
    header += ", \"" + t.name + "\": " + (t.entry.empty() ? entry : t.entry);
    data += t.data;
  }
  return with_header(header + "}", data);
}

inline Tensor& find(std::vector<Tensor>& tensors, const std::string& name) {
  for (Tensor& tensor : tensors)
    if (tensor.name == name) return tensor;
  std::abort();
}

/// A checkpoint folder of tiny_config() and tiny_tensors().
struct TinyFolder : TempFolder {
  TinyFolder() {
    config(tiny_config());
    model(tiny_tensors());
  }
  void config(const Members& members) { write(*this / "config.json", object(members)); }
  void model(const std::vector<Tensor>& tensors) { write(*this / "model.safetensors", safetensors(tensors)); }
};

/// Three shards and an index for the tiny checkpoint.
struct Sharded : TinyFolder {
  Sharded() {
    std::filesystem::remove(*this / "model.safetensors");
    const auto all = tiny_tensors();
    for (size_t i = 0; i < all.size(); i++) {
      shards[std::string("s") + std::to_string(i % 3)].push_back(all[i]);
      map[all[i].name] = std::string("\"s") + std::to_string(i % 3) + "\"";
    }
    write();
  }
  void write() {
    for (const auto& [name, tensors] : shards) files::write(*this / name, safetensors(tensors));
    files::write(*this / "model.safetensors.index.json", "{\"weight_map\": " + object(map) + "}");
  }
  std::map<std::string, std::vector<Tensor>> shards;
  Members map;
};

}  // namespace files
