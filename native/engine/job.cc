#include "engine/job.h"

#include <algorithm>

#include "backend/step.h"

namespace sdar {

PrefixRoot KvCacheManager::root_of(const Job& job) const {
  const Request& r = job.request();
  return {.block_length = r.block_length, .salt = cache_prefixes_ ? r.salt : std::to_string(r.group)};
}

bool KvCacheManager::allocate(Job& job, int32_t spare) {
  Sequence& sequence = job.sequence;
  const int32_t per_page = tokens_per_page(job.request().block_length);
  const int32_t needed = sequence.pages_needed();
  if (!job.holds_pages() && may_share(job)) {
    const PrefixRoot root = root_of(job);
    int32_t cached = 0;
    const int32_t found = pool_.count_matches(root, sequence.reusable(), per_page, cached);
    if (pool_.available() - cached < needed - found + spare) return false;
    job.shared_pages = pool_.match(root, sequence.reusable(), per_page, sequence.pages());
    sequence.adopt(job.shared_pages * per_page);
    pin(job);
  }
  const int32_t more = needed - static_cast<int32_t>(sequence.pages().size());
  if (more <= 0) return true;
  return pool_.available() >= more + spare && pool_.take(more, sequence.pages());
}

void KvCacheManager::index_full_pages(Job& job) {
  if (!may_share(job)) return;
  Sequence& sequence = job.sequence;
  const int32_t per_page = tokens_per_page(job.request().block_length);
  const int32_t end = std::min(sequence.committed(), sequence.shareable());
  if ((job.shared_pages + 1) * per_page > end) return;
  const PrefixRoot root = root_of(job);
  for (; (job.shared_pages + 1) * per_page <= end; job.shared_pages++) {
    const auto tokens = sequence.known().subspan(job.shared_pages * per_page, per_page);
    pool_.index_page(root, sequence.pages(), job.shared_pages, tokens);
  }
  pin(job);
}

void KvCacheManager::pin(Job& job) {
  if (!job.request().pin) return;
  // From the first on: what a pinned page continues is pinned.
  const int32_t per_page = tokens_per_page(job.request().block_length);
  for (int32_t i = 0; i < job.shared_pages && (i + 1) * per_page <= job.sequence.prompt_tokens(); i++)
    pool_.pin(job.sequence.pages()[i]);
}

void KvCacheManager::release(Job& job) {
  pool_.release(job.sequence.pages());
  job.sequence.drop_cache();
  job.shared_pages = 0;
}

int32_t KvCacheManager::shareable_prompt(const Job& job) const {
  if (!may_share(job)) return 0;
  const int32_t per_page = tokens_per_page(job.request().block_length);
  return std::min(job.sequence.prompt_tokens(), job.sequence.shareable()) / per_page * per_page;
}

}  // namespace sdar
