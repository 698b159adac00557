#include "engine/drafter.h"

#include <algorithm>
#include <chrono>
#include <string>

namespace sdar {
namespace {

/// Rows of prompts in a forward, beside drafts that others wait for.
constexpr int32_t kPromptRows = 256;
/// Blocks that a draft may have to compute and still not count as a prompt: the two drafted, and those kept before.
constexpr int32_t kCatchUp = 4;

}  // namespace

Drafter::Drafter(Backend& backend, const DraftContext& draft, const SequenceContext& target, int64_t pages,
                 int32_t max_rows, bool prefix_cache)
    : backend_(backend),
      draft_(draft),
      target_(target),
      pool_(static_cast<int32_t>(pages), prefix_cache),
      max_rows_(max_rows),
      prefix_cache_(prefix_cache) {}

void Drafter::join(Job& job) {
  job.draft = std::make_unique<Draft>(draft_, target_, job.request());
  if (!job.request().given.empty()) return job.draft->stop();
  if (!draft_.only_if_faster) return;
  job.drafted_for = gate_.next();
  if (!job.drafted_for) job.draft->stop();
}

PrefixRoot Drafter::root_of(const Job& job) const {
  const Request& r = job.request();
  return {.block_length = draft_.block_length, .salt = prefix_cache_ ? r.salt : std::to_string(r.group)};
}

bool Drafter::allocate(Job& job) {
  Draft& draft = *job.draft;
  if (draft.pages().empty() && may_share(job)) {
    const int32_t per_page = tokens_per_page(draft_.block_length);
    draft.shared_pages = pool_.match(root_of(job), draft.final_tokens(), per_page, draft.pages());
    draft.adopt(draft.shared_pages * per_page);
  }
  const int32_t more = draft.pages_needed() - static_cast<int32_t>(draft.pages().size());
  return more <= 0 || pool_.take(more, draft.pages());
}

void Drafter::index_full_pages(Job& job) {
  if (!may_share(job)) return;
  Draft& draft = *job.draft;
  const int32_t per_page = tokens_per_page(draft_.block_length);
  for (; (draft.shared_pages + 1) * per_page <= draft.committed(); draft.shared_pages++) {
    const auto tokens = draft.final_tokens().subspan(draft.shared_pages * per_page, per_page);
    pool_.index_page(root_of(job), draft.pages(), draft.shared_pages, tokens);
  }
}

void Drafter::step(std::span<const JobPtr> jobs, EngineStats& stats) {
  step_.clear();
  jobs_.clear();
  int32_t rows = max_rows_, prompt_rows = kPromptRows;
  for (const JobPtr& job : jobs) {
    Draft& draft = *job->draft;
    if (!draft.follow(job->sequence)) continue;
    if (static_cast<size_t>(backend_.max_sequences()) == jobs_.size()) break;
    if (!allocate(*job)) {
      draft.skip();
      release(*job);
      continue;
    }
    const bool prompt = draft.rows_left() > kCatchUp * draft_.block_length;
    const int32_t allowed = prompt ? std::min(rows, std::max(prompt_rows, 0)) : rows;
    if (allowed < draft_.block_length) continue;
    const StepSequence planned = draft.plan(allowed);
    if (planned.segment.rows == 0) continue;
    rows -= planned.segment.rows;
    if (prompt) prompt_rows -= planned.segment.rows;
    job->computed.rows += planned.segment.rows;
    jobs_.push_back(job.get());
    step_.add(planned);
  }
  if (step_.rows() == 0) return;
  const auto start = std::chrono::steady_clock::now();
  const auto results = backend_.run(step_);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  stats.draft_seconds += seconds;
  stats.draft_steps++;
  for (size_t i = 0; i < jobs_.size(); i++) {
    Job& job = *jobs_[i];
    job.seconds += seconds * step_.sequences()[i].segment.rows / step_.rows();
    stats.draft_forwards += step_.sequences()[i].denoise;
    job.sequence.propose(job.draft->apply(step_.sequences()[i], results[i]));
    index_full_pages(job);
  }
}

void Drafter::release(Job& job) {
  pool_.release(job.draft->pages());
  job.draft->shared_pages = 0;
  job.draft->adopt(0);
}

}  // namespace sdar
