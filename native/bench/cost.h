// What a launch of each kernel moves and multiplies, as arithmetic of its shape: what the kernels' comments tell, for
// readers and for models of a step's time. The tests hold it against the host executor's counters, within 5 % either
// way.
#pragma once
#include <cstdint>
#include <span>

#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/denoise.h"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/lm_head.h"
#include "backend/cuda/kernels/moe.h"
#include "backend/cuda/kernels/rowwise.h"

namespace sdar::cuda {

/// Of a whole launch, in bytes of global memory.
struct Cost {
  int64_t loaded = 0;       ///< as its threads ask: every thread that reads a word counts
  int64_t loaded_once = 0;  ///< each word once: what comes from memory where L2 holds all that is read again
  int64_t stored = 0;
  int64_t mma = 0;  ///< m16n8k16 of a warp: 4096 floating-point operations each
};

// Only shapes are looked at in the arguments (and whether `rows` of rms_norm and `q_bias` of rope are null); pointers may be null.

/// distinct: different ids among args.ids.
Cost embed_cost(const EmbedParams& args, int32_t distinct);
/// distinct: different rows of x among args.rows.
Cost rms_norm_cost(const NormParams& args, int32_t distinct);
Cost gemm_cost(const GemmParams& args);
Cost gemm_large_cost(const GemmParams& args);
Cost gemm_warpgroup_cost(const GemmParams& args);
/// counts: rows of each expert.
Cost gemm_grouped_cost(const GroupedGemmParams& args, std::span<const int32_t> counts);
Cost gemm_grouped_wide_cost(const GroupedGemmParams& args, std::span<const int32_t> counts);
Cost add_bias_cost(const AddBiasParams& args);
/// padding: rows of no segment; positions: different ones among the others.
Cost rope_cost(const RopeParams& args, int32_t padding, int32_t positions);

struct AttentionShape {
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
};
/// Items of blocks of `warps` warps: 1 (narrow) or 4 (wide). No page belongs to two segments.
Cost attention_cost(const AttentionShape& shape, std::span<const DeviceSegment> segments,
                    std::span<const AttentionItem> items, int32_t warps);
Cost attention_merge_cost(const AttentionShape& shape, std::span<const DeviceSegment> segments,
                          std::span<const MergeItem> items);

// The lm_head takes `count` sampled rows of a launch for max_count.
/// Without biases and suppressed tokens; `logits` of them have their logits stored.
Cost lm_head_cost(const DeviceMatrix& weight, int32_t max_count, int32_t count, int32_t logits);
Cost lm_head_merge_cost(int32_t vocabulary, int32_t max_count, int32_t count);
/// Of rows of a temperature without suppressed tokens, top-k and top-p; what those need more depends on the logits.
Cost sample_cost(int32_t vocabulary, int32_t max_count, int32_t count);

Cost route_cost(const RouteParams& args);
Cost group_cost(const GroupParams& args);
Cost combine_cost(const CombineParams& args);

/// slots: with an active block; masked, positions: of all those blocks together; limited: masked ones with limits.
Cost gather_rows_cost(const GatherRowsParams& args, int32_t slots, int32_t masked, int32_t positions,
                      int32_t limited = 0);
/// filled: positions that get a token.
Cost select_unmask_cost(const DenoiseTables& tables, int32_t slots, int32_t masked, int32_t filled);

}  // namespace sdar::cuda
