// Lossless speculation, a request's part of it: what a block-diffusion model proposes that an autoregressive sequence
// goes on with. Tokens that the target has decided are fixed positions of the draft's blocks; the rest of the current
// block, and the next one when little is left of it, is denoised in one or a few forwards, and thrown away once the
// target has judged it.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "backend/step.h"
#include "engine/draft_policy.h"
#include "engine/sequence.h"

namespace sdar {

/// Length of drafted blocks where the draft model's own is shorter: it need not be as accurate as what is kept unjudged.
constexpr int32_t kDraftBlock = 16;

/// What a draft must know of the two models; outlives it.
struct DraftContext {
  int32_t block_length = 16;
  int32_t context = 0;     ///< positions of the draft model
  int32_t vocabulary = 0;  ///< ids that both models know
  int32_t mask_id = 0;
  bool only_if_faster = false;  ///< DraftGate decides which requests are drafted for
  double cost = 1;              ///< of a forward of the draft model, in those of the target
};

class Draft {
 public:
  Draft(const DraftContext& context, const SequenceContext& target, const Request& request);

  /// Takes in what the target has decided since. Whether a forward is wanted before the target's next step that
  /// samples.
  bool follow(const Sequence& target);
  /// A proposal has been begun and needs further forwards: the target waits for it.
  bool underway() const { return step_ > 0 && steps_left_ > 0; }
  /// Gives the next proposal up, such as for want of pages.
  void skip() { steps_left_ = 0; }
  /// Drafts nothing more.
  void stop() { stopped_ = true, steps_left_ = 0; }

  /// Rows of the next forward: known positions that are not in the draft's cache yet, and what is drafted.
  int32_t rows_left() const { return static_cast<int32_t>(tokens_.size()) - committed_; }
  StepSequence plan(int32_t max_rows) const;
  /// Takes in what a planned forward computed. Returns the proposal when it is complete, else nothing.
  std::span<const int32_t> apply(const StepSequence& planned, const SequenceResult& result);

  std::vector<int32_t>& pages() { return pages_; }
  int32_t pages_needed() const;
  /// Final tokens of whole blocks: their keys and values may be shared.
  std::span<const int32_t> final_tokens() const { return std::span(tokens_).first(start_); }
  int32_t committed() const { return committed_; }
  /// The first `positions` were found in the cache, or, 0, the pages were released.
  void adopt(int32_t positions) { committed_ = positions; }

  int32_t shared_pages = 0;  ///< pages from the first on that came from the prefix index or were entered into it
  int32_t forwards = 0;      ///< that denoised

 private:
  void open(int32_t room);
  bool ends(int32_t id) const;
  int32_t offset() const { return known_ - start_; }

  const DraftContext& context_;
  SamplingParams sampling_;
  std::vector<int32_t> suppressed_, suppressed_early_;
  int32_t free_from_;
  DraftPolicy policy_;
  std::vector<int32_t> tokens_;     ///< by position: known ones, then those of the active block, masked or drafted
  std::vector<float> confidences_;  ///< by position - known_
  std::vector<int32_t> pages_;
  int32_t known_ = 0;      ///< positions that the target has decided
  int32_t start_ = 0;      ///< of the active block
  int32_t end_ = 0;        ///< of it, or of the next one, which is then drafted with it
  int32_t committed_ = 0;  ///< positions whose keys and values are in the pages, final
  int32_t room_ = 0;       ///< positions of the active block that are drafted
  uint64_t masked_ = 0;    ///< bit i: position start_ + i is to be drafted still
  int32_t step_ = 0, steps_left_ = 0;
  int32_t steps_taken_ = 0;  ///< for the proposal that the target judges; 0: there is none
  bool stopped_ = false;
};

}  // namespace sdar
