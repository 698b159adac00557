// Forward passes on demand, for measurements: how long one takes, what it reads and computes, what the machine could
// do, and how far one number format's results are from another's.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/limits.h"
#include "engine/engine.h"

namespace sdar {

struct BenchOptions {
  EngineOptions engine;     ///< max_rows and the size of the cache are set here
  std::string shape = {};   ///< random weights of this shape (model/shapes.h) instead of engine.path
  int32_t layers = 0;       ///< of the shape; 0: all
  uint64_t seed = 1;        ///< of the random weights
  int32_t context = 256;    ///< most positions in the cache before a forward
  int32_t max_tokens = 64;  ///< positions of the largest forward
};

/// What a forward must at least read, and compute. `weight_bytes` are packed bytes of all matrices that take part; of a
/// mixture of experts, of those that its last run read or, before that, random routing is expected to choose. An
/// operation is half a multiply-add.
struct ForwardCost {
  double weight_bytes = 0;
  double kv_bytes = 0;
  double operations = 0;
  double experts_per_layer = 0;  ///< that are read, on average; 0 without a mixture of experts
};

/// A denoising step to be computed again: the final tokens of all blocks before the active one, then the active one
/// with the mask id where bit i of `masked` is set for its offset i.
struct RecordedStep {
  std::vector<int32_t> tokens;
  int32_t block_length = 1;
  uint64_t masked = 0;
};

/// Of another model's distributions p' at the masked positions of some steps, against this one's p.
struct Divergence {
  int64_t positions = 0;
  double kl = 0;  ///< Σ over the positions of Σ p · ln(p / p'), nats
  int64_t same_argmax = 0;
};

/// One caller at a time.
class ForwardBench {
 public:
  /// Throws Error: what load_model throws, INVALID_OPTION, PROMPT_TOO_LONG (context and tokens exceed the model's).
  ForwardBench(const BenchOptions& options, WeightHooks hooks);

  const Model& model() const { return *model_; }
  int32_t context() const { return context_; }

  /// Seconds of one forward of 1 … max_tokens positions behind 0 … context others, with token and statistics wanted at
  /// all of them and, on request, their logits written out. The positions form blocks of the largest power of two up to
  /// 64 that divides their number and the context's: one block of M for M = 1, 2, 4, … 64.
  double run(int32_t tokens, int32_t context, bool logits);
  ForwardCost cost(int32_t tokens, int32_t context) const;

  /// Of the machine that the backend computes on, with its threads and instruction set; made when first asked for.
  /// Throws Error(UNSUPPORTED_DEVICE) on a device that is not the CPU.
  LimitProbe& limits();

  /// Logits [masked positions, vocabulary] of a step. Throws Error(INVALID_OPTION) for one that cannot be.
  std::vector<float> logits(const RecordedStep& step);
  Divergence compare(ForwardBench& other, std::span<const RecordedStep> steps);

 private:
  void fill_context();
  /// One forward of `ids` from `position` on: a sequence for each `rows` positions, whose last block is sampled at
  /// `masked`.
  std::span<const SequenceResult> forward(std::span<const int32_t> ids, int32_t position, int32_t rows,
                                          int32_t block_length, uint64_t masked, float* logits);

  /// Experts of a layer that a forward reads.
  double experts_per_layer(int32_t tokens, int32_t context) const;

  std::unique_ptr<Model> model_;
  std::unique_ptr<LimitProbe> limits_;
  int32_t context_;
  int32_t max_tokens_;
  // What the cache holds: the random context of run(), or the known tokens of the last step of logits().
  std::map<std::pair<int32_t, int32_t>, int64_t> experts_;  ///< read by the last run of so many tokens and context
  bool filled_ = false;
  std::vector<int32_t> recorded_;
  int32_t recorded_block_ = 0;
  std::vector<int32_t> ids_;    // [context + max_tokens], random
  std::vector<int32_t> pages_;  // page i of the one sequence
  Step step_;
  SamplingParams sampling_;  // greedy
  std::vector<float> logits_;
};

}  // namespace sdar
