// lm_head reduced to one token and its numbers per sampled row: launches of lm_head (logits → partial results per 64
// ids), lm_head_merge (greedy rows are done) and sample (rows of a temperature). Their input is rms_norm's output for
// the sampled rows.
#pragma once
#include <cmath>
#include <cstdint>

#include "backend/cuda/kernels/device_types.h"
#include "backend/cuda/kernels/gemm.h"
#include "backend/step.h"

namespace sdar::cuda {

/// SampledRow on the device; written by the host or by gather_rows (denoise.h).
struct DeviceSampledRow {
  double uniform = 0;
  float temperature = 0;
  float top_p = 1;
  float min_p_range = -INFINITY;  ///< min_p_range() of backend/step.h
  int32_t top_k = 0;
  int32_t sampled_confidence = 0;                ///< Confidence::sampled
  int32_t suppressed = 0, suppressed_count = 0;  ///< in SampledRows::suppressed
  int32_t bias = 0, bias_count = 0;              ///< in SampledRows::bias_ids, ascending, and bias_values
  int32_t logits = -1;     ///< row of LmHeadBuffers::logits; −1: none. Needed at a temperature and by rank_ids
  int32_t mask = -1;       ///< in SampledRows::masks, of the ids that may be chosen if not suppressed; −1: all
  int32_t wanted = -1;     ///< RowLimits::wanted
  int32_t wanted_at = -1;  ///< its place in LmHeadBuffers::ranked; −1: not told
  int32_t candidates = 0, candidates_at = 0;   ///< their number, the place of the first
  int32_t top = 0, top_at = 0;                 ///< the same of the best of all ids
  int32_t penalised = 0, penalised_count = 0;  ///< in SampledRows::penalised, ascending by id, then by `from`
  int32_t offset = 0;                          ///< of the active block, for PenalisedToken::from
  float repetition = 1;
};
static_assert(sizeof(DeviceSampledRow) == 96);

/// SampledToken; finite as 0 or 1.
struct DeviceSampledToken {
  int32_t token = 0;
  float confidence = 0, logprob = 0, entropy = 0, max = 0, logsumexp = 0;
  int32_t finite = 0;
};

struct SampledRows {
  const DeviceSampledRow* data = nullptr;
  const int32_t* count = nullptr;  ///< on the device; at most max_count
  int32_t max_count = 0;
  const int32_t* suppressed = nullptr;
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  const uint64_t* masks = nullptr;  ///< [·, mask_words]: as RowLimits::allowed
  const PenalisedToken* penalised = nullptr;
};
/// Words of 64 ids.
SDAR_HOST_DEVICE constexpr int32_t mask_words(int32_t vocabulary) { return ceil_div(vocabulary, 64); }

constexpr int32_t kLmHeadTile = 64;  ///< ids that a partial result is of
SDAR_HOST_DEVICE constexpr int32_t lm_head_tiles(int32_t vocabulary) { return ceil_div(vocabulary, kLmHeadTile); }

struct LmHeadBuffers {
  /// [max_count, lm_head_tiles] · 4: largest logit, largest allowed one, Σ exp(l − largest), Σ exp(l − largest) ·
  /// (l − largest)
  float* numbers = nullptr;
  /// [max_count, lm_head_tiles]: the lowest id of the largest allowed logit; kNoId; kNotFinite
  int32_t* best_ids = nullptr;
  float* logits = nullptr;                ///< [·, vocabulary], with bias and penalties
  DeviceSampledToken* results = nullptr;  ///< [max_count]
  RankedToken* ranked = nullptr;          ///< what rank_ids tells
};
constexpr int32_t kNoId = -1, kNotFinite = -2;

struct LmHeadParams {
  DeviceMatrix weight;                    ///< linear or table, bf16 or int8 (int4 too), [vocabulary, hidden]
  const uint16_t* activations = nullptr;  ///< tiles [max_count, hidden]
  SampledRows rows;
  LmHeadBuffers buffers;
};
/// Logits of every row; sums over ids in an order that the vocabulary alone decides.
void lm_head(Stream stream, const LmHeadParams& args);

/// Of lm_head_merge, rank_ids and sample.
struct LmHeadMergeParams {
  int32_t vocabulary = 0;
  SampledRows rows;
  LmHeadBuffers buffers;
};
/// results from the partial ones; at a temperature only max, logsumexp and finite, and the best allowed id as token.
void lm_head_merge(Stream stream, const LmHeadMergeParams& args);
/// Candidates, wanted and top of the rows that ask for them; after lm_head_merge, before sample. Where logits are not
/// finite, nothing but a wanted one.
void rank_ids(Stream stream, const LmHeadMergeParams& args);
/// Rows of a temperature: top-k, then top-p, then min-p, then the inverse of the cumulative sum in order of id, all in integers of
/// 2^-40 of the best allowed id's weight, so that no order of sums can show.
void sample(Stream stream, const LmHeadMergeParams& args);

}  // namespace sdar::cuda
