// Warpgroup MMA as CUDA, sm_90a alone: a warpgroup is four warps of which the first has a multiple of four as its number.
// Included by device.cuh alone, after instructions.cuh.
#pragma once
#include "backend/cuda/kernels/instructions.cuh"

namespace sdar::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SDAR_WARPGROUP_MMA 1
constexpr bool kWarpgroups = true;
#else
constexpr bool kWarpgroups = false;
#endif
struct TokenOperand {
  uint64_t descriptor;
};
/// See token_descriptor.
template <class T>
SDAR_DEVICE TokenOperand token_operand(Shared<T> first, int stride) {
  return {token_descriptor(detail::address(first), stride)};
}
/// Makes this thread's writes to shared memory, also those of cp_async that it has waited for, visible to
/// warpgroup_mma. Others see them after a barrier.
SDAR_DEVICE void fence_for_warpgroup_mma() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
/// After registers of an MMA were written or waited for, before the next MMA.
SDAR_DEVICE void warpgroup_fence() {
#ifdef SDAR_WARPGROUP_MMA
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
/// Closes this thread's group of MMAs.
SDAR_DEVICE void warpgroup_commit() {
#ifdef SDAR_WARPGROUP_MMA
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
/// Until at most `pending` of the latest groups are in flight.
template <int pending>
SDAR_DEVICE void warpgroup_wait() {
#ifdef SDAR_WARPGROUP_MMA
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
#endif
}
/// Until none is in flight; `d` may be read then.
template <int tiles>
SDAR_DEVICE void warpgroup_wait_all(float (&d)[tiles][4]) {
  warpgroup_wait<0>();
  SDAR_UNROLL
  for (int t = 0; t < tiles; t++) {
    SDAR_UNROLL
    for (int i = 0; i < 4; i++) asm volatile("" : "+f"(d[t][i])::"memory");  // no read moves up
  }
}
/// d[64 × 8·tiles] (+)= a[64×16]·b[16 × 8·tiles]; warp w holds rows 16w … 16w + 15, a and each d[t] as of
/// mma_m16n8k16_bf16. Runs on by itself: until it has been waited for, neither registers nor `b` may be touched.
#ifdef SDAR_WARPGROUP_MMA
#define SDAR_ACC(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define SDAR_FOUR_ACC(i) SDAR_ACC(i), SDAR_ACC((i) + 1), SDAR_ACC((i) + 2), SDAR_ACC((i) + 3)
#define SDAR_EIGHT_ACC(i) SDAR_FOUR_ACC(i), SDAR_FOUR_ACC((i) + 4)
SDAR_DEVICE void warpgroup_mma(float (&d)[16][4], const uint32_t (&a)[4], TokenOperand b, bool accumulate) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %69, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
      "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
      "%62, %63 "
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
      : SDAR_EIGHT_ACC(0), SDAR_EIGHT_ACC(8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor), "r"(static_cast<int>(accumulate)));
}
SDAR_DEVICE void warpgroup_mma(float (&d)[32][4], const uint32_t (&a)[4], TokenOperand b, bool accumulate) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %133, 0; "
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
      "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
      "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "
      "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, "
      "%101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, "
      "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127 "
      "}, {%128, %129, %130, %131}, %132, p, 1, 1, 0; }"
      : SDAR_EIGHT_ACC(0), SDAR_EIGHT_ACC(8), SDAR_EIGHT_ACC(16), SDAR_EIGHT_ACC(24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor), "r"(static_cast<int>(accumulate)));
}
#undef SDAR_ACC
#undef SDAR_FOUR_ACC
#undef SDAR_EIGHT_ACC
#else
template <int tiles>
SDAR_DEVICE void warpgroup_mma(float (&)[tiles][4], const uint32_t (&)[4], TokenOperand, bool) {}
#endif

}  // namespace sdar::cuda
