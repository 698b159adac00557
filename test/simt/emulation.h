// The scalar emulation of the device layer (backend/cuda/kernels/device.cuh): the names of instructions.cuh, launch.cuh
// and warpgroup.cuh, each of which checks before it does the same. Call sites come in by default arguments.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "backend/cuda/kernels/device_types.h"
#include "simt/executor.h"
#include "simt/global.h"
#include "simt/shared_memory.h"
#include "simt/warp_functions.h"
#include "simt/warpgroup.h"
#include "util/half.h"

#define SDAR_DEVICE inline
#define SDAR_KERNEL(max_threads, min_blocks, name, ...) \
  void name##_kernel(::sdar::cuda::Bounds<max_threads, min_blocks>, __VA_ARGS__)
#define SDAR_LAUNCH(shape, ...) ::sdar::cuda::launch(#__VA_ARGS__, shape, __VA_ARGS__)
#define SDAR_UNROLL
#define SDAR_NO_UNROLL
/// The last parameter of each function that is watched.
#define SDAR_AT std::source_location at = std::source_location::current()

namespace sdar::cuda {

/// Carries a kernel's launch bounds to its launch: a kernel without them cannot be launched.
template <int max_threads, int min_blocks>
struct Bounds {};

template <int max_threads, int min_blocks, class... P, class... A>
void launch(std::string_view text, const LaunchShape& shape, void (*kernel)(Bounds<max_threads, min_blocks>, P...),
            A... arguments) {
  static_assert(min_blocks >= 1 && max_threads % kWarp == 0 && max_threads * min_blocks <= 2048);
  struct Call {
    void (*kernel)(Bounds<max_threads, min_blocks>, P...);
    std::tuple<P...> arguments;
  } call{kernel, std::tuple<P...>(static_cast<P>(arguments)...)};
  cuda_host::Launch l;
  int depth = 0;  // of template arguments in the kernel's name
  for (const char c : text) {
    depth += (c == '<') - (c == '>');
    if (c == ',' && depth == 0) break;
    l.kernel += c;
  }
  l.shape = shape;
  l.max_threads = max_threads;
  l.kernel_and_arguments = &call;
  l.run_thread = [](void* p) {
    const Call& c = *static_cast<const Call*>(p);
    std::apply([&](const P&... a) { c.kernel({}, a...); }, c.arguments);
  };
  cuda_host::execute(l);
}

// ---- programmatic dependent launch
inline void pdl_trigger() {}
inline void pdl_wait(SDAR_AT) {
  if (!cuda_host::site_at(at, cuda_host::SiteKind::fence).dropped()) cuda_host::me->pdl_waited = true;
}

// ---- who am I
inline int thread_index() { return cuda_host::me->index; }
inline int block_threads() { return cuda_host::block.threads; }
inline int block_index_x() { return cuda_host::block.x; }
inline int block_index_y() { return cuda_host::block.y; }
inline int block_index_z() { return cuda_host::block.z; }
inline int grid_size_x() { return cuda_host::block.launch->shape.grid_x; }
inline int grid_size_y() { return cuda_host::block.launch->shape.grid_y; }
inline int grid_size_z() { return cuda_host::block.launch->shape.grid_z; }

// ---- marks for tests: what a mutation run changes
inline bool in_range(int64_t index, int64_t bound, SDAR_AT) {
  const cuda_host::Change change = cuda_host::site_at(at, cuda_host::SiteKind::bound).change;
  if (change != cuda_host::Change::none) [[unlikely]] {
    if (change == cuda_host::Change::drop) return true;
    bound += change == cuda_host::Change::more ? 1 : -1;
  }
  return index < bound;
}
inline bool guard(bool condition, SDAR_AT) {
  return cuda_host::site_at(at, cuda_host::SiteKind::guard).dropped() || condition;
}

inline float bits_to_f32(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t f32_to_bits(float x) { return std::bit_cast<uint32_t>(x); }
inline int leading_zeros(uint64_t bits) { return std::countl_zero(bits); }

// ---- shared memory
template <class T>
struct Shared {
  int64_t offset;
  Shared operator+(int n) const { return {offset + int64_t{n} * static_cast<int64_t>(sizeof(T))}; }
  template <class U>
  Shared<U> as() const {
    return {offset};
  }
};
template <class T>
Shared<T> shared_memory(int byte_offset) {
  return {byte_offset};
}
template <class T>
constexpr bool kAccessible = std::is_trivially_copyable_v<T> &&
                             (sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
template <class T, class U>
T load_shared(Shared<U> s, SDAR_AT) {
  static_assert(kAccessible<T>);
  T value;
  cuda_host::read_shared(cuda_host::site_at(at), s.offset, sizeof(T), &value);
  return value;
}
template <class T, class U>
void store_shared(Shared<U> s, std::type_identity_t<T> value, SDAR_AT) {
  static_assert(kAccessible<T>);
  cuda_host::write_shared(cuda_host::site_at(at), s.offset, sizeof(T), &value);
}

// ---- global memory
template <class T, class U>
T load_global(const U* p, SDAR_AT) {
  static_assert(kAccessible<T>);
  T value;
  cuda_host::read_global(cuda_host::site_at(at), p, sizeof(T), &value, cuda_host::Coherence::full);
  return value;
}
template <class T, class U>
T load_global_cached(const U* p, SDAR_AT) {
  static_assert(kAccessible<T>);
  T value;
  cuda_host::read_global(cuda_host::site_at(at), p, sizeof(T), &value, cuda_host::Coherence::none);
  return value;
}
template <class T, class U>
T load_global_stream(const U* p, SDAR_AT) {
  static_assert(sizeof(T) == 16);
  return load_global_cached<T>(p, at);
}
template <class T, class U>
void store_global(U* p, std::type_identity_t<T> value, SDAR_AT) {
  static_assert(kAccessible<T> && !std::is_const_v<U>);
  cuda_host::write_global(cuda_host::site_at(at), p, sizeof(T), &value);
}

// ---- asynchronous copies
template <class T, class U>
void cp_async_16(Shared<T> s, const U* global, bool valid, SDAR_AT) {
  const cuda_host::Site& site = cuda_host::site_at(at, cuda_host::SiteKind::guard);
  cuda_host::copy_async(site, s.offset, valid || site.dropped() ? global : nullptr);
}
template <class T, class U>
void cp_async_16(Shared<T> s, const U* global, SDAR_AT) {
  cuda_host::copy_async(cuda_host::site_at(at), s.offset, global);
}
inline void cp_async_commit(SDAR_AT) {
  const cuda_host::Site& site = cuda_host::site_at(at, cuda_host::SiteKind::commit);
  if (!site.dropped()) cuda_host::commit_copies(site);
}
template <int pending>
void cp_async_wait(SDAR_AT) {
  const cuda_host::Site& site = cuda_host::site_at(at, cuda_host::SiteKind::wait);
  if (!site.dropped()) cuda_host::wait_for_copies(site, pending + (site.change == cuda_host::Change::more));
}

// ---- barriers, fences, atomics
inline void sync_block(SDAR_AT) {
  const cuda_host::Site& site = cuda_host::site_at(at, cuda_host::SiteKind::barrier);
  if (!site.dropped()) cuda_host::block_barrier(site);
}
inline void sync_warp(uint32_t mask, SDAR_AT) {
  const cuda_host::Site& site = cuda_host::site_at(at, cuda_host::SiteKind::warp_barrier);
  if (!site.dropped()) cuda_host::warp_barrier(site, mask);
}
inline void thread_fence(SDAR_AT) {
  const cuda_host::Site& site = cuda_host::site_at(at, cuda_host::SiteKind::fence);
  if (!site.dropped()) cuda_host::fence_global(site);
}
inline uint32_t atomic_add(uint32_t* p, uint32_t n, SDAR_AT) {
  return cuda_host::add_global(cuda_host::site_at(at), p, n);
}
inline int atomic_add(int* p, int n, SDAR_AT) {
  return static_cast<int>(cuda_host::add_global(cuda_host::site_at(at), p, static_cast<uint32_t>(n)));
}
inline uint32_t atomic_add(Shared<uint32_t> s, uint32_t n, SDAR_AT) {
  return cuda_host::add_shared(cuda_host::site_at(at), s.offset, n);
}

// ---- within a warp
namespace detail {
/// And makes of `mask` what a mutation run has there: all lanes, or half of them.
inline const cuda_host::Site& mask_site(uint32_t& mask, std::source_location at) {
  using enum cuda_host::SiteKind;
  const cuda_host::Site& site = cuda_host::site_at(at, mask == kFullMask ? full_mask : part_mask);
  if (site.change != cuda_host::Change::none) mask = site.dropped() ? kFullMask : mask & 0xffffu;
  return site;
}
template <class T>
T shuffle_how(cuda_host::Shuffle how, uint32_t mask, T v, int operand, std::source_location at) {
  static_assert(sizeof(T) == 4);
  const cuda_host::Site& site = mask_site(mask, at);
  return std::bit_cast<T>(cuda_host::shuffle(site, how, mask, std::bit_cast<uint32_t>(v), operand));
}
inline uint32_t vote(const char* name, uint32_t mask, bool predicate, std::source_location at) {
  const cuda_host::Site& site = mask_site(mask, at);
  return cuda_host::ballot(site, name, mask, predicate);
}
}  // namespace detail
template <class T>
T shuffle(uint32_t mask, T v, int source_lane, SDAR_AT) {
  return detail::shuffle_how(cuda_host::Shuffle::from_lane, mask, v, source_lane, at);
}
template <class T>
T shuffle_xor(uint32_t mask, T v, int lane_mask, SDAR_AT) {
  return detail::shuffle_how(cuda_host::Shuffle::exclusive_or, mask, v, lane_mask, at);
}
template <class T>
T shuffle_down(uint32_t mask, T v, int delta, SDAR_AT) {
  return detail::shuffle_how(cuda_host::Shuffle::down, mask, v, delta, at);
}
template <class T>
T shuffle_up(uint32_t mask, T v, int delta, SDAR_AT) {
  return detail::shuffle_how(cuda_host::Shuffle::up, mask, v, delta, at);
}
inline uint32_t ballot(uint32_t mask, bool predicate, SDAR_AT) { return detail::vote("ballot", mask, predicate, at); }
inline bool any(uint32_t mask, bool predicate, SDAR_AT) { return detail::vote("any", mask, predicate, at) != 0; }
inline bool all(uint32_t mask, bool predicate, SDAR_AT) { return detail::vote("all", mask, predicate, at) == mask; }

// ---- matrix fragments
template <class T>
void ldmatrix_x4(uint32_t (&r)[4], Shared<T> row, SDAR_AT) {
  cuda_host::load_matrices(cuda_host::site_at(at), 4, false, row.offset, r);
}
template <class T>
void ldmatrix_x4_trans(uint32_t (&r)[4], Shared<T> row, SDAR_AT) {
  cuda_host::load_matrices(cuda_host::site_at(at), 4, true, row.offset, r);
}
template <class T>
void ldmatrix_x2(uint32_t (&r)[2], Shared<T> row, SDAR_AT) {
  cuda_host::load_matrices(cuda_host::site_at(at), 2, false, row.offset, r);
}
template <class T>
void ldmatrix_x2_trans(uint32_t (&r)[2], Shared<T> row, SDAR_AT) {
  cuda_host::load_matrices(cuda_host::site_at(at), 2, true, row.offset, r);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SDAR_AT) {
  cuda_host::multiply_bf16(cuda_host::site_at(at), d, a, b);
}
inline void mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SDAR_AT) {
  cuda_host::multiply_s8(cuda_host::site_at(at), d, a, b);
}

// ---- warpgroup MMA
constexpr bool kWarpgroups = true;
struct TokenOperand {
  uint64_t descriptor;
};
template <class T>
TokenOperand token_operand(Shared<T> first, int stride) {
  return {token_descriptor(static_cast<uint32_t>(first.offset), stride)};
}
inline void fence_for_warpgroup_mma(SDAR_AT) {
  if (!cuda_host::site_at(at, cuda_host::SiteKind::fence).dropped()) cuda_host::fence_for_mma();
}
inline void warpgroup_fence(SDAR_AT) {
  if (!cuda_host::site_at(at, cuda_host::SiteKind::fence).dropped()) cuda_host::fence_registers();
}
inline void warpgroup_commit(SDAR_AT) {
  const cuda_host::Site& site = cuda_host::site_at(at, cuda_host::SiteKind::commit);
  if (!site.dropped()) cuda_host::commit_mma(site);
}
template <int pending>
void warpgroup_wait(SDAR_AT) {
  const cuda_host::Site& site = cuda_host::site_at(at, cuda_host::SiteKind::wait);
  if (!site.dropped()) cuda_host::wait_for_mma(site, pending + (site.change == cuda_host::Change::more));
}
template <int tiles>
void warpgroup_wait_all(float (&)[tiles][4], SDAR_AT) {
  warpgroup_wait<0>(at);
}
template <int tiles>
void warpgroup_mma(float (&d)[tiles][4], const uint32_t (&a)[4], TokenOperand b, bool accumulate, SDAR_AT) {
  cuda_host::WarpgroupMma mma;
  mma.d = d[0];
  mma.a = a;
  mma.descriptor = b.descriptor;
  mma.tiles = tiles;
  mma.accumulate = accumulate;
  cuda_host::issue_mma(cuda_host::site_at(at), mma);
}

// ---- arithmetic
inline uint16_t float_to_bf16(float x) { return f32_to_bf16(x); }
inline uint32_t pack_bf16(float low, float high) {
  return f32_to_bf16(low) | static_cast<uint32_t>(f32_to_bf16(high)) << 16;
}
inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  // WarpgroupMma and sum are exact in double unless their exponents are 37 apart; there the float is no tie of bf16.
  auto one = [](uint32_t x, uint32_t y, uint32_t z) {
    const double exact = static_cast<double>(bits_to_f32(x)) * bits_to_f32(y) + bits_to_f32(z);
    float near = static_cast<float>(exact);
    // To odd, so that rounding twice equals rounding once.
    if (static_cast<double>(near) != exact && !(f32_to_bits(near) & 1))
      near = std::nextafter(near, exact > static_cast<double>(near) ? HUGE_VALF : -HUGE_VALF);
    return static_cast<uint32_t>(f32_to_bf16(near));
  };
  return one(a << 16, b << 16, c << 16) | one(a & 0xffff0000u, b & 0xffff0000u, c & 0xffff0000u) << 16;
}
inline uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) { return (a & b) | c; }
inline uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) result |= static_cast<uint32_t>(bytes >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
  return result;
}
inline int32_t dot_s8(uint32_t a, uint32_t b, int32_t c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline float maximum(float a, float b) { return std::fmax(a, b); }
inline float absolute(float x) { return std::fabs(x); }
inline int32_t round_to_int(float x) { return static_cast<int32_t>(std::nearbyint(x)); }
inline float exp_fast(float x) { return std::exp(x); }
inline float exp2_fast(float x) { return std::exp2(x); }
inline float log_fast(float x) { return std::log(x); }
inline float reciprocal(float x) { return 1.0f / x; }
inline float rsqrt_fast(float x) { return 1.0f / std::sqrt(x); }
inline float divide(float a, float b) { return a / b; }

}  // namespace sdar::cuda
