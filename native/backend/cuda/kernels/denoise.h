// A step's denoising on the device: before it, the masked positions are gathered as sampled rows; after it, confidence →
// select → unmask. What a sequence needs from step to step lies in its slot. One step is in flight at a time.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/device_types.h"
#include "backend/cuda/kernels/lm_head.h"
#include "denoise/strategy.h"

namespace sdar::cuda {

/// A sequence's active block. Everything but `step` and `masked` is the request's; those two the device advances.
struct DenoiseSlot {
  uint64_t masked = 0;  ///< bit i: offset i of the active block is masked
  uint64_t seed = 0;
  DenoiseParams params;
  int32_t row = -1;      ///< of the step, of the block's first position; −1: takes no part in this step
  int32_t position = 0;  ///< absolute, the first that the block decides
  int32_t block_length = 0;
  int32_t step = 0;
  int32_t keeps_ids = 0;  ///< 1: autoregressive, rows hold tokens whether or not they are sampled
  int32_t answer = 0;
  float temperature = 0;
  float top_p = 1;
  float min_p_range = -INFINITY;
  int32_t top_k = 0;
  int32_t sampled_confidence = 0;
  int32_t suppressed = 0, suppressed_count = 0;  ///< ids never chosen, in SampledRows::suppressed …
  int32_t early_count = 0, free_from = 0;        ///< … and those after them, at positions before free_from
  int32_t bias = 0, bias_count = 0;
  int32_t limits = -1;  ///< in GatherRowsParams::limits, of the block's first offset; −1: none
  int32_t ranked = 0;   ///< the first place in LmHeadBuffers::ranked: candidates, wanted ids, top of all masked
  int32_t candidates = 0, tells_wanted = 0, top = 0;  ///< how many of each masked position are told
  int32_t penalised = 0, penalised_count = 0;
  float repetition = 1;
};

/// Of an offset of a block: as in DeviceSampledRow.
struct DeviceRowLimits {
  int32_t mask = -1, wanted = -1;
};

/// What a step did to a slot's block; the host reads it when the step is done.
struct DenoiseOutcome {
  uint64_t filled = 0;  ///< offsets; their tokens are in `tokens`, their numbers in results[first + rank in masked]
  uint64_t masked = 0;  ///< what was masked before
  int32_t first = 0;    ///< its first result
  int32_t finite = 1;   ///< 0: a NaN or infinity in the logits; nothing is filled
};

struct DenoiseTables {
  DenoiseSlot* slots = nullptr;
  int32_t* tokens =
      nullptr;  ///< [slots, kMaxBlockLength] of the active blocks; at masked offsets anything, unless keeps_ids
  DenoiseOutcome* outcomes = nullptr;  ///< [slots]; of a slot that takes no part only `first` is written
  int32_t count = 0;                   ///< at most kMaxSlots
  int32_t mask_id = 0;
};
constexpr int32_t kMaxSlots = 1024;

/// The lm_head takes sampled rows in chunks of so many.
constexpr int32_t kLmHeadChunk = 256;

/// Sampled rows, their rows of the step and their number in each chunk, slots and positions in ascending order; ids of
/// the active blocks' rows: tokens, or the mask id. Sampled row i of a temperature has row i % kLmHeadChunk of the
/// logits. Rows past the last sampled one are 0.
struct GatherRowsParams {
  DenoiseTables tables;
  DeviceSampledRow* sampled = nullptr;  ///< [max_count]
  int32_t* rows = nullptr;              ///< [max_count]
  int32_t* counts = nullptr;            ///< [max_count / kLmHeadChunk, rounded up]
  int32_t max_count = 0;                ///< at least the number of masked positions
  int32_t* ids = nullptr;               ///< [rows of the step]
  int32_t all_logits = 0;               ///< greedy rows have a row of the logits, too
  const DeviceRowLimits* limits = nullptr;
};
void gather_rows(Stream stream, const GatherRowsParams& args);

/// Fills what denoise/choose.h selects from the results, and advances the slots.
struct SelectUnmaskParams {
  DenoiseTables tables;
  const DeviceSampledToken* results = nullptr;
};
void select_unmask(Stream stream, const SelectUnmaskParams& args);

}  // namespace sdar::cuda
