// What the engine asks of a step and what it gets back. A plan names sequences; a runner turns it into ops.
#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "backend/head.h"
#include "backend/segment.h"
#include "denoise/strategy.h"

namespace sdar {

/// How the masked positions of a request get their tokens.
struct Decoding {
  DenoiseParams denoise;
  float temperature = 0;  ///< 0: greedy
  int32_t top_k = 0;      ///< 0: all
  float top_p = 1;
  uint64_t seed = 0;
  int32_t answer = 0;  ///< index among the answers of one prompt
  Confidence confidence = Confidence::model;
  std::vector<int32_t> bias_ids;  ///< ascending
  std::vector<float> bias_values;
};

/// One sequence's part: `segment.rows` consecutive positions. With `denoise` the last block_length rows are the active
/// block: its masked positions get a token and a confidence, and those the strategy chooses are filled.
struct StepSequence {
  Segment segment;               ///< `row` is set by the runner
  const int32_t* ids = nullptr;  ///< [rows], the mask id at masked positions
  bool denoise = false;
  int32_t step = 0;     ///< of the active block
  uint64_t masked = 0;  ///< bit i: offset i of the active block is masked
  const Decoding* decoding = nullptr;
  std::span<const int32_t> suppressed{};  ///< ids never chosen …
  std::span<const int32_t>
      suppressed_early{};  ///< … and at positions before `free_from`: those of `suppressed`, then others
  int32_t free_from = 0;

  /// First position of the active block.
  int32_t active_position() const { return segment.position + segment.rows - segment.block_length; }
  /// Row of the step of that position.
  int32_t active_row() const { return segment.row + segment.rows - segment.block_length; }
};

struct StepPlan {
  std::vector<StepSequence> sequences;
  int32_t rows() const {
    int32_t n = 0;
    for (const auto& s : sequences) n += s.segment.rows;
    return n;
  }
};

/// Answers StepPlan::sequences[i]. `filled` has a bit per offset of the active block, `at` their tokens.
struct StepOutcome {
  uint64_t filled = 0;
  bool finite = true;  ///< false: a NaN or infinity in the logits; nothing is filled
  std::array<SampledToken, kMaxBlockLength> at;
};

/// Seconds spent since the start, by kind of work; what a runner cannot tell apart stays 0.
struct OpSeconds {
  double attention = 0;
  double products = 0;  ///< norms and matrix products of the layers
  double head = 0;
  double choose = 0;  ///< choosing positions and filling them
};

/// Runs planned steps. One step is in flight at a time.
class StepRunner {
 public:
  using Ticket = uint64_t;
  virtual ~StepRunner() = default;

  /// Takes a plan of at most as many rows as the model was made for; what it points to stays as it is until poll().
  virtual Ticket submit(StepPlan& plan) = 0;
  /// Waits for that step. Outcomes in the order of the plan's sequences; valid until the next submit().
  virtual std::span<const StepOutcome> poll(Ticket ticket) = 0;

  virtual const OpSeconds& seconds() const = 0;
  /// Most sequences of a plan.
  virtual int32_t max_sequences() const { return std::numeric_limits<int32_t>::max(); }
};

}  // namespace sdar
