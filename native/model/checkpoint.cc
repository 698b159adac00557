#include "model/checkpoint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <string_view>

#include "util/error.h"
#include "util/half.h"
#include "util/machine.h"

namespace sdar {
namespace {

/// "model.layers.3.mlp." and the like in, weights of that place out.
class Planner {
 public:
  Planner(WeightFormat format, std::vector<PlannedWeight>& plan) : format_(format), plan_(plan) {}

  void vector(std::unique_ptr<Weight>& handle, const std::string& name, int64_t size) {
    add(handle, WeightKind::vector, WeightFormat::f32, {{name, 1, size, true}});
  }
  void matrix(std::unique_ptr<Weight>& handle, WeightKind kind, std::vector<TensorSpec> parts) {
    add(handle, kind, format_, std::move(parts));
  }
  void add(std::unique_ptr<Weight>& handle, WeightKind kind, WeightFormat format, std::vector<TensorSpec> parts) {
    WeightSpec spec{.kind = kind, .format = format, .rows = 0, .cols = parts[0].cols};
    for (const TensorSpec& part : parts) spec.rows += part.rows;
    plan_.push_back({spec, std::move(parts), &handle});
  }
  void mlp(std::unique_ptr<Weight>& gate_up, std::unique_ptr<Weight>& down, const std::string& at, int64_t hidden,
           int64_t intermediate) {
    matrix(gate_up, WeightKind::gate_up,
           {{at + "gate_proj.weight", intermediate, hidden}, {at + "up_proj.weight", intermediate, hidden}});
    matrix(down, WeightKind::linear, {{at + "down_proj.weight", hidden, intermediate}});
  }

 private:
  WeightFormat format_;
  std::vector<PlannedWeight>& plan_;
};

void plan_layer(Planner& plan, const ModelConfig& config, int32_t i, LayerWeights& layer) {
  const ModelShape& s = config.shape;
  const std::string at = "model.layers." + std::to_string(i) + ".", attention = at + "self_attn.", mlp = at + "mlp.";
  const int64_t q = int64_t{s.heads} * s.head_dim, kv = int64_t{s.kv_heads} * s.head_dim;
  plan.vector(layer.input_norm, at + "input_layernorm.weight", s.hidden);
  plan.matrix(layer.qkv, WeightKind::linear,
              {{attention + "q_proj.weight", q, s.hidden},
               {attention + "k_proj.weight", kv, s.hidden},
               {attention + "v_proj.weight", kv, s.hidden}});
  plan.vector(layer.q_norm, attention + "q_norm.weight", s.head_dim);
  plan.vector(layer.k_norm, attention + "k_norm.weight", s.head_dim);
  plan.matrix(layer.o, WeightKind::linear, {{attention + "o_proj.weight", s.hidden, q}});
  if (s.attention_bias) {
    plan.vector(layer.q_bias, attention + "q_proj.bias", q);
    plan.vector(layer.k_bias, attention + "k_proj.bias", kv);
    plan.vector(layer.v_bias, attention + "v_proj.bias", kv);
    plan.vector(layer.o_bias, attention + "o_proj.bias", s.hidden);
  }
  plan.vector(layer.post_norm, at + "post_attention_layernorm.weight", s.hidden);
  if (!config.sparse[i]) return plan.mlp(layer.gate_up, layer.down, mlp, s.hidden, s.intermediate);
  plan.add(layer.router, WeightKind::linear, WeightFormat::f32, {{mlp + "gate.weight", s.experts, s.hidden}});
  layer.expert_gate_up.resize(s.experts);
  layer.expert_down.resize(s.experts);
  for (int32_t e = 0; e < s.experts; e++)
    plan.mlp(layer.expert_gate_up[e], layer.expert_down[e], mlp + "experts." + std::to_string(e) + ".", s.hidden,
             s.moe_intermediate);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

/// "NAME is", or "NAME and 3 more are".
std::string name_some(const std::vector<std::string>& names) {
  return shown(names[0]) + (names.size() > 1 ? " and " + std::to_string(names.size() - 1) + " more are" : " is");
}

void check_finite(const StoredTensor& tensor, const std::string& name) {
  const size_t step = bytes_of(*tensor.dtype);
  for (size_t i = 0; i * step < tensor.bytes; i++) {
    uint32_t word = 0;
    std::memcpy(&word, tensor.data() + i * step, step);
    const auto half = static_cast<uint16_t>(word);
    const float value = tensor.dtype == DType::f32    ? std::bit_cast<float>(word)
                        : tensor.dtype == DType::bf16 ? bf16_to_f32(half)
                                                      : f16_to_f32(half);
    if (!std::isfinite(value))
      throw Error(code::kCheckpointInvalid, tensor.file->path() + ": tensor " + name + " has " +
                                                (std::isnan(value) ? "NaN" : "infinity") + " at element " +
                                                std::to_string(i));
  }
}

/// Finaliser of splitmix64: 64 well-mixed bits from a counter.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// About normal, mean 0 and variance 1: the sum of four bytes.
float normal(uint32_t bits) {
  const uint32_t sum = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24);
  return (static_cast<float>(sum) - 510.0f) * (1.0f / 147.8f);
}

}  // namespace

std::vector<PlannedWeight> plan_weights(const ModelConfig& config, WeightFormat format, ModelWeights& weights) {
  const ModelShape& s = config.shape;
  std::vector<PlannedWeight> plan;
  // The embedding and the head decide tokens directly and are few bytes of a large model: never below 8 bits.
  Planner outer(format == WeightFormat::int4 ? WeightFormat::int8 : format, plan), inner(format, plan);
  outer.matrix(weights.embedding, WeightKind::table, {{"model.embed_tokens.weight", s.vocabulary, s.hidden}});
  weights.layers.resize(s.layers);
  for (int32_t i = 0; i < s.layers; i++) plan_layer(inner, config, i, weights.layers[i]);
  outer.vector(weights.final_norm, "model.norm.weight", s.hidden);
  if (!config.tied) outer.matrix(weights.lm_head, WeightKind::linear, {{"lm_head.weight", s.vocabulary, s.hidden}});
  return plan;
}

CheckpointSource::CheckpointSource(const std::string& folder, const std::vector<PlannedWeight>& plan,
                                   const std::function<void()>& check_stopped)
    : files_(folder, check_stopped) {
  const auto& stored = files_.tensors();
  std::set<std::string_view> wanted;
  std::vector<std::string> missing, superfluous;
  for (const PlannedWeight& weight : plan) {
    for (const TensorSpec& part : weight.parts) {
      wanted.insert(part.name);
      const auto it = stored.find(part.name);
      if (it == stored.end()) {
        missing.push_back(part.name);
        continue;
      }
      const StoredTensor& tensor = it->second;
      const std::string where = tensor.file->path() + ": tensor " + part.name;
      if (!tensor.dtype)
        throw Error(code::kCheckpointInvalid,
                    where + ": dtype " + tensor.dtype_name + " is not supported; allowed: F32, F16, BF16");
      const auto expected = part.vector ? std::vector{part.cols} : std::vector{part.rows, part.cols};
      if (tensor.shape != expected)
        throw Error(code::kCheckpointInvalid,
                    where + " has shape " + shape_text(tensor.shape) + "; config.json means " + shape_text(expected));
    }
  }
  if (!missing.empty())
    throw Error(code::kCheckpointInvalid,
                folder + ": tensor " + name_some(missing) + " missing" +
                    (missing[0] == "lm_head.weight" ? " (tie_word_embeddings in config.json is false)" : ""));
  for (const auto& [name, tensor] : stored) {
    if (wanted.contains(name)) continue;
    const std::string of = name.ends_with(".bias") ? name.substr(0, name.size() - 4) + "weight" : "";
    if (wanted.contains(of))
      throw Error(code::kCheckpointInvalid,
                  tensor.file->path() + ": tensor " + name + " is a bias, which a model of this type does not have");
    superfluous.push_back(name);
  }
  if (!superfluous.empty())
    passed_over_ = "tensor " + name_some(superfluous) + " not part of the model in config.json and passed over";
  for (const PlannedWeight& weight : plan) {
    if (weight.spec.kind != WeightKind::vector) continue;
    check_finite(stored.at(weight.parts[0].name), weight.parts[0].name);
    close(weight.parts[0]);
  }
  check();
}

int64_t CheckpointSource::bytes(const TensorSpec& tensor) const {
  return static_cast<int64_t>(files_.tensors().at(tensor.name).bytes);
}

SourceTensor CheckpointSource::open(const TensorSpec& tensor) {
  const StoredTensor& stored = files_.tensors().at(tensor.name);
  stored.file->prefetch(stored.offset, stored.bytes);
  return {.data = stored.data(), .dtype = *stored.dtype, .rows = tensor.rows, .cols = tensor.cols};
}

void CheckpointSource::release(const TensorSpec& tensor, int64_t row_begin, int64_t row_end) const {
  const StoredTensor& stored = files_.tensors().at(tensor.name);
  const size_t row_bytes = static_cast<size_t>(tensor.cols) * bytes_of(*stored.dtype);
  stored.file->release(stored.offset + row_begin * row_bytes, (row_end - row_begin) * row_bytes);
}

void CheckpointSource::close(const TensorSpec& tensor) { release(tensor, 0, tensor.rows); }

RandomSource::RandomSource(uint64_t seed, int threads) : seed_(seed), threads_(threads), samples_(1 << 16) {
  for (size_t i = 0; i < samples_.size(); i++) samples_[i] = f32_to_bf16(0.02f * normal(static_cast<uint32_t>(mix(i))));
}

SourceTensor RandomSource::open(const TensorSpec& tensor) {
  constexpr int64_t kBlock = 1 << 16;
  const int64_t elements = tensor.elements();
  std::shared_ptr<std::byte> memory = map_memory(static_cast<size_t>(bytes(tensor)));
  uint64_t stream = mix(seed_);
  for (const char c : tensor.name) stream = mix(stream ^ static_cast<unsigned char>(c));
  auto* out = reinterpret_cast<uint16_t*>(memory.get());
  parallel_for(threads_, (elements + kBlock - 1) / kBlock, [&](int64_t block) {
    const int64_t end = std::min(elements, (block + 1) * kBlock);
    for (int64_t i = block * kBlock; i < end; i += 4) {
      uint64_t bits = mix(stream + static_cast<uint64_t>(i));
      for (int64_t j = i; j < std::min(i + 4, end); j++, bits >>= 16) out[j] = samples_[bits & 0xffff];
    }
  });
  if (tensor.vector && !tensor.name.ends_with(".bias"))
    for (int64_t i = 0; i < elements; i++) out[i] = f32_to_bf16(1 + bf16_to_f32(out[i]));
  open_[tensor.name] = memory;
  return {.data = memory.get(), .dtype = DType::bf16, .rows = tensor.rows, .cols = tensor.cols};
}

}  // namespace sdar
