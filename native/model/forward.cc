#include "model/forward.h"

#include <chrono>

#include "util/error.h"

namespace sdar {

namespace {

/// Adds the time since the last lap to one of several sums.
class Laps {
 public:
  void lap(double& sum) {
    const auto now = std::chrono::steady_clock::now();
    sum += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

Forward::Forward(Backend& backend, const ModelConfig& config, const ModelWeights& weights, int32_t max_rows)
    : backend_(backend), config_(config), weights_(weights), max_rows_(max_rows) {
  const ModelShape& s = config.shape;
  const size_t rows = static_cast<size_t>(backend.buffer_rows(max_rows));
  x_ = backend.allocate(rows * s.hidden);
  qkv_ = backend.allocate(rows * (s.heads + 2 * s.kv_heads) * s.head_dim);
  attended_ = backend.allocate(rows * s.heads * s.head_dim);
  mlp_ = backend.allocate(rows * s.intermediate);
}

void Forward::run(std::span<const Segment> segments, std::span<const int32_t> ids, std::span<const SampledRow> requests,
                  std::span<SampledToken> results, float* logits) {
  const int32_t rows = static_cast<int32_t>(ids.size());
  backend_.begin_step(segments, rows);
  layers(rows, ids);
  Laps laps;
  if (!requests.empty()) head(requests, results, logits);
  backend_.finish_step();
  laps.lap(seconds_.head);
  if (weights_.cache && weights_.cache->damaged())
    throw Error(code::kCheckpointTruncated, weights_.cache->path() + " was cut short while its weights were in use");
}

void Forward::walk(int32_t rows, bool with_head) {
  layers(rows, {});
  if (with_head) head({}, {}, nullptr);
}

void Forward::layers(int32_t rows, std::span<const int32_t> ids) {
  Laps laps;
  backend_.embed(*weights_.embedding, ids, x_);
  for (size_t i = 0; i < weights_.layers.size(); i++) {
    const LayerWeights& layer = weights_.layers[i];
    backend_.norm_linear({.x = x_, .m = rows, .norm = layer.input_norm.get(), .weight = layer.qkv.get(), .out = qkv_});
    laps.lap(seconds_.products);
    backend_.attention({.layer = static_cast<int32_t>(i),
                        .qkv = qkv_,
                        .out = attended_,
                        .q_norm = layer.q_norm.get(),
                        .k_norm = layer.k_norm.get()});
    laps.lap(seconds_.attention);
    backend_.linear_add({.in = attended_, .m = rows, .weight = layer.o.get(), .x = x_});
    if (layer.router) {
      backend_.moe({.x = x_,
                    .m = rows,
                    .norm = layer.post_norm.get(),
                    .router = layer.router.get(),
                    .gate_up = layer.expert_gate_up_views,
                    .down = layer.expert_down_views,
                    .top_k = config_.shape.experts_per_token,
                    .renormalise = config_.norm_topk_prob});
    } else {
      backend_.norm_linear(
          {.x = x_, .m = rows, .norm = layer.post_norm.get(), .weight = layer.gate_up.get(), .out = mlp_});
      backend_.linear_add({.in = mlp_, .m = rows, .weight = layer.down.get(), .x = x_});
    }
  }
  laps.lap(seconds_.products);
}

void Forward::head(std::span<const SampledRow> requests, std::span<SampledToken> results, float* logits) {
  const Weight* weight = weights_.lm_head ? weights_.lm_head.get() : weights_.embedding.get();
  backend_.head({.x = x_,
                 .norm = weights_.final_norm.get(),
                 .weight = weight,
                 .requests = requests,
                 .results = results,
                 .logits = logits});
}

}  // namespace sdar
