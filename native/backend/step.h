// A step: what the engine has a backend compute, and what comes back. It names sequences of any kind: prefill chunk,
// denoising block, committed block followed by the next one's first denoising. All kinds are computed alike.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "denoise/penalties.h"
#include "denoise/strategy.h"
#include "util/host_device.h"

namespace sdar {

/// Tokens that fit into one page for block length B: a block never straddles pages.
constexpr int32_t kPageSlots = 64;
SDAR_HOST_DEVICE constexpr int32_t tokens_per_page(int32_t block_length) {
  return kPageSlots / block_length * block_length;
}

/// Rows [row, row + rows) of the step are the positions [position, position + rows) of one sequence.
/// Both `position` and `position + rows` are multiples of `block_length`.
/// Position p lies in slot p % tokens_per_page of page pages[p / tokens_per_page].
/// The row at position p attends to every position k with k / block_length <= p / block_length. Keys and values before
/// `position` are in the pages, or written there by other segments of the step; all of the step's are written (rounded
/// to the KV format) before any is read.
///
/// With `masks` > 0 the segment verifies: its rows see what they would in blocks of one position, in the pages of
/// `block_length`. It has rows − masks drafted tokens from `position` on, each of which sees the keys up to its own, and
/// then `masks` rows whose positions end with the one after the last token: each sees the keys before its own, and its
/// own key and value, which (rounded alike) are in no page. Only `position` is a multiple of `block_length`.
struct Segment {
  int32_t row = 0;
  int32_t rows = 0;
  int32_t position = 0;
  int32_t block_length = 1;
  const int32_t* pages = nullptr;  ///< page ids, host memory, valid during the step
  int32_t masks = 0;               ///< rows of a verification that are in no page, the last ones

  int32_t tokens() const { return rows - masks; }
  /// End of the positions that it writes to the pages.
  int32_t end() const { return position + tokens(); }
  bool in_pages(int32_t r) const { return r < tokens(); }
  /// Of its row r.
  int32_t position_of(int32_t r) const { return position + r + (in_pages(r) ? 0 : 1 - masks); }
  /// End of the keys in the pages that row r sees.
  int32_t visible_end(int32_t r) const {
    const int32_t p = position_of(r);
    return masks == 0 ? (p / block_length + 1) * block_length : in_pages(r) ? p + 1 : p;
  }
};

enum class Confidence : uint8_t { model, sampled };

/// How a request's masked positions get their tokens.
struct SamplingParams {
  DenoiseParams denoise;
  float temperature = 0;  ///< 0: greedy
  int32_t top_k = 0;      ///< 0: all
  float top_p = 1;        ///< 1: all
  float min_p = 0;        ///< 0: all
  uint64_t seed = 0;
  int32_t completion = 0;  ///< index among the completions of one prompt
  Confidence confidence = Confidence::model;
  int32_t top_logprobs = 0;      ///< best ids of each position that are told
  float repetition_penalty = 1;  ///< of StepSequence::penalised: see denoise/penalties.h; 1: none
  float presence_penalty = 0, frequency_penalty = 0;
  std::vector<int32_t> bias_ids;   ///< ascending; the bias is added to the logits before anything else
  std::vector<float> bias_values;  ///< one per id
};

/// Min-p keeps ids whose logit is at least the best one's plus this, an f32 sum. −∞: all.
inline float min_p_range(float min_p, float temperature) {
  if (!(min_p > 0)) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(std::log(static_cast<double>(min_p)) * static_cast<double>(temperature));
}

/// What a masked position's row may choose, and what else its logits are asked.
struct RowLimits {
  const uint64_t* allowed = nullptr;  ///< bit i % 64 of word i / 64: id i may be chosen; null: every id may
  int32_t wanted = -1;                ///< an id of the vocabulary whose logit is told; −1: none
};

/// Most of StepSequence::candidates and of SamplingParams::top_logprobs.
constexpr int32_t kMaxCandidates = 32, kMaxTopLogprobs = 20;

/// One sequence's rows: `segment.rows` consecutive positions. With `denoise` the last rows are the active block, or the
/// window of an autoregressive sequence, whose rows decide the positions after them: its masked ones are sampled, and
/// those that the strategy selects are filled. Where the segment verifies, its mask rows are the window, and what is
/// filled means nothing.
struct StepSequence {
  Segment segment;               ///< `row` is set by Step::add
  const int32_t* ids = nullptr;  ///< [rows], the mask id at masked positions of a block
  bool denoise = false;
  int32_t window = 0;   ///< rows of the active block, at most kMaxBlockLength; 0: segment.block_length
  int32_t ahead = 0;    ///< the row of position p decides p + ahead: 0 in a block, 1 autoregressive
  int32_t step = 0;     ///< of the active block
  uint64_t masked = 0;  ///< bit i: offset i of the active block is masked; where autoregressive, to be decided
  const SamplingParams* sampling = nullptr;
  std::span<const int32_t> suppressed{};        ///< ids never chosen …
  std::span<const int32_t> suppressed_early{};  ///< … and at positions before `free_from`: `suppressed`, then others
  int32_t free_from = 0;
  std::span<const PenalisedToken> penalised{};  ///< ascending by id, then by `from`; after the bias
  std::span<const RowLimits> limits{};  ///< by offset of the active block, read at masked ones; empty: no limits
  int32_t candidates = 0;               ///< of each masked position, how many of its best ids are told

  int32_t window_rows() const { return window > 0 ? window : segment.block_length; }
  /// First position that the active block decides.
  int32_t active_position() const { return segment.position_of(segment.rows - window_rows()) + ahead; }
  /// First position of the active block of a sequence that has blocks.
  int32_t block_position() const { return segment.masks > 0 ? segment.position : active_position(); }
  /// Row of the step that decides the first position.
  int32_t active_row() const { return segment.row + segment.rows - window_rows(); }
};

/// What the sequences point to stays as it is until run() returns.
class Step {
 public:
  void add(StepSequence sequence) {
    sequence.segment.row = rows_;
    rows_ += sequence.segment.rows;
    sequences_.push_back(sequence);
  }
  void clear() { sequences_.clear(), rows_ = 0, logits = nullptr; }
  void reserve(size_t sequences) { sequences_.reserve(sequences); }

  std::span<const StepSequence> sequences() const { return sequences_; }
  int32_t rows() const { return rows_; }

  /// When set, receives the logits of all sampled rows in order, [sampled rows, vocabulary] f32, with bias and
  /// penalties.
  float* logits = nullptr;

 private:
  std::vector<StepSequence> sequences_;
  int32_t rows_ = 0;
};

/// A sampled row's token and its numbers. Temperature 0: argmax (lowest id on a tie) and its probability in
/// softmax(logits). Else a sample of softmax(logits / T) after top-k, then top-p, then min-p, by the inverse of the
/// cumulative sum in order of id; confidence is its probability in softmax(logits / T) before truncation (model) or
/// after it (sampled). Only ids that may be chosen, allowed and not suppressed, are sorted, counted and summed up for
/// the choice; the others keep their part of every softmax. Min-p keeps the ids that are at least min_p times as
/// probable as the best of those that may be chosen.
struct SampledToken {
  int32_t token = 0;
  float confidence = 0;
  float logprob = 0;    ///< log probability of the token in softmax(logits)
  float entropy = 0;    ///< of softmax(logits / T), T = 0 read as 1; nats
  float max = 0;        ///< largest logit
  float logsumexp = 0;  ///< of the logits
  bool finite = true;   ///< false: a NaN or infinity was among the logits; the rest means nothing
};

/// An id with its logit, bias and penalties included.
struct RankedToken {
  int32_t id = -1;  ///< −1: there is no such token
  float logit = 0;
};

/// Of Step::sequences()[i]. `filled` has a bit per offset of the active block; `at` holds what was sampled at each
/// offset that was masked.
struct SequenceResult {
  uint64_t filled = 0;
  bool finite = true;  ///< false: a NaN or infinity in the logits; nothing is filled
  std::array<SampledToken, kMaxBlockLength> at;
  // Of each masked offset, in order; valid until the next run().
  std::span<const RankedToken> candidates{};  ///< [masked, candidates] largest logit of those that may be chosen first,
                                              ///< lowest id first among equals
  std::span<const RankedToken> wanted{};      ///< [masked], empty without limits: RowLimits::wanted
  std::span<const RankedToken> top{};         ///< [masked, top_logprobs] as candidates, among all ids
};

/// Seconds by kind of work. A backend adds what it computes to all but `prefill`, which the scheduler splits off: the
/// prompts' share of attention and gemm. What is left of a step is laying it out, on a GPU also copies and waiting for
/// its start.
struct StepSeconds {
  double prefill = 0;
  double attention = 0;
  double gemm = 0;  ///< norms and GEMMs of the layers, the embedding
  double lm_head = 0;
  double denoise = 0;  ///< select and unmask

  double sum() const { return prefill + attention + gemm + lm_head + denoise; }
};

}  // namespace sdar
