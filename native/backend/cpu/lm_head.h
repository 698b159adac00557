// Final norm, lm_head and the reduction of its logits, tile of the vocabulary by tile. Contract: backend/ops.h.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/cpu/best_ids.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/sampling.h"
#include "backend/host_step.h"

namespace sdar::cpu {

class LmHead {
 public:
  explicit LmHead(Matmul& linear) : matmul_(linear), samplers_(static_cast<size_t>(linear.pool().size())) {}
  void run(const LmHeadArgs& args, const StepRows& rows, float eps);

 private:
  /// What a tile says about a row; the best id that may be chosen apart, unless a list has it.
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

  /// The best ids of a row among a thread's tiles.
  struct Lists {
    BestIds chosen;  ///< of those that may be chosen: candidates, or the best one where only some ids are allowed
    BestIds top;     ///< of all
  };
  /// A row's suppressed ids, ascending, in suppressed_, and its lists.
  struct RowState {
    size_t suppressed = 0, suppressed_count = 0;
    int64_t lists = -1;  ///< −1: none
  };

  void chunk(const LmHeadArgs& args, const StepRows& rows, float eps, size_t begin, int64_t m);
  /// Orders the rows' suppressed ids, and makes lists for those that need them.
  void prepare_rows(std::span<const SampledRow> requests);
  Lists* lists(int64_t row, int worker) {
    const int64_t at = states_[row].lists;
    return at < 0 ? nullptr : &lists_.data()[worker * list_count_ + at];
  }
  Partial reduce(int64_t row, const SampledRow& request, float* logits, int64_t first, int64_t n, int worker);
  /// Joins the threads' lists, and tells what is asked of them; the best id that may be chosen, id −1 if there is none.
  RankedToken join_lists(int64_t row, const SampledRow& request);
  /// `logits` [vocabulary] when the row is sampled; overwrites the partials then.
  SampledToken merge(int64_t index, const SampledRow& request, Partial* row, std::span<const float> logits,
                     int64_t tiles, int worker);
  /// Tiles are added in ascending order; their sums were made with `scale`.
  static Softmax merge_softmax(const Partial* row, int64_t tiles, float scale);

  Matmul& matmul_;
  ActivationRows rows_;
  std::vector<Sampler> samplers_;           ///< per thread
  std::vector<Buffer<float>> tile_logits_;  ///< per thread [m, tile]
  Buffer<float> sampled_;                   ///< logits of the rows that are sampled
  Buffer<Partial> partials_;                ///< [m, tiles]
  std::vector<RowState> states_;            ///< [m]
  std::vector<int32_t> suppressed_;
  int64_t list_count_ = 0;
  Buffer<Lists> lists_;            ///< [threads, list_count_]
  std::vector<int32_t> row_of_;    ///< row of x behind each request of the chunk
  std::vector<float*> logits_of_;  ///< where its logits are kept, or null
};

}  // namespace sdar::cpu
