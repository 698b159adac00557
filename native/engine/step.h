// What the engine asks of a step and what it gets back. A plan names sequences; the runner turns it into ops.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"
#include "ops/head.h"
#include "ops/segment.h"

namespace sdar {

constexpr int32_t kMaxBlockLength = 64;

/// One sequence's part: `segment.rows` consecutive positions. With `denoise` the last block_length rows are the active
/// block: its masked positions get a token and a confidence, and those the strategy chooses are filled.
struct StepSequence {
  Segment segment;               ///< `row` is set by the runner
  const int32_t* ids = nullptr;  ///< [rows], the mask id at masked positions
  bool denoise = false;
  int32_t step = 0;     ///< of the active block
  uint64_t masked = 0;  ///< bit i: offset i of the active block is masked
  const Request* request = nullptr;
  std::span<const int32_t> banned{};        ///< ids never chosen …
  std::span<const int32_t> banned_early{};  ///< … and at positions before `free_from`
  int32_t free_from = 0;

  /// First position of the active block.
  int32_t active_position() const { return segment.position + segment.rows - segment.block_length; }
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
  std::array<HeadResult, kMaxBlockLength> at;
};

}  // namespace sdar
