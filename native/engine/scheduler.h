// Continuous batching at step granularity: which requests run in the next forward, and what becomes of them. Knows no
// threads: Engine calls it from the step loop.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backend/backend.h"
#include "engine/drafter.h"
#include "engine/events.h"
#include "engine/job.h"
#include "engine/planner.h"
#include "engine/stats.h"

namespace sdar {

struct SchedulerLimits {
  int32_t max_concurrent = 64;
  int32_t max_rows = 2048;   ///< rows of one step
  int32_t prefill_rows = 0;  ///< of them, for prompts longer than a block; 0: the budget's beside running requests
  bool prefix_cache = true;
};

class Scheduler {
 public:
  using Clock = std::chrono::steady_clock;

  Scheduler(Backend& backend, PagePool& pool, EventBuffer& events, const SequenceContext& context,
            SchedulerLimits limits);

  /// From now on requests are speculated for. Before the first add(); outlives this.
  void set_drafter(Drafter* drafter) { drafter_ = drafter; }
  void add(Request request);
  /// Ends a request with what it has. Unknown ids (already ended) are ignored, here and below.
  void abort(uint64_t id);
  /// A paused request takes part in no step; its pages are the first to be taken. Resumed, it goes before those that
  /// wait.
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
  size_t displaced_by(const Job& job) const;
  void grow();
  bool reclaim_paused();
  size_t preempted_first() const;
  void preempt(size_t index);
  void compute();
  void apply(Job& job, const StepSequence& planned, const SequenceResult& result);
  void release(Job& job);
  void finish(Job& job, FinishReason reason);
  void fail(Job& job, Failure failure);
  void forget(Job& job);
  void count();

  Backend& backend_;
  PagePool& pool_;
  EventBuffer& events_;
  const SequenceContext& context_;
  SchedulerLimits limits_;
  KvCacheManager cache_;
  StepPlanner planner_;
  Drafter* drafter_ = nullptr;
  Jobs waiting_;  // by rank
  Jobs running_;  // by priority, then rank
  Jobs paused_;
  std::unordered_map<uint64_t, const Job*> leaders_;  // completion 0 of each group that has not ended
  int64_t arrivals_ = 0;
  Clock::time_point next_deadline_ = Clock::time_point::max();
  EngineStats stats_;
};

}  // namespace sdar
