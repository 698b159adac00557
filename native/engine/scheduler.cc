#include "engine/scheduler.h"

#include <algorithm>
#include <bit>
#include <new>

#include "util/error.h"

namespace sdar {

namespace {

using Clock = Scheduler::Clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool earlier(const JobPtr& a, const JobPtr& b) {
  const Request &x = a->request(), &y = b->request();
  return x.rank != y.rank ? x.rank < y.rank : a->arrival < b->arrival;
}
bool more_important(const JobPtr& a, const JobPtr& b) {
  const Request &x = a->request(), &y = b->request();
  return x.priority != y.priority ? x.priority > y.priority : earlier(a, b);
}

/// Moves from[index] to its place in `to`. Strong guarantee.
template <class Before>
void move_job(std::vector<JobPtr>& from, size_t index, std::vector<JobPtr>& to, Before before) {
  if (to.size() == to.capacity()) to.reserve(2 * to.size() + 1);
  JobPtr job = std::move(from[index]);
  from.erase(from.begin() + static_cast<std::ptrdiff_t>(index));
  to.insert(std::upper_bound(to.begin(), to.end(), job, before), std::move(job));
}

size_t find(const std::vector<JobPtr>& jobs, uint64_t id) {
  return static_cast<size_t>(
      std::find_if(jobs.begin(), jobs.end(), [id](const JobPtr& j) { return j->request().id == id; }) - jobs.begin());
}

/// Of a step in which nothing but prompts runs.
constexpr int32_t kPromptRows = 512;

}  // namespace

Scheduler::Scheduler(StepRunner& runner, PagePool& pool, EventBuffer& events, const SequenceContext& context,
                     SchedulerLimits limits)
    : runner_(runner),
      pool_(pool),
      events_(events),
      context_(context),
      limits_(limits),
      residency_(pool, limits.prefix_cache) {
  limits_.max_concurrent = std::min(limits_.max_concurrent, runner.max_sequences());
  running_.reserve(limits.max_concurrent);
  plan_.sequences.reserve(limits.max_concurrent);
  planned_.reserve(limits.max_concurrent);
  count();
}

void Scheduler::add(Request request) {
  auto job = std::make_unique<Job>(std::move(request), context_, arrivals_++);
  const Request& r = job->request();
  if (r.group != 0 && r.answer == 0) leaders_[r.group] = job.get();
  next_deadline_ = std::min(next_deadline_, r.deadline);
  const auto place = std::upper_bound(waiting_.begin(), waiting_.end(), job, earlier);
  try {
    waiting_.insert(place, std::move(job));
  } catch (...) {
    if (job) forget(*job);
    throw;
  }
  count();
}

void Scheduler::abort(uint64_t id) {
  for (Jobs* jobs : {&waiting_, &running_, &paused_}) {
    const size_t i = find(*jobs, id);
    if (i == jobs->size()) continue;
    Job& job = *(*jobs)[i];
    job.sequence.finish_early();
    finish(job, FinishReason::abort);
    jobs->erase(jobs->begin() + static_cast<std::ptrdiff_t>(i));
  }
  count();
}

void Scheduler::pause(uint64_t id) {
  for (Jobs* jobs : {&waiting_, &running_})
    if (const size_t i = find(*jobs, id); i < jobs->size()) move_job(*jobs, i, paused_, more_important);
  count();
}

void Scheduler::resume(uint64_t id) {
  if (const size_t i = find(paused_, id); i < paused_.size()) move_job(paused_, i, waiting_, earlier);
  count();
}

void Scheduler::fail_all(const Failure& failure) {
  for (Jobs* jobs : {&running_, &waiting_, &paused_}) {
    for (; !jobs->empty(); jobs->pop_back())
      if (!jobs->back()->ended) fail(*jobs->back(), failure);
  }
  count();
}

void Scheduler::expire(Clock::time_point now) {
  if (now < next_deadline_) return;
  next_deadline_ = Clock::time_point::max();
  for (Jobs* jobs : {&waiting_, &running_, &paused_}) {
    for (size_t i = jobs->size(); i-- > 0;) {
      Job& job = *(*jobs)[i];
      if (now < job.request().deadline) {
        next_deadline_ = std::min(next_deadline_, job.request().deadline);
        continue;
      }
      fail(job, {code::kDeadlineExceeded,
                 "the deadline passed after " + std::to_string(job.sequence.completion_tokens()) + " tokens"});
      jobs->erase(jobs->begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  count();
}

bool Scheduler::waits_for_group(const Job& job) const {
  const Request& r = job.request();
  if (r.group == 0 || r.answer == 0) return false;
  const auto it = leaders_.find(r.group);
  if (it == leaders_.end()) return false;
  const Job& leader = *it->second;
  const bool paused = std::any_of(paused_.begin(), paused_.end(), [&](const JobPtr& j) { return j.get() == &leader; });
  return !paused && leader.sequence.committed() < residency_.shareable_prompt(leader);
}

/// Pages of paused requests go first; a request that runs is never stopped for one that waits.
bool Scheduler::fits(Job& job) {
  do {
    // One page more for each that runs, as far as a small cache allows, or the next step would preempt again.
    const int32_t running = static_cast<int32_t>(running_.size());
    if (residency_.place(job, std::min(running, 1 + pool_.total() / 16))) return true;
  } while (reclaim_paused());
  return running_.empty() && residency_.place(job, 0);
}

void Scheduler::admit() {
  for (size_t i = 0; i < waiting_.size() && running_.size() < static_cast<size_t>(limits_.max_concurrent);) {
    Job& job = *waiting_[i];
    if (waits_for_group(job)) {
      i++;
      continue;
    }
    if (!fits(job)) break;
    if (!job.started) {
      job.started = true;
      job.cached_tokens = job.sequence.committed();
      stats_.prompt_tokens += job.sequence.prompt_tokens();
      stats_.cached_tokens += job.cached_tokens;
      events_.started(job.request().id, job.cached_tokens);
    }
    move_job(waiting_, i, running_, more_important);
  }
}

/// Takes the pages of the least important request that holds any without being able to run. False: there is none.
bool Scheduler::reclaim_paused() {
  for (Jobs* jobs : {&paused_, &waiting_}) {
    for (size_t i = jobs->size(); i-- > 0;) {
      if (!(*jobs)[i]->holds_pages()) continue;
      residency_.release(*(*jobs)[i]);
      return true;
    }
  }
  return false;
}

void Scheduler::preempt(size_t index) {
  Job& job = *running_[index];
  events_.preempted(job.request().id);
  stats_.preemptions++;
  residency_.release(job);
  move_job(running_, index, waiting_, earlier);
}

/// Pages for the next step of all that run, in order of importance. The first always gets its own: what could not fit
/// alone was refused.
void Scheduler::grow() {
  for (size_t i = 0; i < running_.size(); i++) {
    while (!residency_.place(*running_[i], 0)) {
      if (reclaim_paused()) continue;
      const size_t last = running_.size() - 1;
      preempt(last);
      if (last == i) break;
    }
  }
}

void Scheduler::plan_part(Job& job, int32_t max_rows) {
  planned_.push_back(&job);
  plan_.sequences.push_back(job.sequence.plan(max_rows));
}

void Scheduler::plan() {
  plan_.sequences.clear();
  planned_.clear();
  prefill_rows_ = 0;
  const size_t n = running_.size();
  int64_t waiting = 0;
  int32_t longest_block = 1;
  PrefillBudget::Rows without;
  for (const JobPtr& job : running_) {
    if (job->sequence.prefilling()) {
      waiting++;
      longest_block = std::max(longest_block, job->request().block_length);
    } else {
      without.decode += job->sequence.rows_left();
      without.head += job->sequence.masked();
    }
  }
  const int64_t decoding = static_cast<int64_t>(n) - waiting;
  int32_t prefill_left = limits_.prefill_rows;
  if (prefill_left == 0) prefill_left = decoding == 0 ? kPromptRows : budget_.rows(waiting, decoding, without);
  prefill_left = std::max(prefill_left, longest_block);
  int32_t rows_left = limits_.max_rows;

  const auto prompts = [&] {
    for (const JobPtr& job : running_) {
      const int32_t allowed = std::min(rows_left, prefill_left);
      if (!job->sequence.prefilling() || allowed < job->request().block_length) continue;
      plan_part(*job, allowed);
      const int32_t rows = plan_.sequences.back().segment.rows;
      rows_left -= rows, prefill_left -= rows, prefill_rows_ += rows;
    }
  };
  bool skipped = false;
  const auto blocks = [&] {
    for (size_t i = 0; i < n; i++) {
      Job& job = *running_[(turn_ + i) % n];
      if (job.sequence.prefilling()) continue;
      if (rows_left < 2 * job.request().block_length) {
        skipped = true;
        continue;
      }
      plan_part(job, rows_left);
      rows_left -= plan_.sequences.back().segment.rows;
    }
  };
  if (prompts_first_) {
    prompts(), blocks();
  } else {
    blocks(), prompts();
  }
  prompts_first_ = !(prompts_first_ && skipped);
  turn_ = n ? (turn_ + 1) % n : 0;
}

void Scheduler::compute() {
  const OpSeconds before = runner_.seconds();
  const auto start = Clock::now();
  const auto outcomes = runner_.poll(runner_.submit(plan_));
  const double seconds = seconds_since(start);
  const OpSeconds& after = runner_.seconds();

  const int32_t rows = plan_.rows();
  int32_t head_rows = 0;
  for (const StepSequence& s : plan_.sequences) head_rows += s.denoise ? std::popcount(s.masked) : 0;
  budget_.observe({prefill_rows_, rows - prefill_rows_, head_rows}, seconds);
  const double prefill = rows > 0 ? double(prefill_rows_) / rows : 0;
  const double attention = after.attention - before.attention, products = after.products - before.products;
  stats_.seconds.prefill += prefill * (attention + products);
  stats_.seconds.attention += (1 - prefill) * attention;
  stats_.seconds.gemm += (1 - prefill) * products;
  stats_.seconds.head += after.head - before.head;
  stats_.seconds.denoise += after.choose - before.choose;
  stats_.step_seconds += seconds;
  stats_.steps++;
  stats_.rows += rows;
  stats_.sequences += static_cast<int64_t>(planned_.size());
  stats_.max_sequences = std::max(stats_.max_sequences, static_cast<int32_t>(planned_.size()));
  for (size_t i = 0; i < planned_.size(); i++) settle(i, outcomes[i]);
}

void Scheduler::step() {
  const auto start = Clock::now();
  const double computed_before = stats_.step_seconds;
  try {
    expire(start);
    admit();
    grow();
    plan();
    if (!planned_.empty()) compute();
  } catch (const Error& e) {
    if (e.code() == code::kDeviceFailed) stats_.failure = e.what();
    fail_all({e.code(), e.what()});
  } catch (const std::bad_alloc&) {
    fail_all({code::kOutOfMemory, "the system has no memory left for a step"});
  } catch (const std::exception& e) {
    fail_all({code::kInternal, e.what()});
  }
  std::erase_if(running_, [](const JobPtr& j) { return j->ended; });
  stats_.scheduler_seconds += seconds_since(start) - (stats_.step_seconds - computed_before);
  count();
}

void Scheduler::settle(size_t index, const StepOutcome& outcome) {
  Job& job = *planned_[index];
  Sequence& sequence = job.sequence;
  const StepSequence& planned = plan_.sequences[index];
  if (!outcome.finite) {
    fail(job, {code::kNumericError, "a NaN or an infinity appeared in the logits at positions " +
                                        std::to_string(planned.active_position()) + " to " +
                                        std::to_string(planned.segment.position + planned.segment.rows - 1)});
    return;
  }
  const Sequence::CacheRows cached = sequence.cache_rows(planned);
  stats_.prefill_tokens += cached.prompt;
  stats_.recomputed_tokens += cached.recomputed;
  if (planned.denoise) {
    const int filled = std::popcount(outcome.filled);
    stats_.forwards++;
    stats_.filled_tokens += filled;
    stats_.tokens_per_forward[filled]++;
  }
  const auto reason = sequence.apply(planned, outcome);
  residency_.share(job);
  const uint64_t id = job.request().id;
  if (planned.denoise && job.request().drafts) {
    const Sequence::Draft draft = sequence.draft(planned);
    events_.draft(id, draft.block, draft.step, draft.position, draft.ids, draft.steps);
  }
  if (const auto fresh = sequence.take_released(); !fresh.empty())
    events_.tokens(id, sequence.released_bytes(), fresh,
                   static_cast<int>(fresh.size()) == sequence.completion_tokens());
  if (reason) finish(job, *reason);
}

void Scheduler::finish(Job& job, FinishReason reason) {
  const Sequence& sequence = job.sequence;
  events_.finished(job.request().id, {.reason = reason,
                                      .text_bytes = sequence.text_bytes(),
                                      .prompt_tokens = sequence.prompt_tokens(),
                                      .cached_tokens = job.cached_tokens,
                                      .completion_tokens = sequence.completion_tokens(),
                                      .forwards = sequence.forwards()});
  stats_.finished[static_cast<int>(reason)]++;
  forget(job);
}

void Scheduler::fail(Job& job, Failure failure) {
  const bool timed_out = failure.code == code::kDeadlineExceeded;
  events_.failed(job.request().id, std::move(failure));
  (timed_out ? stats_.timed_out : stats_.failed)++;
  forget(job);
}

/// The job has ended, and its end has been told.
void Scheduler::forget(Job& job) {
  job.ended = true;
  residency_.release(job);
  const auto it = leaders_.find(job.request().group);
  if (it != leaders_.end() && it->second == &job) leaders_.erase(it);
}

void Scheduler::count() {
  stats_.running = static_cast<int32_t>(running_.size());
  stats_.waiting = static_cast<int32_t>(waiting_.size());
  stats_.paused = static_cast<int32_t>(paused_.size());
  stats_.pages_total = pool_.total();
  stats_.pages_free = pool_.free();
  stats_.pages_cached = pool_.cached();
  stats_.pages_pinned = pool_.pinned();
  stats_.evictions = pool_.evictions();
}

}  // namespace sdar
