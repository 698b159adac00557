// lm_head reduced to one token and its numbers per request: three launches, head (logits → partial results per 64 ids),
// head_merge (greedy requests are done) and sample (requests of a temperature). Their input is rms_norm's output for
// the requests' rows.
#pragma once
#include <cstdint>

#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/stream.h"

namespace sdar::cuda {

/// ops/head.h's SampledRow on the device; written by the host or by gather_rows (choose.h).
struct DeviceSampledRow {
  double uniform = 0;
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
  int32_t sampled_confidence = 0;                ///< Confidence::sampled
  int32_t suppressed = 0, suppressed_count = 0;  ///< in HeadLists::suppressed
  int32_t bias = 0, bias_count = 0;              ///< in HeadLists::bias_ids, ascending, and bias_values
  int32_t logits = -1;                           ///< row of HeadBuffers::logits; −1: none. Needed at a temperature
};
static_assert(sizeof(DeviceSampledRow) == 48);

/// ops/head.h's SampledToken; finite as 0 or 1.
struct DeviceSampledToken {
  int32_t token = 0;
  float confidence = 0, logprob = 0, entropy = 0, max = 0, logsumexp = 0;
  int32_t finite = 0;
};

struct HeadLists {
  const DeviceSampledRow* requests = nullptr;
  const int32_t* count = nullptr;  ///< on the device; at most max_requests
  int32_t max_requests = 0;
  const int32_t* suppressed = nullptr;
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
};

constexpr int32_t kHeadTile = 64;  ///< ids that a partial result is of
SDAR_HOST_DEVICE constexpr int32_t head_tiles(int32_t vocabulary) { return ceil_div(vocabulary, kHeadTile); }

struct HeadBuffers {
  /// [max_requests, head_tiles] · 4: largest logit, largest allowed one, Σ exp(l − largest), Σ exp(l − largest) · (l −
  /// largest)
  float* numbers = nullptr;
  int32_t* best_ids =
      nullptr;  ///< [max_requests, head_tiles]: the lowest id of the largest allowed logit; kNoId; kNotFinite
  float* logits = nullptr;                ///< [·, vocabulary], bias added
  DeviceSampledToken* results = nullptr;  ///< [max_requests]
};
constexpr int32_t kNoId = -1, kNotFinite = -2;

struct LmHeadParams {
  DeviceMatrix weight;                    ///< linear or table, bf16 or int8 (int4 too), [vocabulary, hidden]
  const uint16_t* activations = nullptr;  ///< tiles [max_requests, hidden]
  HeadLists lists;
  HeadBuffers buffers;
};

/// Logits of every request; sums over ids in an order that the vocabulary alone decides.
void head(Stream stream, const LmHeadParams& args);
/// results from the partial ones; at a temperature only max, logsumexp and finite, and the best allowed id as token.
void head_merge(Stream stream, int32_t vocabulary, const HeadLists& lists, const HeadBuffers& buffers);
/// Requests of a temperature: top-k, then top-p, then the inverse of the cumulative sum in order of id, all in integers
/// of 2^-40 of the best allowed id's weight, so that no order of sums can show.
void sample(Stream stream, int32_t vocabulary, const HeadLists& lists, const HeadBuffers& buffers);

}  // namespace sdar::cuda
