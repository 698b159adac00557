// One request while it runs: which positions are known, what the next step computes, what its fills mean. In blocks, the
// active block's rows decide themselves; autoregressive, the row of the last known position decides the next one, and
// those of proposed tokens after it what follows them.
// States of a position (fixed, masked, filled) are explicit, never inferred from the token id.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "backend/step.h"
#include "engine/form_filling.h"
#include "engine/penalties.h"
#include "engine/request.h"
#include "engine/stop_matcher.h"

namespace sdar {

/// Bytes of token i are bytes[offsets[i] … offsets[i + 1]); ids beyond the table and special tokens have none.
struct TokenBytes {
  std::vector<char> bytes;
  std::vector<uint32_t> offsets;
  std::string_view of(int32_t id) const;
};

/// What a sequence must know of the engine around it; outlives it.
struct SequenceContext {
  int32_t context = 0;
  int32_t mask_id = -1;  ///< -1: the model has none
  bool autoregressive = false;
  std::vector<int32_t> end_ids;  ///< ascending
  int32_t end_id = -1;           ///< the one that ends a text of a given form; −1: the model has none
  TokenBytes token_bytes;
};

class Sequence {
 public:
  /// The request is valid (Engine::submit checked it); block_length is set.
  Sequence(Request request, const SequenceContext& context);

  /// What the next step computes, at most `max_rows` rows (>= one block): known positions that are not in the cache yet
  /// and, when all of them fit, the active block. Valid until apply().
  StepSequence plan(int32_t max_rows) const;
  /// Takes in what a planned step computed. Returns how the request ended, if it did.
  std::optional<FinishReason> apply(const StepSequence& planned, const SequenceResult& result);

  /// Tokens released since the last call: the filled run from the start of the generation, up to where it ended.
  std::span<const TokenRecord> take_released();
  /// Of the tokens last taken: SamplingParams::top_logprobs most probable ids each, of those that the form wrote none.
  std::span<const RankedLogprob> released_top() const { return std::span(top_records_).subspan(top_taken_); }
  int64_t released_bytes() const { return finished_ ? text_end_ : stop_.released(); }
  /// Ends with what has been released, when the request is aborted or failed.
  void finish_early() { finished_ = true; }
  /// More than one block of known positions is not in the cache yet.
  bool prefilling() const { return active_ - committed_ > request_.block_length; }
  /// Of a step that takes all known positions that are not in the cache yet and the active block or proposed tokens.
  int32_t rows_left() const {
    return active_ - committed_ + (verification_.empty() ? rows_beyond() : static_cast<int32_t>(verification_.size()));
  }
  /// Masked positions of the active block; where autoregressive, those that a step decides.
  int32_t masked() const { return std::popcount(masked_); }

  /// Autoregressive: most tokens that can be proposed; none past what may be generated.
  int32_t room_for_proposal() const { return limit_ - 1 - active_; }
  /// Autoregressive: tokens that may come next, at most kMaxBlockLength - 1 and room_for_proposal(). The next step that
  /// samples decides each of them and one more, as steps without a proposal would: those that agree are kept, and the
  /// first that does not is replaced.
  void propose(std::span<const int32_t> tokens);
  /// Tokens proposed for the next step.
  std::span<const int32_t> proposed() const { return std::span(tokens_).subspan(active_); }
  /// Positions that a planned step brings into the cache, for the first time or again.
  struct CacheRows {
    int32_t prompt = 0;      ///< of the prompt, for the first time
    int32_t recomputed = 0;  ///< had been there before
  };
  CacheRows cache_rows(const StepSequence& planned) const;

  const Request& request() const { return request_; }
  std::vector<int32_t>& pages() { return pages_; }
  const std::vector<int32_t>& pages() const { return pages_; }
  /// Tokens before the active block: they are final.
  std::span<const int32_t> known() const { return std::span(tokens_).first(active_); }
  /// Of them, those that need not be computed where the cache has them: autoregressive, the last one's row decides.
  std::span<const int32_t> reusable() const { return known().first(active_ - (context_.autoregressive ? 1 : 0)); }
  /// Positions whose keys and values are in the pages, final.
  int32_t committed() const { return committed_; }
  /// The first `positions` are in the pages already: they were found there.
  void adopt(int32_t positions);
  /// The pages were released; all known positions have to be computed again. What has been filled stays.
  void drop_cache() { committed_ = 0; }
  /// Pages the next step may write to, those before included.
  int32_t pages_needed() const;
  /// Positions from the start that may be found by other requests: no literal mask id is among them.
  int32_t shareable() const { return shareable_; }
  int32_t prompt_tokens() const { return prompt_; }
  int32_t completion_tokens() const { return static_cast<int32_t>(records_.size()); }
  int32_t forwards() const { return forwards_; }
  /// Tokens that the last step decided.
  int32_t decided() const { return decided_; }
  /// Tokens that were proposed and computed, and those of them that were kept.
  int32_t proposed_tokens() const { return proposed_; }
  int32_t accepted_tokens() const { return accepted_; }
  int64_t text_bytes() const { return text_end_; }

  struct Draft {
    int32_t block, step, position;
    std::vector<int32_t> ids, steps;  ///< -1 where masked
  };
  /// The active block as the last step left it.
  Draft draft(const StepSequence& planned) const;

 private:
  /// Rows after the known ones in a step that samples.
  int32_t rows_beyond() const { return static_cast<int32_t>(tokens_.size()) - active_; }
  void open_block(int32_t position);
  void clear_filled(size_t positions);
  std::optional<FinishReason> apply_block(const StepSequence& planned, const SequenceResult& result);
  std::optional<FinishReason> apply_next(const StepSequence& planned, const SequenceResult& result);
  std::optional<FinishReason> go_on();
  /// `top`: SequenceResult::top of this position.
  void fill(int32_t offset, const SampledToken& token, std::span<const RankedToken> top = {});
  std::optional<FinishReason> release();
  // Of a draft that is verified (sequence_verification.cc):
  void begin_verification(const SequenceResult& draft);
  void plan_verification(StepSequence& step) const;
  uint64_t verified(const StepSequence& planned, const SequenceResult& result) const;
  // Of a text that is scored (sequence_given.cc):
  void ask_given();
  std::optional<FinishReason> apply_given(const StepSequence& planned, const SequenceResult& result);
  // Of a given form (sequence_form.cc):
  void begin_form();
  std::optional<FinishReason> apply_form(const StepSequence& planned, const SequenceResult& result);
  bool write_forced();
  void fill_forced(std::span<const int32_t> tokens);
  void ask_form();
  std::vector<int32_t> unreleased() const;

  Request request_;
  const SequenceContext& context_;
  int32_t prompt_;
  int32_t limit_;                          ///< generation ends before this position
  std::vector<int32_t> suppressed_;        ///< ids never chosen: the mask id, where there is one, `suppress`
  std::vector<int32_t> suppressed_early_;  ///< and, before min_tokens, what would end the generation
  std::vector<int32_t> tokens_;            ///< by position; the mask id where masked; proposed ones at the end
  std::vector<TokenRecord> filled_;        ///< by position - active_, of the active block
  std::vector<TokenRecord> records_;       ///< released tokens
  size_t taken_ = 0;
  std::vector<RankedLogprob> top_filled_, top_records_;  ///< [·, top_logprobs] of filled_ and records_
  size_t top_taken_ = 0;
  std::optional<TokenPenalties> penalties_;
  int32_t committed_ = 0;
  int32_t computed_ = 0;  ///< most positions that were ever committed
  int32_t shareable_;
  int32_t active_ = 0;  ///< first position of the active block; autoregressive, the next one to be decided
  int32_t step_ = 0;
  uint64_t masked_ = 0;  ///< bit i: position active_ + i is masked, or is decided by the next step that samples
  std::vector<int32_t> verification_;  ///< ids of the rows that verify the draft of the active block; empty: none is to
  int32_t next_;                       ///< first position not released
  int32_t forwards_ = 0;
  int32_t proposed_ = 0, accepted_ = 0, decided_ = 0;
  std::unique_ptr<FormFilling> form_;  ///< with a form: has accepted what was released
  std::array<RowLimits, kMaxBlockLength> limits_{};
  bool finished_ = false;
  int64_t text_end_ = 0;
  StopMatcher stop_;
  std::vector<int32_t> pages_;
};

}  // namespace sdar
