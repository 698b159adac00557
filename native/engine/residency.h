// A request and its pages: what is found in the prefix cache, what is taken, what is left to others.
#pragma once
#include <cstdint>
#include <memory>

#include "cache/page_pool.h"
#include "engine/sequence.h"

namespace sdar {

/// A request from submission to its end.
struct Job {
  Job(Request request, const SequenceContext& context, int64_t arrival)
      : sequence(std::move(request), context), arrival(arrival) {}

  Sequence sequence;
  int64_t arrival;            ///< counts submissions
  int32_t shared_pages = 0;   ///< pages from the first on that came from the prefix index or were entered into it
  int32_t cached_tokens = 0;  ///< of the prompt, found when it was admitted first
  bool started = false;
  bool ended = false;

  const Request& request() const { return sequence.request(); }
  bool holds_pages() const { return !sequence.pages().empty(); }
};
using JobPtr = std::unique_ptr<Job>;

class Residency {
 public:
  /// Without `cache_prefixes` pages are shared within a group only.
  Residency(PagePool& pool, bool cache_prefixes) : pool_(pool), cache_prefixes_(cache_prefixes) {}

  /// Gives a job the pages of its next step, those with known contents first, and leaves `spare` others available; or
  /// changes nothing and returns false.
  bool place(Job& job, int32_t spare);
  /// After a step: enters pages that became full.
  void share(Job& job);
  /// Everything the job had in the cache is given up.
  void release(Job& job);

  /// Positions of the prompt that others can find once they are committed.
  int32_t shareable_prompt(const Job& job) const;

 private:
  bool shares(const Job& job) const { return cache_prefixes_ || job.request().group != 0; }
  PrefixRoot root_of(const Job& job) const;
  void pin(Job& job);

  PagePool& pool_;
  bool cache_prefixes_;
};

}  // namespace sdar
