// Continuous batching at step granularity: which sequences run in the next forward, and what becomes of them. Knows no
// threads: Engine calls it from the step loop.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "cache/page_pool.h"
#include "engine/events.h"
#include "engine/runner.h"
#include "engine/sequence.h"

namespace sdar {

struct EngineStats {
  int32_t running = 0;
  int32_t waiting = 0;
  int32_t pages_total = 0;
  int32_t pages_free = 0;
  int64_t steps = 0;
  int64_t rows = 0;       ///< positions computed over all steps
  int64_t sequences = 0;  ///< sequences over all steps
  int32_t max_sequences = 0;
  int64_t forwards = 0;  ///< of requests: denoising steps
  int64_t filled_tokens = 0;
  int64_t prefill_tokens = 0;
  int64_t finished[4] = {};  ///< by FinishReason
  int64_t failed = 0;
  double step_seconds = 0;
  double scheduler_seconds = 0;
};

struct SchedulerLimits {
  int32_t max_concurrent = 64;
  int32_t max_rows = 2048;     ///< rows of one step
  int32_t prefill_rows = 512;  ///< of them, for prompts longer than a block
};

class Scheduler {
 public:
  Scheduler(Runner& runner, PagePool& pool, EventBuffer& events, const SequenceContext& context,
            SchedulerLimits limits);

  void add(Request request);
  /// Ends a waiting or running request with what it has; unknown ids (already ended) are ignored.
  void abort(uint64_t id);
  /// Ends everything with an error.
  void fail_all(const Failure& failure);

  bool idle() const { return waiting_.empty() && running_.empty(); }
  /// Admits what fits and runs one forward; what happened is in the events, which the caller publishes. Never throws:
  /// what goes wrong ends what ran.
  void step();

  const EngineStats& stats() const { return stats_; }

 private:
  using SequencePtr = std::unique_ptr<Sequence>;

  void admit();
  void plan();
  void settle(size_t index, const StepOutcome& outcome);
  void finish(Sequence& sequence, FinishReason reason);
  void fail(Sequence& sequence, Failure failure);
  void count();

  Runner& runner_;
  PagePool& pool_;
  EventBuffer& events_;
  const SequenceContext& context_;
  SchedulerLimits limits_;
  std::deque<SequencePtr> waiting_;
  std::vector<SequencePtr> running_;
  StepPlan plan_;
  std::vector<Sequence*> planned_;  // sequence behind plan_.sequences[i]
  size_t turn_ = 0;                 // where the next plan starts, so that no sequence starves when rows run out
  EngineStats stats_;
};

}  // namespace sdar
