// Lossless speculation: the draft model, its cache, and the forwards that the drafts of all requests share.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "cache/page_pool.h"
#include "engine/draft.h"
#include "engine/draft_gate.h"
#include "engine/job.h"
#include "engine/stats.h"

namespace sdar {

class Drafter {
 public:
  /// `backend` holds the draft model and `pages` pages; at most `max_rows` rows a forward.
  Drafter(Backend& backend, const DraftContext& draft, const SequenceContext& target, int64_t pages, int32_t max_rows,
          bool prefix_cache);

  void join(Job& job);
  /// At most one forward: brings what is known of these jobs into the draft's cache and proposes to their sequences.
  /// Pages that cannot be had cost a job its proposals, nothing else. Throws what Backend::run does.
  void step(std::span<const JobPtr> jobs, EngineStats& stats);
  /// What a finished job took is known.
  void finished(const Job& job) { gate_.observe(job.drafted_for, job.sequence.completion_tokens(), job.seconds); }
  /// Drops the job's references to pages.
  void release(Job& job);

 private:
  bool allocate(Job& job);
  void index_full_pages(Job& job);
  PrefixRoot root_of(const Job& job) const;
  bool may_share(const Job& job) const { return prefix_cache_ || job.request().group != 0; }

  Backend& backend_;
  DraftContext draft_;
  DraftGate gate_;
  const SequenceContext& target_;
  PagePool pool_;
  int32_t max_rows_;
  bool prefix_cache_;
  Step step_;
  std::vector<Job*> jobs_;
};

}  // namespace sdar
