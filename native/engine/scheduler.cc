#include "engine/scheduler.h"

#include <algorithm>
#include <bit>
#include <chrono>

#include "util/error.h"

namespace sdar {

namespace {
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
}  // namespace

Scheduler::Scheduler(Runner& runner, PagePool& pool, EventBuffer& events, const SequenceContext& context,
                     SchedulerLimits limits)
    : runner_(runner), pool_(pool), events_(events), context_(context), limits_(limits) {
  running_.reserve(limits.max_concurrent);
  plan_.sequences.reserve(limits.max_concurrent);
  planned_.reserve(limits.max_concurrent);
  count();
}

void Scheduler::add(Request request) {
  waiting_.push_back(std::make_unique<Sequence>(std::move(request), context_));
  count();
}

void Scheduler::abort(uint64_t id) {
  const auto is_it = [id](const SequencePtr& s) { return s->request().id == id; };
  if (auto it = std::find_if(waiting_.begin(), waiting_.end(), is_it); it != waiting_.end()) {
    (*it)->finish_early();
    finish(**it, FinishReason::abort);
    waiting_.erase(it);
  } else if (auto at = std::find_if(running_.begin(), running_.end(), is_it); at != running_.end()) {
    (*at)->finish_early();
    finish(**at, FinishReason::abort);
    running_.erase(at);
  }
  count();
}

void Scheduler::fail_all(const Failure& failure) {
  for (auto& s : running_)
    if (!s->finished()) fail(*s, failure);
  for (auto& s : waiting_) fail(*s, failure);
  running_.clear();
  waiting_.clear();
  count();
}

void Scheduler::admit() {
  // Every running sequence holds all the pages it can come to need, so a step never runs out of them.
  while (!waiting_.empty() && running_.size() < static_cast<size_t>(limits_.max_concurrent)) {
    Sequence& next = *waiting_.front();
    if (!pool_.take(pages_for(next.reserved_tokens(), next.request().block_length), next.pages())) break;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Scheduler::plan() {
  plan_.sequences.clear();
  planned_.clear();
  int32_t rows_left = limits_.max_rows, prefill_left = limits_.prefill_rows;
  const size_t n = running_.size();
  for (size_t i = 0; i < n; i++) {
    Sequence& sequence = *running_[(turn_ + i) % n];
    const int32_t block = sequence.request().block_length;
    const bool prefilling = sequence.prefilling();
    const int32_t allowed = prefilling ? std::min(rows_left, prefill_left) : rows_left;
    if (allowed < (prefilling ? block : 2 * block)) continue;
    const StepSequence& part = plan_.sequences.emplace_back(sequence.plan(allowed));
    planned_.push_back(&sequence);
    rows_left -= part.segment.rows;
    if (prefilling) prefill_left -= part.segment.rows;
  }
  turn_ = n ? (turn_ + 1) % n : 0;
}

void Scheduler::step() {
  const auto start = Clock::now();
  double computing = 0;
  try {
    admit();
    plan();
    const auto forward_start = Clock::now();
    const auto outcomes = runner_.poll(runner_.submit(plan_));
    computing = seconds_since(forward_start);
    stats_.steps++;
    stats_.rows += plan_.rows();
    stats_.sequences += static_cast<int64_t>(planned_.size());
    stats_.max_sequences = std::max(stats_.max_sequences, static_cast<int32_t>(planned_.size()));
    for (size_t i = 0; i < planned_.size(); i++) settle(i, outcomes[i]);
  } catch (const Error& e) {
    fail_all({e.code(), e.what()});
  } catch (const std::exception& e) {
    fail_all({code::kInternal, e.what()});
  }
  std::erase_if(running_, [](const SequencePtr& s) { return s->finished(); });
  stats_.step_seconds += computing;
  stats_.scheduler_seconds += seconds_since(start) - computing;
  count();
}

void Scheduler::settle(size_t index, const StepOutcome& outcome) {
  Sequence& sequence = *planned_[index];
  const StepSequence& planned = plan_.sequences[index];
  if (!outcome.finite) {
    fail(sequence, {code::kNumericError, "a NaN or an infinity appeared in the logits at positions " +
                                             std::to_string(planned.active_position()) + " to " +
                                             std::to_string(planned.segment.position + planned.segment.rows - 1)});
    return;
  }
  stats_.prefill_tokens += sequence.prompt_rows(planned);
  stats_.forwards += planned.denoise;
  stats_.filled_tokens += std::popcount(outcome.filled);
  const auto reason = sequence.apply(planned, outcome);
  const uint64_t id = sequence.request().id;
  if (planned.denoise && sequence.request().drafts) {
    const Sequence::Draft draft = sequence.draft(planned);
    events_.draft(id, draft.block, draft.step, draft.position, draft.ids, draft.steps);
  }
  if (const auto fresh = sequence.take_released(); !fresh.empty()) events_.tokens(id, sequence.released_bytes(), fresh);
  if (reason) finish(sequence, *reason);
}

void Scheduler::finish(Sequence& sequence, FinishReason reason) {
  stats_.finished[static_cast<int>(reason)]++;
  events_.finished(sequence.request().id, {.reason = reason,
                                           .text_bytes = sequence.text_bytes(),
                                           .prompt_tokens = sequence.prompt_tokens(),
                                           .cached_tokens = 0,
                                           .completion_tokens = sequence.completion_tokens(),
                                           .forwards = sequence.forwards()});
  pool_.release(sequence.pages());
}

void Scheduler::fail(Sequence& sequence, Failure failure) {
  stats_.failed++;
  sequence.finish_early();
  events_.failed(sequence.request().id, std::move(failure));
  pool_.release(sequence.pages());
}

void Scheduler::count() {
  stats_.running = static_cast<int32_t>(running_.size());
  stats_.waiting = static_cast<int32_t>(waiting_.size());
  stats_.pages_total = pool_.total();
  stats_.pages_free = pool_.available();
}

}  // namespace sdar
