// Continuous batching at step granularity: which requests run in the next forward, and what becomes of them. Knows no
// threads: Engine calls it from the step loop.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backend/step.h"
#include "engine/events.h"
#include "engine/prefill_budget.h"
#include "engine/residency.h"
#include "engine/stats.h"

namespace sdar {

struct SchedulerLimits {
  int32_t max_concurrent = 64;
  int32_t max_rows = 2048;   ///< rows of one step
  int32_t prefill_rows = 0;  ///< of them, for prompts longer than a block; 0: PrefillBudget's beside running requests
  bool prefix_cache = true;
};

class Scheduler {
 public:
  using Clock = std::chrono::steady_clock;

  Scheduler(StepRunner& runner, PagePool& pool, EventBuffer& events, const SequenceContext& context,
            SchedulerLimits limits);

  void add(Request request);
  /// Ends a request with what it has. Unknown ids (already ended) are ignored, here and below.
  void abort(uint64_t id);
  /// A paused request takes part in no step; its pages are the first to be given up.
  void pause(uint64_t id);
  void resume(uint64_t id);
  /// Ends everything with an error.
  void fail_all(const Failure& failure);

  /// Nothing to compute; paused requests may be there.
  bool idle() const { return waiting_.empty() && running_.empty(); }
  /// Earliest deadline of what is there: expire() is due then.
  Clock::time_point next_deadline() const { return next_deadline_; }
  void expire(Clock::time_point now);

  /// Admits what fits and runs one forward; what happened is in the events, which the caller publishes. Never throws:
  /// what goes wrong ends what ran.
  void step();

  const EngineStats& stats() const { return stats_; }

 private:
  using Jobs = std::vector<JobPtr>;

  void admit();
  bool waits_for_group(const Job& job) const;
  bool fits(Job& job);
  void grow();
  bool reclaim_paused();
  void preempt(size_t index);
  void plan();
  void plan_part(Job& job, int32_t max_rows);
  void compute();
  void settle(size_t index, const StepOutcome& outcome);
  void finish(Job& job, FinishReason reason);
  void fail(Job& job, Failure failure);
  void forget(Job& job);
  void count();

  StepRunner& runner_;
  PagePool& pool_;
  EventBuffer& events_;
  const SequenceContext& context_;
  SchedulerLimits limits_;
  Residency residency_;
  PrefillBudget budget_;
  Jobs waiting_;  // by rank
  Jobs running_;  // by priority, then rank: the last is preempted first
  Jobs paused_;
  std::unordered_map<uint64_t, const Job*> leaders_;  // answer 0 of each group that has not ended
  int64_t arrivals_ = 0;
  Clock::time_point next_deadline_ = Clock::time_point::max();

  StepPlan plan_;
  std::vector<Job*> planned_;  // job behind plan_.sequences[i]
  int32_t prefill_rows_ = 0;   // rows of prompts in the plan
  size_t turn_ = 0;            // where the next plan starts, so that no request starves when rows run out
  bool prompts_first_ = true;  // prompts are planned before blocks, in turns with the reverse when rows run out
  EngineStats stats_;
};

}  // namespace sdar
