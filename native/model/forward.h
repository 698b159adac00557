// The forward pass of an SDAR model (Qwen3 with block attention) as a list of op calls.
#pragma once
#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "backend/step.h"
#include "model/config.h"
#include "model/weights.h"

namespace sdar {

class Forward {
 public:
  /// Workspaces for steps of up to `max_rows` rows; the backend has been configured. All arguments outlive this.
  Forward(Backend& backend, const ModelConfig& config, const ModelWeights& weights, int32_t max_rows);

  /// ids [rows] in, results[i] answers requests[i]; `logits` [requests, vocabulary] when wanted. Returns when done.
  void run(std::span<const Segment> segments, std::span<const int32_t> ids, std::span<const SampledRow> requests,
           std::span<SampledToken> results, float* logits = nullptr);
  /// The ops of a step of `rows` rows that begin_step has announced, for a backend that keeps them and runs them later:
  /// ids and requests are where it has put them.
  void walk(int32_t rows, bool with_head);

  int32_t max_rows() const { return max_rows_; }
  OpSeconds& seconds() { return seconds_; }

 private:
  void layers(int32_t rows, std::span<const int32_t> ids);
  void head(std::span<const SampledRow> requests, std::span<SampledToken> results, float* logits);

  Backend& backend_;
  const ModelConfig& config_;
  const ModelWeights& weights_;
  int32_t max_rows_;
  // f32 workspaces: x [rows, hidden], qkv [rows, (heads + 2 kv_heads) head_dim], attended [rows, heads head_dim], mlp
  // [rows, intermediate]
  float* x_;
  float* qkv_;
  float* attended_;
  float* mlp_;
  OpSeconds seconds_;
};

}  // namespace sdar
