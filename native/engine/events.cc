#include "engine/events.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace sdar {

namespace {

/// Makes room for n more, so that appending them cannot fail half-way.
template <class T>
void make_room(std::vector<T>& v, size_t n) {
  if (v.capacity() - v.size() < n) v.reserve(std::max(v.size() + n, 2 * v.capacity()));
}

}  // namespace

/// The head of a record, with room for the rest of it.
void EventBuffer::append(std::initializer_list<double> head, size_t more) {
  make_room(pending_.records, head.size() + more);
  pending_.records.insert(pending_.records.end(), head);
}

void EventBuffer::tokens(uint64_t request, int64_t released_bytes, int32_t forwards, const Computed& computed,
                         std::span<const TokenRecord> tokens, std::span<const RankedLogprob> top, bool first) {
  const size_t ranked = top.size() / tokens.size();
  const size_t numbers = kTokenFields.size() * tokens.size() + 2 * top.size();
  const auto [rows, steps] = computed;
  append({kTokens, double(request), double(5 + numbers), double(released_bytes), double(forwards), double(rows),
          double(steps), double(ranked)},
         numbers);
  auto& out = pending_.records;
  for (const TokenRecord& t : tokens)
    out.insert(out.end(), {double(t.id), double(t.position), double(t.block), double(t.step), double(t.confidence),
                           double(t.logprob)});
  for (const RankedLogprob& r : top) out.insert(out.end(), {double(r.id), double(r.logprob)});
  urgent_ |= first;
}

void EventBuffer::started(uint64_t request, int32_t cached_tokens) {
  append({kStarted, double(request), 1, double(cached_tokens)}, 0);
}

void EventBuffer::preempted(uint64_t request) { append({kPreempted, double(request), 0}, 0); }

void EventBuffer::finished(uint64_t request, const FinishInfo& info) {
  const auto [rows, steps] = info.computed;
  const auto [draft_forwards, drafted, accepted] = info.speculation.value_or(Speculation{});
  const size_t more = info.speculation ? 3 : 0;
  append({kFinished, double(request), double(8 + more), double(info.reason), double(info.text_bytes),
          double(info.prompt_tokens), double(info.cached_tokens), double(info.completion_tokens), double(info.forwards),
          double(rows), double(steps)},
         more);
  if (more)
    pending_.records.insert(pending_.records.end(), {double(draft_forwards), double(drafted), double(accepted)});
  pending_.ended++;
  urgent_ = true;
}

void EventBuffer::failed(uint64_t request, Failure failure, const Computed& computed) {
  make_room(pending_.failures, 1);
  const size_t index = pending_.failures.size();
  const auto [rows, steps] = computed;
  append({kFailed, double(request), 3, double(index), double(rows), double(steps)}, 0);
  pending_.failures.push_back(std::move(failure));
  pending_.ended++;
  urgent_ = true;
}

void EventBuffer::draft(uint64_t request, int32_t block, int32_t step, int32_t position, std::span<const int32_t> ids,
                        std::span<const int32_t> steps) {
  append({kDraft, double(request), double(3 + 2 * ids.size()), double(block), double(step), double(position)},
         2 * ids.size());
  auto& out = pending_.records;
  for (size_t i = 0; i < ids.size(); i++) out.insert(out.end(), {double(ids[i]), double(steps[i])});
}

void EventBuffer::publish() {
  if (pending_.records.empty()) return;
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    make_room(published_.records, pending_.records.size());
    make_room(published_.failures, pending_.failures.size());
    const size_t base = published_.failures.size();
    if (base > 0) {  // indices of failures continue where the unread ones end
      for (size_t i = 0; i < pending_.records.size(); i += 3 + size_t(pending_.records[i + 2]))
        if (pending_.records[i] == kFailed) pending_.records[i + 3] += double(base);
    }
    published_.records.insert(published_.records.end(), pending_.records.begin(), pending_.records.end());
    std::move(pending_.failures.begin(), pending_.failures.end(), std::back_inserter(published_.failures));
    published_.ended += std::exchange(pending_.ended, 0);
    wake = !wake_pending_;
    wake_pending_ = true;
  }
  urgent_ = false;
  pending_.records.clear();
  pending_.failures.clear();
  if (wake && wake_) wake_();
}

EventBatch EventBuffer::take() {
  std::lock_guard lock(mutex_);
  wake_pending_ = false;
  return std::exchange(published_, {});
}

}  // namespace sdar
