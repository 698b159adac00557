// The weights of a model on a backend: where the packed bytes lie, how they are made, the handles forward uses.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "model/packed_cache.h"
#include "util/mapped_file.h"

namespace sdar {

/// One layer; either gate_up and down, or router and the experts, are set.
struct LayerWeights {
  std::unique_ptr<Weight> input_norm;
  std::unique_ptr<Weight> qkv;  ///< linear [(heads + 2·kv_heads)·head_dim, hidden]: q, k, v
  std::unique_ptr<Weight> q_norm;
  std::unique_ptr<Weight> k_norm;
  std::unique_ptr<Weight> o;                               ///< linear [hidden, heads·head_dim]
  std::unique_ptr<Weight> q_bias, k_bias, v_bias, o_bias;  ///< vectors; null unless ModelShape::attention_bias
  std::unique_ptr<Weight> post_norm;
  std::unique_ptr<Weight> gate_up;                      ///< gate_up [2·intermediate, hidden]
  std::unique_ptr<Weight> down;                         ///< linear [hidden, intermediate]
  std::unique_ptr<Weight> router;                       ///< linear [experts, hidden], f32
  std::vector<std::unique_ptr<Weight>> expert_gate_up;  ///< each gate_up [2·moe_intermediate, hidden]
  std::vector<std::unique_ptr<Weight>> expert_down;     ///< each linear [hidden, moe_intermediate]
  std::vector<const Weight*> expert_gate_up_views;      ///< the same, as MoeArgs takes them
  std::vector<const Weight*> expert_down_views;
};

struct ModelWeights {
  std::shared_ptr<const void> memory;       ///< holds the packed bytes; first, so that it goes last
  std::shared_ptr<const MappedFile> cache;  ///< the file they are mapped from, if they are
  std::unique_ptr<Weight> embedding;        ///< table [vocabulary, hidden]
  std::vector<LayerWeights> layers;
  std::unique_ptr<Weight> final_norm;
  std::unique_ptr<Weight> lm_head;  ///< linear [vocabulary, hidden]; null when tied: the embedding serves
  // of a mixture of experts: config.json's num_experts_per_tok and norm_topk_prob
  int32_t experts_per_token = 0;
  bool norm_topk_prob = false;
  int64_t parameters = 0;
  size_t bytes = 0;              ///< packed
  std::string passed_over = {};  ///< a message about tensors of the checkpoint that are not part of the model
};

struct WeightHooks {
  /// Source bytes; on the calling thread, never falling.
  std::function<void(int64_t done, int64_t total)> progress = {};
  std::function<bool()> cancelled = {};  ///< asked on the calling thread, every few milliseconds
  int threads = 0;                       ///< 0: as many as the backend has
  CacheSettings cache = {};              ///< where packed weights are kept and mapped next time
  /// Takes what is to be written there, to run it on a thread of its own; without it the load does so before it ends.
  std::function<void(std::shared_ptr<PackedCacheWrite>)> write_later = {};
};

/// Reads model.safetensors, or the shards of model.safetensors.index.json, and packs all weights. Peak memory is the
/// packed size and little more: file pages are given back as they have been packed. Weights that are to be streamed
/// into the cache take memory for the largest one and 64 MiB instead, and are mapped. Everything is checked before
/// packing starts. Embedding and head are int8 when `format` is int4; norms and routers are always f32. Throws Error
/// naming file and tensor: FILE_NOT_FOUND, FILE_UNREADABLE, CHECKPOINT_INVALID, CHECKPOINT_TRUNCATED (also when a file
/// shrinks meanwhile; CHECKPOINT_INVALID when one is written to), OUT_OF_MEMORY, ABORTED.
ModelWeights load_weights(Backend& backend, const std::string& folder, const ModelConfig& config, WeightFormat format,
                          const WeightHooks& hooks = {});

/// Random weights, for benchmarks: matrices normal with sd 0.02, norms 1 ± 0.02; the same for the same seed. On top of
/// the packed size, memory for the largest weight in bf16.
ModelWeights random_weights(Backend& backend, const ModelConfig& config, WeightFormat format, uint64_t seed,
                            const WeightHooks& hooks = {});

}  // namespace sdar
