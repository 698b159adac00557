// What device.cuh names, as CUDA, but for launches (launch.cuh) and warpgroup MMA (warpgroup.cuh). Included by it alone.
// The scalar emulation is test/simt/emulation.h: the same names, types and meaning.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#define SDAR_DEVICE __device__ __forceinline__
/// A kernel NAME_kernel for at most `max_threads` threads per block and at least `min_blocks` blocks per SM.
#define SDAR_KERNEL(max_threads, min_blocks, name, ...) \
  __global__ void __launch_bounds__(max_threads, min_blocks) name##_kernel(__VA_ARGS__)
#define SDAR_UNROLL _Pragma("unroll")
#define SDAR_NO_UNROLL _Pragma("unroll 1")

namespace sdar::cuda {

// ---- programmatic dependent launch (PTX ISA, griddepcontrol)
/// The next launch may begin now if it is a dependent one: called at the start, so that its blocks come as soon as all
/// of this launch's have started and there is room.
SDAR_DEVICE void pdl_trigger() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/// Until the launches before this one are done and what they wrote can be read.
SDAR_DEVICE void pdl_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- who am I
SDAR_DEVICE int thread_index() { return threadIdx.x; }
SDAR_DEVICE int block_threads() { return blockDim.x; }
SDAR_DEVICE int block_index_x() { return blockIdx.x; }
SDAR_DEVICE int block_index_y() { return blockIdx.y; }
SDAR_DEVICE int block_index_z() { return blockIdx.z; }
SDAR_DEVICE int grid_size_x() { return gridDim.x; }
SDAR_DEVICE int grid_size_y() { return gridDim.y; }
SDAR_DEVICE int grid_size_z() { return gridDim.z; }

// ---- marks for tests: plain conditions here
SDAR_DEVICE bool in_range(int64_t index, int64_t bound) { return index < bound; }
SDAR_DEVICE bool in_range(int index, int bound) { return index < bound; }
SDAR_DEVICE bool guard(bool condition) { return condition; }

// ---- bits
namespace detail {
template <int bytes>
struct Carrier;
template <>
struct Carrier<1> {
  using type = uint8_t;
};
template <>
struct Carrier<2> {
  using type = uint16_t;
};
template <>
struct Carrier<4> {
  using type = uint32_t;
};
template <>
struct Carrier<8> {
  using type = uint2;
};
template <>
struct Carrier<16> {
  using type = uint4;
};
template <class T>
using carrier = typename Carrier<sizeof(T)>::type;
template <class To, class From>
SDAR_DEVICE To bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}
}  // namespace detail

SDAR_DEVICE float bits_to_f32(uint32_t bits) { return __uint_as_float(bits); }
SDAR_DEVICE uint32_t f32_to_bits(float x) { return __float_as_uint(x); }
SDAR_DEVICE int leading_zeros(uint64_t bits) { return __clzll(static_cast<long long>(bits)); }  ///< 64 of 0

// ---- shared memory
/// A place in the block's dynamic shared memory.
template <class T>
struct Shared {
  T* p;
  SDAR_DEVICE Shared operator+(int n) const { return {p + n}; }
  template <class U>
  SDAR_DEVICE Shared<U> as() const {
    return {reinterpret_cast<U*>(p)};
  }
};
namespace detail {
extern __shared__ __align__(1024) unsigned char dynamic_shared[];
template <class T>
SDAR_DEVICE uint32_t address(Shared<T> s) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(s.p));
}
}  // namespace detail
template <class T>
SDAR_DEVICE Shared<T> shared_memory(int byte_offset) {
  return {reinterpret_cast<T*>(detail::dynamic_shared + byte_offset)};
}
template <class T, class U>
SDAR_DEVICE T load_shared(Shared<U> s) {
  return *reinterpret_cast<const T*>(s.p);
}
template <class T, class U>
SDAR_DEVICE void store_shared(Shared<U> s, std::type_identity_t<T> value) {
  *reinterpret_cast<T*>(s.p) = value;
}

// ---- global memory: 1, 2, 4, 8 or 16 bytes, aligned to their size
template <class T, class U>
SDAR_DEVICE T load_global(const U* p) {
  return *reinterpret_cast<const T*>(p);
}
/// Of memory that no one writes during the launch, kept in L1: read by several warps.
template <class T, class U>
SDAR_DEVICE T load_global_cached(const U* p) {
  return detail::bits<T>(__ldg(reinterpret_cast<const detail::carrier<T>*>(p)));
}
/// Of memory that no one writes during the launch, not kept in L1: read once by this SM (weights). 16 bytes.
template <class T, class U>
SDAR_DEVICE T load_global_stream(const U* p) {
  static_assert(sizeof(T) == 16);
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(p)));
  return detail::bits<T>(v);
}
template <class T, class U>
SDAR_DEVICE void store_global(U* p, std::type_identity_t<T> value) {
  *reinterpret_cast<T*>(p) = value;
}

// ---- asynchronous copies, global to shared
/// 16 bytes, both sides aligned to 16. `global` is not read when not valid: zeros are written.
template <class T, class U>
SDAR_DEVICE void cp_async_16(Shared<T> s, const U* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(detail::address(s)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}
template <class T, class U>
SDAR_DEVICE void cp_async_16(Shared<T> s, const U* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(detail::address(s)),
               "l"(__cvta_generic_to_global(global))
               : "memory");
}
/// Closes this thread's group of copies.
SDAR_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until at most `pending` of this thread's latest groups are in flight. Others see the data after a barrier.
template <int pending>
SDAR_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// ---- barriers, fences, atomics
SDAR_DEVICE void sync_block() { __syncthreads(); }
SDAR_DEVICE void sync_warp(uint32_t mask) { __syncwarp(mask); }
/// Orders this thread's accesses to global memory before and after it, for all blocks.
SDAR_DEVICE void thread_fence() { __threadfence(); }
/// Returns the old value. Orders nothing.
SDAR_DEVICE int atomic_add(int* p, int n) { return atomicAdd(p, n); }
SDAR_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t n) { return atomicAdd(p, n); }
SDAR_DEVICE uint32_t atomic_add(Shared<uint32_t> s, uint32_t n) { return atomicAdd(s.p, n); }

// ---- within a warp
template <class T>
SDAR_DEVICE T shuffle(uint32_t mask, T v, int source_lane) {
  static_assert(sizeof(T) == 4);
  return detail::bits<T>(__shfl_sync(mask, detail::bits<uint32_t>(v), source_lane));
}
template <class T>
SDAR_DEVICE T shuffle_xor(uint32_t mask, T v, int lane_mask) {
  static_assert(sizeof(T) == 4);
  return detail::bits<T>(__shfl_xor_sync(mask, detail::bits<uint32_t>(v), lane_mask));
}
/// Of the lane `delta` above; the upper lanes keep their own.
template <class T>
SDAR_DEVICE T shuffle_down(uint32_t mask, T v, int delta) {
  static_assert(sizeof(T) == 4);
  return detail::bits<T>(__shfl_down_sync(mask, detail::bits<uint32_t>(v), delta));
}
template <class T>
SDAR_DEVICE T shuffle_up(uint32_t mask, T v, int delta) {
  static_assert(sizeof(T) == 4);
  return detail::bits<T>(__shfl_up_sync(mask, detail::bits<uint32_t>(v), delta));
}
SDAR_DEVICE uint32_t ballot(uint32_t mask, bool predicate) { return __ballot_sync(mask, predicate); }
SDAR_DEVICE bool any(uint32_t mask, bool predicate) { return __any_sync(mask, predicate); }
SDAR_DEVICE bool all(uint32_t mask, bool predicate) { return __all_sync(mask, predicate); }

// ---- matrix fragments (PTX ISA, "Matrix fragments for mma"; group g = lane / 4, t = lane % 4)
/// Four 8×8 matrices of 16-bit values: lane i names row i % 8 (16 bytes) of matrix i / 8; r[j] holds of matrix j the
/// values [g][2t, 2t+1]. `trans`: of its transpose.
template <class T>
SDAR_DEVICE void ldmatrix_x4(uint32_t (&r)[4], Shared<T> row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(detail::address(row))
               : "memory");
}
template <class T>
SDAR_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], Shared<T> row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(detail::address(row))
               : "memory");
}
/// Two matrices; the rows are those that lanes 0…15 name.
template <class T>
SDAR_DEVICE void ldmatrix_x2(uint32_t (&r)[2], Shared<T> row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(detail::address(row))
               : "memory");
}
template <class T>
SDAR_DEVICE void ldmatrix_x2_trans(uint32_t (&r)[2], Shared<T> row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(detail::address(row))
               : "memory");
}
/// d[16×8] += a[16×16]·b[16×8]. a: {[g][2t..], [g+8][2t..], [g][2t+8..], [g+8][2t+8..]}; b: {[2t..][g], [2t+8..][g]};
/// d: {[g][2t], [g][2t+1], [g+8][2t], [g+8][2t+1]}.
SDAR_DEVICE void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// d[16×8] += a[16×32]·b[32×8], signed bytes. a: {[g][4t..], [g+8][4t..], [g][4t+16..], [g+8][4t+16..]};
/// b: {[4t..][g], [4t+16..][g]}; d as above.
SDAR_DEVICE void mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- arithmetic
/// To nearest even.
SDAR_DEVICE uint16_t float_to_bf16(float x) {
  uint16_t h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}
/// To nearest even; `low` in bits 0…15.
SDAR_DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
/// a · b + c in each half, rounded once.
SDAR_DEVICE uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
/// (a & b) | c in one instruction.
SDAR_DEVICE uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
/// Byte i of the result is byte (selector >> 4i) & 7 of the eight bytes a (0…3), b (4…7).
SDAR_DEVICE uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) { return __byte_perm(a, b, selector); }
/// Four products of signed bytes added to c.
SDAR_DEVICE int32_t dot_s8(uint32_t a, uint32_t b, int32_t c) {
  return __dp4a(static_cast<int>(a), static_cast<int>(b), c);
}
SDAR_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }  ///< a · b + c, rounded once
SDAR_DEVICE float maximum(float a, float b) { return fmaxf(a, b); }                ///< a NaN loses
SDAR_DEVICE float absolute(float x) { return fabsf(x); }
/// To nearest even, kept in int32.
SDAR_DEVICE int32_t round_to_int(float x) { return __float2int_rn(x); }
/// Relative error below 2^-21 (1 + |x|).
SDAR_DEVICE float exp_fast(float x) { return __expf(x); }
// The rest: within two units of the last place.
SDAR_DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
SDAR_DEVICE float log_fast(float x) { return logf(x); }
SDAR_DEVICE float reciprocal(float x) { return __frcp_rn(x); }
SDAR_DEVICE float rsqrt_fast(float x) { return rsqrtf(x); }
SDAR_DEVICE float divide(float a, float b) { return __fdiv_rn(a, b); }

}  // namespace sdar::cuda
