// Writes a Qwen3 GGUF file of any shape, with random weights or those of a file: enough for llama.cpp to load and time it.
//   write_gguf FILE FORMAT hidden=2048 intermediate=6144 layers=8 heads=16 kv_heads=8 head_dim=128 vocab=151936 tied=1 [WEIGHTS]
// FORMAT: F32, F16, BF16, Q8_0 or Q4_0, for every matrix including the embedding; norms are F32.
// WEIGHTS: all tensors one after the other as f32, in the order in which they are added below (checkpoint.mjs writes it).
#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr const char* kUsage =
    "usage: write_gguf FILE F32|F16|BF16|Q8_0|Q4_0 hidden=N intermediate=N layers=N heads=N kv_heads=N head_dim=N "
    "vocab=N "
    "tied=0|1 [WEIGHTS]\n";

ggml_type parse_format(const std::string& name) {
  static const std::map<std::string, ggml_type> formats = {{"F32", GGML_TYPE_F32},
                                                           {"F16", GGML_TYPE_F16},
                                                           {"BF16", GGML_TYPE_BF16},
                                                           {"Q8_0", GGML_TYPE_Q8_0},
                                                           {"Q4_0", GGML_TYPE_Q4_0}};
  const auto found = formats.find(name);
  if (found == formats.end()) throw std::invalid_argument("format " + name + ": must be F32, F16, BF16, Q8_0 or Q4_0");
  return found->second;
}

class Shape {
 public:
  Shape(int count, char** args) {
    for (int i = 0; i < count; ++i) {
      const std::string arg = args[i];
      const size_t equals = arg.find('=');
      if (equals == std::string::npos) throw std::invalid_argument(arg + ": must be name=number");
      values_[arg.substr(0, equals)] = std::stoll(arg.substr(equals + 1));
    }
  }
  int64_t operator[](const std::string& name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) throw std::invalid_argument(name + "=N is missing");
    return found->second;
  }
  int64_t get(const std::string& name, int64_t otherwise) const {
    const auto found = values_.find(name);
    return found == values_.end() ? otherwise : found->second;
  }

 private:
  std::map<std::string, int64_t> values_;
};

/** splitmix64 (Steele, Lea, Flood 2014) */
uint64_t next_random(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/** Fills whole blocks of a format with values of standard deviation about 0.02. */
void fill_random(ggml_type type, std::vector<uint8_t>& bytes, uint64_t& state) {
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const uint64_t word = next_random(state);
    std::memcpy(&bytes[i], &word, 8);
  }
  if (type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q4_0) {
    // A block is an f16 scale and 32 uniform values: deviation 74 as int8, 4.6 as a nibble - 8.
    const ggml_fp16_t scale = ggml_fp32_to_fp16(type == GGML_TYPE_Q8_0 ? 0.02f / 74.0f : 0.02f / 4.6f);
    for (size_t i = 0; i < bytes.size(); i += ggml_type_size(type)) std::memcpy(&bytes[i], &scale, 2);
    return;
  }
  // Random sign and fraction, exponent fixed: magnitudes in [2^-6, 2^-5).
  const uint16_t keep = type == GGML_TYPE_F16 ? 0x83ff : 0x807f;
  const uint16_t exponent = type == GGML_TYPE_F16 ? (15 - 6) << 10 : (127 - 6) << 7;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    uint16_t value;
    std::memcpy(&value, &bytes[i], 2);
    value = static_cast<uint16_t>((value & keep) | exponent);
    std::memcpy(&bytes[i], &value, 2);
  }
}

void write_all(std::FILE* file, const void* data, size_t size) {
  if (std::fwrite(data, 1, size, file) != size) throw std::runtime_error("write failed: is the disk full?");
}

void pad(std::FILE* file, size_t size) {
  const std::vector<uint8_t> padding(GGML_PAD(size, GGUF_DEFAULT_ALIGNMENT) - size);
  write_all(file, padding.data(), padding.size());
}

/** The next tensor of a file of f32 values, in the tensor's own format. */
void convert_tensor(std::FILE* file, const ggml_tensor* tensor, std::FILE* weights) {
  std::vector<float> values(static_cast<size_t>(ggml_nelements(tensor)));
  if (std::fread(values.data(), sizeof(float), values.size(), weights) != values.size())
    throw std::runtime_error(std::string("the weights end before ") + ggml_get_name(tensor));
  std::vector<uint8_t> converted(ggml_nbytes(tensor));
  if (tensor->type == GGML_TYPE_F32) {
    std::memcpy(converted.data(), values.data(), converted.size());
  } else {
    ggml_quantize_chunk(tensor->type, values.data(), converted.data(), 0, ggml_nrows(tensor), tensor->ne[0], nullptr);
  }
  write_all(file, converted.data(), converted.size());
  pad(file, converted.size());
}

void write_tensor(std::FILE* file, const ggml_tensor* tensor, uint64_t& state) {
  const size_t size = ggml_nbytes(tensor);
  if (tensor->type == GGML_TYPE_F32) {
    const std::vector<float> ones(static_cast<size_t>(ggml_nelements(tensor)), 1.0f);
    write_all(file, ones.data(), size);
  } else {
    const size_t row = ggml_row_size(tensor->type, tensor->ne[0]);
    // Eight rows are a multiple of 8 bytes whatever the block size.
    std::vector<uint8_t> rows(8 * row);
    for (size_t done = 0; done < size; done += rows.size()) {
      fill_random(tensor->type, rows, state);
      write_all(file, rows.data(), std::min(rows.size(), size - done));
    }
  }
  pad(file, size);
}

using File = std::unique_ptr<std::FILE, decltype(&std::fclose)>;
File open_file(const std::string& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode), std::fclose);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  return file;
}

/** `weights`: a file's name; empty for random ones. */
void write_file(const std::string& path, const std::string& format, const Shape& shape, const std::string& weights) {
  const ggml_type type = parse_format(format);
  const int64_t hidden = shape["hidden"], intermediate = shape["intermediate"], layers = shape["layers"];
  const int64_t head_dim = shape["head_dim"], q_size = shape["heads"] * head_dim,
                kv_size = shape["kv_heads"] * head_dim;
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> meta(gguf_init_empty(), gguf_free);
  const size_t tensors = static_cast<size_t>(3 + 11 * layers);
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(
      ggml_init({tensors * ggml_tensor_overhead(), nullptr, /*no_alloc=*/true}), ggml_free);

  gguf_set_val_str(meta.get(), "general.architecture", "qwen3");
  gguf_set_val_str(meta.get(), "general.name", weights.empty() ? "random weights" : "a checkpoint");
  gguf_set_val_str(meta.get(), "tokenizer.ggml.model", "no_vocab");
  const auto set = [&](const char* name, int64_t value) {
    gguf_set_val_u32(meta.get(), (std::string("qwen3.") + name).c_str(), static_cast<uint32_t>(value));
  };
  set("vocab_size", shape["vocab"]);
  set("context_length", 40960);
  set("embedding_length", hidden);
  set("feed_forward_length", intermediate);
  set("block_count", layers);
  set("attention.head_count", shape["heads"]);
  set("attention.head_count_kv", shape["kv_heads"]);
  set("attention.key_length", head_dim);
  set("attention.value_length", head_dim);
  gguf_set_val_f32(meta.get(), "qwen3.attention.layer_norm_rms_epsilon", 1e-6f);
  gguf_set_val_f32(meta.get(), "qwen3.rope.freq_base", static_cast<float>(shape.get("rope_theta", 1000000)));

  std::vector<ggml_tensor*> all;
  const auto add = [&](ggml_tensor* tensor, const std::string& name) {
    ggml_set_name(tensor, (name + ".weight").c_str());
    gguf_add_tensor(meta.get(), tensor);
    all.push_back(tensor);
  };
  const auto matrix = [&](const std::string& name, int64_t in, int64_t out) {
    if (in % ggml_blck_size(type) != 0) throw std::invalid_argument(name + ": inputs must be a multiple of the block");
    add(ggml_new_tensor_2d(context.get(), type, in, out), name);
  };
  const auto norm = [&](const std::string& name, int64_t size) {
    add(ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, size), name);
  };
  matrix("token_embd", hidden, shape["vocab"]);
  if (!shape["tied"]) matrix("output", hidden, shape["vocab"]);
  norm("output_norm", hidden);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = "blk." + std::to_string(i) + ".";
    norm(layer + "attn_norm", hidden);
    matrix(layer + "attn_q", hidden, q_size);
    matrix(layer + "attn_k", hidden, kv_size);
    matrix(layer + "attn_v", hidden, kv_size);
    norm(layer + "attn_q_norm", head_dim);
    norm(layer + "attn_k_norm", head_dim);
    matrix(layer + "attn_output", q_size, hidden);
    norm(layer + "ffn_norm", hidden);
    matrix(layer + "ffn_gate", hidden, intermediate);
    matrix(layer + "ffn_up", hidden, intermediate);
    matrix(layer + "ffn_down", intermediate, hidden);
  }

  // Under another name until complete, so that an interrupted run leaves no broken file behind.
  const std::string partial = path + ".partial";
  const File file = open_file(partial, "wb");
  const File source = weights.empty() ? File(nullptr, std::fclose) : open_file(weights, "rb");
  if (!gguf_write_to_file_ptr(meta.get(), file.get(), /*only_meta=*/true)) throw std::runtime_error("write failed");
  uint64_t state = 1;
  for (const ggml_tensor* tensor : all) {
    if (source)
      convert_tensor(file.get(), tensor, source.get());
    else
      write_tensor(file.get(), tensor, state);
  }
  if (source && std::fgetc(source.get()) != EOF) throw std::runtime_error(weights + ": holds more than the shape has");
  if (std::fflush(file.get()) != 0 || std::rename(partial.c_str(), path.c_str()) != 0) {
    throw std::runtime_error(path + ": cannot be written");
  }
}

}  // namespace

int main(int count, char** args) {
  if (count < 4) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  try {
    const bool given = !std::strchr(args[count - 1], '=');
    write_file(args[1], args[2], Shape(count - 3 - given, args + 3), given ? args[count - 1] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_gguf: %s\n%s", error.what(), kUsage);
    return 1;
  }
  return 0;
}
