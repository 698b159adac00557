// Final norm, lm_head and the reduction of its logits, tile of the vocabulary by tile. Contract: backend/ops.h.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/cpu/sampling.h"
#include "backend/host_step.h"

namespace sdar::cpu {

class LmHead {
 public:
  explicit LmHead(Matmul& linear) : matmul_(linear), samplers_(static_cast<size_t>(linear.pool().threads())) {}
  void run(const LmHeadArgs& args, const StepRows& rows, float eps);

 private:
  /// What a tile says about a row; the best id that is not suppressed apart.
  struct Partial {
    LogitStats stats;
    float best = 0;
    int32_t best_id = -1;
  };
  /// All of a row: softmax at one scale (1 / T).
  struct Softmax {
    float max = 0;
    double sum = 0, entropy = 0;
  };

  void chunk(const LmHeadArgs& args, const StepRows& rows, float eps, size_t begin, int64_t m);
  Partial reduce(const SampledRow& request, float* logits, int64_t first, int64_t n) const;
  /// `logits` [vocabulary] when the row is sampled; overwrites the partials then.
  SampledToken merge(const SampledRow& request, Partial* row, std::span<const float> logits, int64_t tiles, int worker);
  /// Tiles are added in ascending order; their sums were made with `scale`.
  static Softmax merge_softmax(const Partial* row, int64_t tiles, float scale);

  Matmul& matmul_;
  ActivationRows rows_;
  std::vector<Sampler> samplers_;           ///< per thread
  std::vector<Buffer<float>> tile_logits_;  ///< per thread [m, tile]
  Buffer<float> sampled_;                   ///< logits of the rows that are sampled
  Buffer<Partial> partials_;                ///< [m, tiles]
  std::vector<int32_t> row_of_;             ///< row of x behind each request of the chunk
  std::vector<float*> logits_of_;           ///< where its logits are kept, or null
};

}  // namespace sdar::cpu
