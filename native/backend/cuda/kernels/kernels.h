// All kernels by number, so that a launch can be kept, and asked for across the C interface.
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>

#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/choose.h"
#include "backend/cuda/kernels/embed.h"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/head.h"
#include "backend/cuda/kernels/moe.h"
#include "backend/cuda/kernels/norm.h"
#include "backend/cuda/kernels/rope.h"

namespace sdar::cuda {

enum class Kernel : int32_t {
  embed,
  rms_norm,
  gemm,
  gemm_large,
  gemm_warpgroup,
  rope,
  attention_narrow,
  attention_wide,
  attention_merge,
  head,
  head_merge,
  sample,
  gather_rows,
  select_unmask,
  route,
  group,
  gemm_grouped,
  combine,
};

/// Of head_merge and sample.
struct LmHeadMergeParams {
  int32_t vocabulary = 0;
  HeadLists lists;
  HeadBuffers buffers;
};
struct SelectUnmaskParams {
  DenoiseTables tables;
  const DeviceSampledToken* results = nullptr;
};

/// In the order of Kernel.
using AllArguments =
    std::tuple<EmbedParams, NormParams, GemmParams, GemmParams, GemmParams, RopeParams, AttentionParams,
               AttentionParams, AttentionMergeParams, LmHeadParams, LmHeadMergeParams, LmHeadMergeParams,
               GatherRowsParams, SelectUnmaskParams, RouteParams, GroupParams, GroupedGemmParams, CombineParams>;
template <Kernel kernel>
using ArgumentsOf = std::tuple_element_t<static_cast<size_t>(kernel), AllArguments>;

/// Asks for kernel number `kernel`. Throws Error(INTERNAL) for a number that is none, or arguments of another size.
void launch_kernel(Stream stream, int32_t kernel, const void* arguments, size_t bytes);

}  // namespace sdar::cuda
