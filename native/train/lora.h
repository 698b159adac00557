// Low-rank adapters on frozen weights, LoRA (Hu et al., arXiv 2106.09685): of a matrix W [out, in] the network has
// W + alpha / rank · B · A, and A [rank, in] and B [out, rank] are trained.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "train/compute.h"
#include "train/parameters.h"
#include "train/projection.h"
#include "util/hash.h"

namespace sdar::train {

/// Ends of the names of A and B, in the place of "weight", and the name of the embedding's trained rows.
inline constexpr char kLoraA[] = "lora_A.weight", kLoraB[] = "lora_B.weight",
                      kEmbeddingRows[] = "model.embed_tokens.rows";

/// Matrices of a layer that have an adapter; gate, up and down of dense layers only.
enum class LoraTarget : uint8_t { q, k, v, o, gate, up, down };
inline constexpr std::array kLoraTargets{"q", "k", "v", "o", "gate", "up", "down"};

struct LoraSettings {
  int32_t rank = 8;
  double alpha = 16;
  std::vector<LoraTarget> targets{LoraTarget::q,    LoraTarget::k,  LoraTarget::v,   LoraTarget::o,
                                  LoraTarget::gate, LoraTarget::up, LoraTarget::down};
  std::vector<std::string> tensors;     ///< of the checkpoint, trained whole
  std::vector<int32_t> embedding_rows;  ///< ids whose rows of the embedding (and tied head) are trained, as the mask's
  DType frozen = DType::f32;            ///< f32 or bf16: how the layers' matrices are held; the rest is f32
  uint64_t seed = 0;                    ///< of the first A

  /// Throws Error(INVALID_OPTION) naming the field, its value and what is allowed.
  void check(const ModelConfig& config) const;
  /// All of it as a line.
  std::string text() const;
};

/// What is trained.
Layout lora_layout(const ModelConfig& config, const LoraSettings& settings);

/// The weights of an adapted network: which are trained, and the others. One network's at a time.
class Adaptation {
 public:
  /// `weights` are [Layout(config).size()]. Throws Error(INVALID_OPTION).
  Adaptation(const ModelConfig& config, const LoraSettings& settings, std::span<const float> weights);
  /// Reads them from a checkpoint, a tensor at a time, calling `check` with each; what it throws comes out. Throws what
  /// CheckpointSource does, too.
  Adaptation(const ModelConfig& config, const LoraSettings& settings, const std::string& folder,
             const std::function<void()>& check = never_stops);

  const ModelConfig& config() const { return config_; }
  const LoraSettings& settings() const { return settings_; }
  int64_t rank() const { return settings_.rank; }
  float scale() const { return static_cast<float>(settings_.alpha / settings_.rank); }
  /// Settings and a hash of the frozen weights, as a line.
  std::string text() const;

  const Layout& full() const { return full_; }      ///< all of the model
  const Layout& layout() const { return layout_; }  ///< what is trained
  /// [layout().size()] to start from: A uniform within 1 / √in, B zero, the rest as it is.
  const std::vector<float>& initial() const { return initial_; }

  Place place(const std::string& name) const;
  const float* frozen() const { return frozen_.data(); }
  const uint16_t* frozen_bf16() const { return bf16_.data(); }
  /// A pass with these weights begins: rows that are trained come to where the others are.
  void begin(const float* trained);

  /// A tensor of full() with its adapter, `trained` being [layout().size()]; to [elements].
  void merge(Compute& compute, const Parameter& tensor, const float* trained, float* to) const;

 private:
  Adaptation(const ModelConfig& config, const LoraSettings& settings);
  void hold(const Parameter& tensor, const float* values);

  ModelConfig config_;
  LoraSettings settings_;
  Layout full_, layout_;
  std::map<std::string, Place, std::less<>> frozen_places_;
  std::vector<float> initial_, frozen_;
  std::vector<uint16_t> bf16_;
  std::string hashes_;  ///< of what is held so far
};

}  // namespace sdar::train
