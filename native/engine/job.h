// A request from submission to its end, and the pages of keys and values that it references.
#pragma once
#include <cstdint>
#include <memory>

#include "cache/page_pool.h"
#include "engine/draft.h"
#include "engine/events.h"
#include "engine/sequence.h"

namespace sdar {

struct Job {
  Job(Request request, const SequenceContext& context, int64_t arrival)
      : sequence(std::move(request), context), arrival(arrival) {}

  Sequence sequence;
  std::unique_ptr<Draft> draft;  ///< where a draft model speculates
  int64_t arrival;               ///< counts submissions
  int32_t shared_pages = 0;      ///< pages from the first on that came from the prefix index or were entered into it
  int32_t cached_tokens = 0;     ///< of the prompt, found when it was admitted first
  Computed computed;
  double seconds = 0;       ///< its share, by rows, of the steps that decided its tokens and of drafts
  bool drafted_for = true;  ///< where a draft model speculates: DraftGate let it
  bool started = false;
  bool resumed = false;  ///< after a pause, until it runs again
  bool ended = false;

  const Request& request() const { return sequence.request(); }
  /// Denoising steps, or the target's and the draft's forwards together.
  int32_t forwards() const { return sequence.forwards() + (draft ? draft->forwards : 0); }
  std::optional<Speculation> speculation() const {
    if (!draft) return {};
    return Speculation{draft->forwards, sequence.proposed_tokens(), sequence.accepted_tokens()};
  }
  bool holds_pages() const { return !sequence.pages().empty(); }
};
using JobPtr = std::unique_ptr<Job>;

class KvCacheManager {
 public:
  /// Without `cache_prefixes` pages are shared within a group only.
  KvCacheManager(PagePool& pool, bool cache_prefixes) : pool_(pool), cache_prefixes_(cache_prefixes) {}

  /// Gives a job the pages of its next step, those with known contents first, and leaves `spare` others available; or
  /// changes nothing and returns false.
  bool allocate(Job& job, int32_t spare);
  /// After a step: enters pages that became full into the prefix index.
  void index_full_pages(Job& job);
  /// Drops the job's references: its positions will have to be computed again.
  void release(Job& job);

  /// Positions of the prompt that others can find once they are committed.
  int32_t shareable_prompt(const Job& job) const;

 private:
  bool may_share(const Job& job) const { return cache_prefixes_ || job.request().group != 0; }
  PrefixRoot root_of(const Job& job) const;
  void pin(Job& job);

  PagePool& pool_;
  bool cache_prefixes_;
};

}  // namespace sdar
