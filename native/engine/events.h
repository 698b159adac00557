// What the step loop tells the outside: one coalescing buffer that the reader swaps out, with at most one wake-up
// pending. lib/records.ts decodes the records; this is where their format stands:
//   [kind, request, length of payload, payload …], with the payload
//   tokens     released bytes of text, which no stop string can take back; forwards, rows and steps so far; the number of
//              ids ranked for each token; then kTokenFields of each token, by position; then, for each, the ranked ids
//              with their log probabilities, −1 where there is none
//   finished   reason, bytes of text, tokens of the prompt, cached ones of them, completion tokens, forwards, rows, steps;
//              where a draft model proposes, its forwards among all, drafted tokens, accepted ones
//   failed     index into EventBatch::failures, rows, steps
//   draft      block, step, first position; then of each position the id, −1 when masked, and the step, −1 of the prompt
//   started    tokens of the prompt found in the cache
//   preempted  nothing
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"

namespace sdar {

struct Failure {
  std::string code;
  std::string message;
};

/// Of a token in a record.
inline constexpr std::array kTokenFields{"id", "position", "block", "step", "confidence", "logprob"};

struct EventBatch {
  std::vector<double> records;
  std::vector<Failure> failures;
  int64_t ended = 0;  ///< requests that finished or failed
};

/// What a request took: rows that were computed, and steps in which it had a slot, whether or not it was in them.
struct Computed {
  int64_t rows = 0;
  int64_t steps = 0;
};

/// What came of proposals: the draft's share of the forwards, tokens that the target judged, those that were kept.
struct Speculation {
  int32_t draft_forwards = 0;
  int32_t drafted = 0;
  int32_t accepted = 0;
};

struct FinishInfo {
  FinishReason reason = FinishReason::end;
  int64_t text_bytes = 0;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t forwards = 0;
  Computed computed = {};
  std::optional<Speculation> speculation = std::nullopt;  ///< where a draft model proposes
};

class EventBuffer {
 public:
  static constexpr double kTokens = 1, kFinished = 2, kFailed = 3, kDraft = 4, kStarted = 5, kPreempted = 6;

  /// `wake` is called, from the step loop's thread and outside any lock, when events wait and no wake-up is pending.
  explicit EventBuffer(std::function<void()> wake) : wake_(std::move(wake)) {}

  /// `top`: as many for each of `tokens`, which are not empty. `first`: of that request
  void tokens(uint64_t request, int64_t released_bytes, int32_t forwards, const Computed& computed,
              std::span<const TokenRecord> tokens, std::span<const RankedLogprob> top, bool first);
  /// It first takes part in a step; so many tokens of its prompt were found in the cache.
  void started(uint64_t request, int32_t cached_tokens);
  /// It lost its pages and waits to be computed again.
  void preempted(uint64_t request);
  void finished(uint64_t request, const FinishInfo& info);
  void failed(uint64_t request, Failure failure, const Computed& computed = {});
  /// ids and steps are those of the active block, -1 where masked.
  void draft(uint64_t request, int32_t block, int32_t step, int32_t position, std::span<const int32_t> ids,
             std::span<const int32_t> steps);

  /// Makes what was recorded visible to take() and wakes the reader. Once per step, for the whole batch. Like all of
  /// the above it does all or, without memory, nothing.
  void publish();
  /// Nothing waits for publish().
  bool empty() const { return pending_.records.empty(); }
  /// The first tokens or the end of a request do.
  bool urgent() const { return urgent_; }
  /// Everything published since the last call, oldest first.
  EventBatch take();

 private:
  void append(std::initializer_list<double> head, size_t more);

  EventBatch pending_;  // the step loop's own, no lock
  bool urgent_ = false;
  std::mutex mutex_;
  EventBatch published_;
  bool wake_pending_ = false;
  std::function<void()> wake_;
};

}  // namespace sdar
