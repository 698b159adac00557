// The table of kernels: what may be launched by number, so that a launch can be recorded, and crosses the C interface.
#pragma once
#include <cstddef>
#include <cstdint>

#include "backend/cuda/kernels/attention.h"
#include "backend/cuda/kernels/denoise.h"
#include "backend/cuda/kernels/gemm.h"
#include "backend/cuda/kernels/lm_head.h"
#include "backend/cuda/kernels/moe.h"
#include "backend/cuda/kernels/rowwise.h"

namespace sdar::cuda {

/// X(name) for each function `void name(Stream, const Params&)`. Numbers are those of the C interface: a new kernel comes
/// last.
#define SDAR_CUDA_KERNELS(X) \
  X(embed)                   \
  X(rms_norm)                \
  X(gemm)                    \
  X(gemm_large)              \
  X(gemm_warpgroup)          \
  X(rope)                    \
  X(attention_narrow)        \
  X(attention_wide)          \
  X(attention_merge)         \
  X(lm_head)                 \
  X(lm_head_merge)           \
  X(sample)                  \
  X(gather_rows)             \
  X(select_unmask)           \
  X(route)                   \
  X(group)                   \
  X(gemm_grouped)            \
  X(combine)                 \
  X(gemm_grouped_wide)       \
  X(rank_ids)                \
  X(add_bias)

#define SDAR_NUMBER(name) name,
enum class Kernel : int32_t { SDAR_CUDA_KERNELS(SDAR_NUMBER) };
#undef SDAR_NUMBER

namespace detail {
template <class Function>
struct Launcher;
template <class P>
struct Launcher<void(Stream, const P&)> {
  using Params = P;
};
template <Kernel kernel>
struct Entry;
#define SDAR_ENTRY(name) \
  template <>            \
  struct Entry<Kernel::name> : Launcher<decltype(cuda::name)> {};
SDAR_CUDA_KERNELS(SDAR_ENTRY)
#undef SDAR_ENTRY
}  // namespace detail

template <Kernel kernel>
using ParamsOf = typename detail::Entry<kernel>::Params;

/// Issues kernel number `kernel`. Throws Error(INTERNAL) for a number that is none, or parameters of another size.
void launch_kernel(Stream stream, int32_t kernel, const void* params, size_t bytes);

}  // namespace sdar::cuda
