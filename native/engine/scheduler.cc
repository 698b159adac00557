#include "engine/scheduler.h"

#include <algorithm>
#include <new>
#include <unordered_set>

#include "util/error.h"

namespace sdar {

namespace {

using Clock = Scheduler::Clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool earlier(const JobPtr& a, const JobPtr& b) {
  const Request &x = a->request(), &y = b->request();
  if (a->resumed != b->resumed) return a->resumed;
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

/// What each tenant's jobs count together.
template <class Count>
std::unordered_map<uint64_t, size_t> by_tenant(const std::vector<JobPtr>& jobs, Count count) {
  std::unordered_map<uint64_t, size_t> totals;
  for (const JobPtr& job : jobs) totals[job->request().tenant] += count(*job);
  return totals;
}

/// The last job of the tenant with the greatest total, above `floor`; jobs.size(): no tenant has as much.
size_t last_of_greatest(const std::vector<JobPtr>& jobs, const std::unordered_map<uint64_t, size_t>& totals,
                        size_t floor) {
  size_t last = jobs.size(), most = floor;
  for (size_t i = jobs.size(); i-- > 0;) {
    const size_t held = totals.at(jobs[i]->request().tenant);
    if (held > most) last = i, most = held;
  }
  return last;
}

size_t find(const std::vector<JobPtr>& jobs, uint64_t id) {
  return static_cast<size_t>(
      std::find_if(jobs.begin(), jobs.end(), [id](const JobPtr& j) { return j->request().id == id; }) - jobs.begin());
}

}  // namespace

Scheduler::Scheduler(Backend& backend, PagePool& pool, EventBuffer& events, const SequenceContext& context,
                     SchedulerLimits limits)
    : backend_(backend),
      pool_(pool),
      events_(events),
      context_(context),
      limits_(limits),
      cache_(pool, limits.prefix_cache),
      planner_(limits.max_concurrent, limits.max_rows, limits.prefill_rows) {
  limits_.max_concurrent = std::min(limits_.max_concurrent, backend.max_sequences());
  running_.reserve(limits.max_concurrent);
  count();
}

void Scheduler::add(Request request) {
  auto job = std::make_unique<Job>(std::move(request), context_, arrivals_++);
  if (drafter_) drafter_->join(*job);
  const Request& r = job->request();
  if (r.group != 0 && r.completion == 0) leaders_[r.group] = job.get();
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
  const size_t i = find(paused_, id);
  if (i == paused_.size()) return;
  paused_[i]->resumed = true;
  move_job(paused_, i, waiting_, earlier);
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
  if (r.group == 0 || r.completion == 0) return false;
  const auto it = leaders_.find(r.group);
  if (it == leaders_.end()) return false;
  const Job& leader = *it->second;
  const bool paused = std::any_of(paused_.begin(), paused_.end(), [&](const JobPtr& j) { return j.get() == &leader; });
  return !paused && leader.sequence.committed() < cache_.shareable_prompt(leader);
}

/// Pages of paused requests go first; a request that runs is never stopped for one that waits.
bool Scheduler::fits(Job& job) {
  do {
    // One page more for each that runs, as far as a small cache allows, or the next step would preempt again.
    const int32_t running = static_cast<int32_t>(running_.size());
    if (cache_.allocate(job, std::min(running, 1 + pool_.total() / 16))) return true;
  } while (reclaim_paused());
  return running_.empty() && cache_.allocate(job, 0);
}

/// Slots are shared evenly among tenants, or those whose requests take longest would in the end have all of them. The
/// running request that makes room for `job`: the last of the tenant that has most, where that one has more than its
/// share and job's has less. running_.size(): there is none.
size_t Scheduler::displaced_by(const Job& job) const {
  auto slots = by_tenant(running_, [](const Job&) { return 1; });
  const size_t own = slots[job.request().tenant];  // counts among the tenants even with none
  const size_t share = std::max<size_t>(1, static_cast<size_t>(limits_.max_concurrent) / slots.size());
  return own < share ? last_of_greatest(running_, slots, share) : running_.size();
}

void Scheduler::admit() {
  std::unordered_set<uint64_t> refused;  // tenants for whose requests nobody makes room
  for (size_t i = 0; i < waiting_.size();) {
    Job& job = *waiting_[i];
    const bool full = running_.size() >= static_cast<size_t>(limits_.max_concurrent);
    const uint64_t tenant = job.request().tenant;
    if (refused.count(tenant) > 0 || waits_for_group(job)) {
      i++;
      continue;
    }
    const size_t displaced = full ? displaced_by(job) : 0;
    if (displaced == running_.size() && full) {
      refused.insert(tenant);
      i++;
      continue;
    }
    if (!fits(job)) break;
    if (full) {
      // It keeps its pages while nobody needs them.
      move_job(running_, displaced, waiting_, earlier);
      while (waiting_[i].get() != &job) i++;
    }
    if (!job.started) {
      job.started = true;
      job.cached_tokens = job.sequence.committed();
      stats_.prompt_tokens += job.sequence.prompt_tokens();
      stats_.cached_tokens += job.cached_tokens;
      events_.started(job.request().id, job.cached_tokens);
    }
    job.resumed = false;
    move_job(waiting_, i, running_, more_important);
  }
}

/// Takes the pages of the least important request that holds any without being able to run. False: there is none.
bool Scheduler::reclaim_paused() {
  for (Jobs* jobs : {&paused_, &waiting_}) {
    for (size_t i = jobs->size(); i-- > 0;) {
      if (!(*jobs)[i]->holds_pages()) continue;
      release(*(*jobs)[i]);
      return true;
    }
  }
  return false;
}

/// Of the tenant whose running requests hold most pages, so that no priority takes them from another: the last by
/// priority and rank.
size_t Scheduler::preempted_first() const {
  const auto pages = by_tenant(running_, [](const Job& job) { return job.sequence.pages().size(); });
  const size_t last = last_of_greatest(running_, pages, 0);
  return last < running_.size() ? last : 0;
}

void Scheduler::preempt(size_t index) {
  Job& job = *running_[index];
  events_.preempted(job.request().id);
  stats_.preemptions++;
  release(job);
  move_job(running_, index, waiting_, earlier);
}

/// Pages for the next step of all that run, in order of importance. One always gets its own: what could not fit alone
/// was refused.
void Scheduler::grow() {
  for (size_t i = 0; i < running_.size();) {
    if (cache_.allocate(*running_[i], 0)) {
      i++;
    } else if (!reclaim_paused()) {
      const size_t victim = preempted_first();
      preempt(victim);
      if (victim < i) i--;
    }
  }
}

void Scheduler::compute() {
  const StepSeconds before = backend_.seconds();
  const auto start = Clock::now();
  const Step& step = planner_.step();
  const auto results = backend_.run(step);
  const double seconds = seconds_since(start);
  planner_.observe(seconds);

  const StepSeconds& after = backend_.seconds();
  const double prefill = planner_.prefill_share();
  const double attention = after.attention - before.attention, gemm = after.gemm - before.gemm;
  stats_.seconds.prefill += prefill * (attention + gemm);
  stats_.seconds.attention += (1 - prefill) * attention;
  stats_.seconds.gemm += (1 - prefill) * gemm;
  stats_.seconds.lm_head += after.lm_head - before.lm_head;
  stats_.seconds.denoise += after.denoise - before.denoise;
  stats_.step_seconds += seconds;
  stats_.steps++;
  stats_.rows += step.rows();
  const auto jobs = planner_.jobs();
  stats_.sequences += static_cast<int64_t>(jobs.size());
  stats_.max_sequences = std::max(stats_.max_sequences, static_cast<int32_t>(jobs.size()));
  for (const JobPtr& job : running_) job->computed.steps++;
  for (size_t i = 0; i < jobs.size(); i++) {
    const StepSequence& planned = step.sequences()[i];
    if (planned.denoise) jobs[i]->seconds += seconds * planned.segment.rows / step.rows();
    apply(*jobs[i], planned, results[i]);
  }
}

void Scheduler::step() {
  const auto start = Clock::now();
  const double computed_before = stats_.step_seconds + stats_.draft_seconds;
  try {
    expire(start);
    admit();
    if (drafter_) drafter_->step(running_, stats_);
    grow();
    planner_.plan(running_);
    if (planner_.step().rows() > 0) compute();
  } catch (const Error& e) {
    if (e.code() == code::kDeviceFailed) stats_.failure = e.what();
    fail_all({e.code(), e.what()});
  } catch (const std::bad_alloc&) {
    fail_all({code::kOutOfMemory, "the system has no memory left for a step"});
  } catch (const std::exception& e) {
    fail_all({code::kInternal, e.what()});
  }
  std::erase_if(running_, [](const JobPtr& j) { return j->ended; });
  stats_.scheduler_seconds += seconds_since(start) - (stats_.step_seconds + stats_.draft_seconds - computed_before);
  count();
}

void Scheduler::apply(Job& job, const StepSequence& planned, const SequenceResult& result) {
  Sequence& sequence = job.sequence;
  job.computed.rows += planned.segment.rows;
  if (!result.finite && planned.ahead > 0 && planned.window > 1) {
    // It may be a proposed token that does it, which the model itself would never have written.
    sequence.propose({});
    job.draft->stop();
    return;
  }
  if (!result.finite) {
    fail(job, {code::kNumericError, "a NaN or an infinity appeared in the logits at positions " +
                                        std::to_string(planned.active_position()) + " to " +
                                        std::to_string(planned.segment.position_of(planned.segment.rows - 1))});
    return;
  }
  const Sequence::CacheRows cached = sequence.cache_rows(planned);
  stats_.prefill_tokens += cached.prompt;
  stats_.recomputed_tokens += cached.recomputed;
  const int32_t drafted = sequence.proposed_tokens(), accepted = sequence.accepted_tokens();
  const auto reason = sequence.apply(planned, result);
  if (planned.denoise) {
    stats_.drafted_tokens += sequence.proposed_tokens() - drafted;
    stats_.accepted_tokens += sequence.accepted_tokens() - accepted;
    stats_.forwards++;
    stats_.filled_tokens += sequence.decided();
    stats_.tokens_per_forward[sequence.decided()]++;
  }
  cache_.index_full_pages(job);
  const uint64_t id = job.request().id;
  if (planned.denoise && job.request().drafts) {
    const Sequence::Draft draft = sequence.draft(planned);
    events_.draft(id, draft.block, draft.step, draft.position, draft.ids, draft.steps);
  }
  if (const auto fresh = sequence.take_released(); !fresh.empty())
    events_.tokens(id, sequence.released_bytes(), job.forwards(), job.computed, fresh, sequence.released_top(),
                   static_cast<int>(fresh.size()) == sequence.completion_tokens());
  if (reason) finish(job, *reason);
}

/// Drops the job's references to pages: its positions will have to be computed again.
void Scheduler::release(Job& job) {
  cache_.release(job);
  if (drafter_) drafter_->release(job);
}

void Scheduler::finish(Job& job, FinishReason reason) {
  const Sequence& sequence = job.sequence;
  events_.finished(job.request().id, {.reason = reason,
                                      .text_bytes = sequence.text_bytes(),
                                      .prompt_tokens = sequence.prompt_tokens(),
                                      .cached_tokens = job.cached_tokens,
                                      .completion_tokens = sequence.completion_tokens(),
                                      .forwards = job.forwards(),
                                      .computed = job.computed,
                                      .speculation = job.speculation()});
  stats_.finished[static_cast<int>(reason)]++;
  if (drafter_ && reason != FinishReason::abort) drafter_->finished(job);
  forget(job);
}

void Scheduler::fail(Job& job, Failure failure) {
  const bool timed_out = failure.code == code::kDeadlineExceeded;
  events_.failed(job.request().id, std::move(failure), job.computed);
  (timed_out ? stats_.timed_out : stats_.failed)++;
  forget(job);
}

/// The job has ended, and its end has been told.
void Scheduler::forget(Job& job) {
  job.ended = true;
  release(job);
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
