// The SIMT executor itself: each class of mistake it claims to find, planted in a small kernel, beside one without it.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "backend/cuda/kernels/device.cuh"
#include "check.h"
#include "simt/executor.h"
#include "simt/memory.h"
#include "simt/report.h"
#include "util/half.h"

using namespace sdar;
using namespace sdar::cuda;
using cuda_host::Buffer;
using cuda_host::each_order;

namespace {

constexpr int kThreads = 128;
constexpr uint32_t kLowHalf = 0x0000ffffu;

/// `launch` throws an Error of one of these codes whose message holds `part`.
void check_fault(std::initializer_list<std::string> codes, const char* part, const std::function<void()>& launch) {
  try {
    launch();
    check::fail(__FILE__, __LINE__, *codes.begin() + " was not found: " + part);
  } catch (const Error& e) {
    if (std::find(codes.begin(), codes.end(), e.code()) == codes.end() || !std::strstr(e.what(), part))
      check::fail(__FILE__, __LINE__, "expected " + *codes.begin() + ", " + part + ": " + e.code() + " " + e.what());
  }
}

std::vector<float> ramp(int n) {
  std::vector<float> v(n);
  std::iota(v.begin(), v.end(), 0.0f);
  return v;
}

/// y[i] = x[n − 1 − i] by way of shared memory.
template <bool barrier, bool all_write>
SDAR_KERNEL(kThreads, 4, reverse, const float* x, float* y) {
  const int i = thread_index(), n = block_threads();
  const auto s = shared_memory<float>(0);
  if (all_write || i % 32 != 5) store_shared<float>(s + i, load_global<float>(x + i));
  if (barrier) sync_block();
  store_global<float>(y + i, load_shared<float>(s + (n - 1 - i)));
}
template <bool barrier, bool all_write>
void reverse(const float* x, float* y) {
  SDAR_LAUNCH((LaunchShape{.threads = kThreads, .shared_bytes = kThreads * 4}), reverse_kernel<barrier, all_write>, x,
              y);
}

enum class Copy { right, no_wait, no_barrier, no_commit, wait_for_less, write_in_flight, never_waited };
/// y[i] = x[i ^ 4], 4 floats a thread, by cp_async.
template <Copy how>
SDAR_KERNEL(kThreads, 4, copy, const float* x, float* y) {
  const int i = thread_index();
  const auto s = shared_memory<float>(0);
  cp_async_16(s + 4 * i, x + 4 * i);
  if (how != Copy::no_commit) cp_async_commit();
  if (how == Copy::never_waited) return;
  if (how == Copy::write_in_flight) store_shared<float>(s + 4 * i, 0);
  if (how == Copy::wait_for_less) cp_async_wait<1>();
  if (how != Copy::no_wait && how != Copy::wait_for_less) cp_async_wait<0>();
  if (how != Copy::no_barrier) sync_block();
  store_global<Floats4>(y + 4 * i, load_shared<Floats4>(s + 4 * (i ^ 1)));
}
template <Copy how>
void copy(const float* x, float* y) {
  SDAR_LAUNCH((LaunchShape{.threads = kThreads, .shared_bytes = kThreads * 16}), copy_kernel<how>, x, y);
}

enum class Dependent { right, reads_before, writes_before, some_return, plain, reads_cached };
/// y[i] = weights[i] + x[i], x by a launch before: a dependent launch that issues the weights at once.
template <Dependent how>
SDAR_KERNEL(kThreads, 4, dependent, const float* weights, const float* x, float* y) {
  const int i = thread_index();
  const float weight = load_global<float>(weights + i);
  float other = 0;
  if (how == Dependent::reads_before || how == Dependent::plain) other = load_global<float>(x + i);
  if (how == Dependent::writes_before) store_global<float>(y + i, 0);
  if (how == Dependent::some_return && i == 3) return;
  pdl_wait();
  if (how == Dependent::right || how == Dependent::some_return) other = load_global<float>(x + i);
  if (how == Dependent::reads_cached) other = load_global_cached<float>(x + i);
  store_global<float>(y + i, weight + other);
}
template <Dependent how>
void dependent(const float* weights, const float* x, float* y) {
  SDAR_LAUNCH((LaunchShape{.threads = kThreads, .pdl = how != Dependent::plain}), dependent_kernel<how>, weights, x, y);
}

enum class Mma {
  right,
  no_register_fence,
  no_fence_of_copies,
  no_commit,
  no_wait,
  wait_for_less,
  fragments_written,
  tokens_written,
  accumulators_written,
  misplaced,
  one_warp_less,
  late_fence_of_copies,
  load_after_register_fence
};
/// y[16 tiles] = a warpgroup MMA: fragments of ones by 128 tokens of 32 k, copied from x.
template <Mma how>
SDAR_KERNEL(kThreads, 1, warpgroup, const uint16_t* x, float* y) {
  const auto s = shared_memory<uint8_t>(0);
  const int thread = thread_index();
  for (int i = 0; i < 4; i++) {
    cp_async_16(s + (i * kThreads + (thread ^ thread / 8 % 4)) * 16, x + (i * kThreads + thread) * 8);
  }
  cp_async_commit();
  cp_async_wait<0>();
  if (how != Mma::no_fence_of_copies && how != Mma::late_fence_of_copies) fence_for_warpgroup_mma();
  sync_block();
  if (how == Mma::late_fence_of_copies) fence_for_warpgroup_mma();
  uint32_t a[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
  float acc[16][4];
  if (how != Mma::no_register_fence) warpgroup_fence();
  if (how == Mma::load_after_register_fence) a[0] = load_shared<uint32_t>(s);
  for (int i = 0; i < 2; i++) {
    if (how == Mma::one_warp_less && thread / 32 == 2) break;
    const int first = how == Mma::misplaced ? 16 : i * 32;
    warpgroup_mma(acc, a, token_operand(s + first, 512), i > 0);
    if (how != Mma::no_commit) warpgroup_commit();
  }
  if (how == Mma::fragments_written) a[0] = 0;
  if (how == Mma::accumulators_written) acc[3][2] = 0;
  if (how == Mma::tokens_written) {
    sync_block();
    store_shared<uint16_t>((s + thread * 16).as<uint16_t>(), 0);
  }
  if (how == Mma::wait_for_less) warpgroup_wait<1>();
  if (how != Mma::no_wait && how != Mma::wait_for_less) warpgroup_wait_all(acc);
  for (int t = 0; t < 16; t++) {
    for (int i = 0; i < 4; i++) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8, token = t * 8 + thread % 4 * 2 + i % 2;
      store_global<float>(y + row * 128 + token, acc[t][i]);
    }
  }
}
template <Mma how>
void warpgroup(const uint16_t* x, float* y) {
  SDAR_LAUNCH((LaunchShape{.threads = kThreads, .shared_bytes = 16 * 512}), warpgroup_kernel<how>, x, y);
}

/// Two halves one after the other through one buffer: the second copy must not start before all have read the first.
template <bool second_barrier>
SDAR_KERNEL(kThreads, 4, reuse, const float* x, float* y) {
  const int i = thread_index();
  const auto s = shared_memory<float>(0);
  for (int half = 0; half < 2; half++) {
    cp_async_16(s + 4 * i, x + half * 4 * kThreads + 4 * i);
    cp_async_commit();
    cp_async_wait<0>();
    sync_block();
    store_global<Floats4>(y + half * 4 * kThreads + 4 * i, load_shared<Floats4>(s + 4 * (i ^ 37)));
    if (second_barrier) sync_block();
  }
}

/// y[i + shift] = x[i] for all threads of the grid that `bounded` lets pass.
template <class T, bool bounded>
SDAR_KERNEL(kThreads, 4, shift, const float* x, float* y, int n, int shift) {
  const int i = (block_index_x() * block_threads() + thread_index()) * static_cast<int>(sizeof(T) / 4);
  if (bounded && !in_range(i, n)) return;
  store_global<T>(y + i + shift, load_global<T>(x + i));
}
template <class T, bool bounded>
void shift(const float* x, float* y, int n, int by, int blocks) {
  SDAR_LAUNCH((LaunchShape{.grid_x = blocks, .threads = kThreads}), shift_kernel<T, bounded>, x, y, n, by);
}

enum class Path { right, half_of_a_warp, other_place, returned, one_warp };
template <Path path>
SDAR_KERNEL(kThreads, 4, branch, float* y) {
  const int i = thread_index();
  if (path == Path::returned && i == 77) return;
  if (path == Path::other_place && i < 64) {
    sync_block();
  } else if ((path != Path::half_of_a_warp || i % 32 < 16) && (path != Path::one_warp || i < 32)) {
    sync_block();
  }
  store_global<float>(y + i, 1);
}
template <Path path>
void branch(float* y) {
  SDAR_LAUNCH((LaunchShape{.threads = kThreads}), branch_kernel<path>, y);
}

enum class Mask { right, without_itself, different, too_wide, of_returned, absent_source, other_function };
template <Mask how>
SDAR_KERNEL(32, 4, sum, float* y) {
  const int lane = lane_index();
  float x = static_cast<float>(lane);
  if (how == Mask::right) x = warp_sum(x);
  if (how == Mask::without_itself) x = shuffle(kLowHalf, x, 0);
  if (how == Mask::different) x = shuffle(lane < 16 ? kFullMask : ~1u, x, 1);
  if (how == Mask::too_wide && lane < 16) x = shuffle(kFullMask, x, 0);
  if (how == Mask::of_returned) {
    if (lane == 31) return;
    x = shuffle(kFullMask, x, 0);
  }
  if (how == Mask::absent_source && lane < 16) x = shuffle(kLowHalf, x, 20);
  if (how == Mask::other_function) x += lane < 16 ? shuffle(kFullMask, x, 0) : shuffle_down(kFullMask, x, 1);
  store_global<float>(y + lane, x);
}
template <Mask how>
void sum(float* y) {
  SDAR_LAUNCH((LaunchShape{.threads = 32}), sum_kernel<how>, y);
}

/// A warp hands values on through shared memory; sync_warp with `mask` between.
template <bool synced>
SDAR_KERNEL(kThreads, 4, hand_on, float* y, uint32_t mask) {
  const auto s = shared_memory<float>(0);
  const int i = thread_index(), lane = lane_index();
  store_shared<float>(s + i, static_cast<float>(i));
  if (synced && (mask >> lane & 1)) sync_warp(mask);
  store_global<float>(y + i, load_shared<float>(s + (i ^ 1)));
}

enum class Arrival { right, no_fence, no_arrival, no_barrier_before, not_coherent };
/// y[0] = the sum of what all blocks left in `partial`, taken by the last of them.
template <Arrival how>
SDAR_KERNEL(kThreads, 4, total, float* partial, uint32_t* counter, float* y) {
  const auto s = shared_memory<uint32_t>(0);
  const int i = thread_index(), n = block_threads(), blocks = grid_size_x();
  store_global<float>(partial + block_index_x() * n + i, 1);
  if (how != Arrival::no_barrier_before) sync_block();
  if (i == 0) {
    const uint32_t arrival = how == Arrival::no_fence     ? atomic_add(counter, 1u)
                             : how == Arrival::no_arrival ? static_cast<uint32_t>(blocks - 1)
                                                          : count_arrival(counter);
    store_shared<uint32_t>(s, arrival);
  }
  sync_block();
  if (load_shared<uint32_t>(s) != static_cast<uint32_t>(blocks - 1)) return;
  float sum = 0;
  for (int b = 0; b < blocks; b++)
    sum += how == Arrival::not_coherent ? load_global_cached<float>(partial + b * n + i)
                                        : load_global<float>(partial + b * n + i);
  store_global<float>(y + i, sum);
}
template <Arrival how>
void total(int blocks) {
  const Buffer<float> partial(static_cast<size_t>(kThreads) * blocks, "partial"), y(kThreads, "y");
  const Buffer<uint32_t> counter(std::vector<uint32_t>{0}, "counter");
  SDAR_LAUNCH((LaunchShape{.grid_x = blocks, .threads = kThreads, .shared_bytes = 16}), total_kernel<how>,
              partial.get(), counter.get(), y.get());
  CHECK(y.values() == std::vector<float>(kThreads, static_cast<float>(blocks)));
}

/// Every thread reads its neighbour's y and writes its own, with or without a barrier between.
template <bool barrier>
SDAR_KERNEL(kThreads, 4, neighbour, float* y) {
  const int i = thread_index(), n = block_threads();
  const float x = load_global<float>(y + (i + 1) % n);
  if (barrier) sync_block();
  store_global<float>(y + i, x);
}

template <bool barrier>
void neighbour(float* y) {
  SDAR_LAUNCH((LaunchShape{.threads = kThreads}), neighbour_kernel<barrier>, y);
}

/// y[i] = how many threads there are, counted in shared memory.
template <bool cleared, bool barrier>
SDAR_KERNEL(kThreads, 4, count, uint32_t* y) {
  const auto s = shared_memory<uint32_t>(0);
  const int i = thread_index();
  if (cleared && i == 0) store_shared<uint32_t>(s, 0);
  if (cleared) sync_block();
  atomic_add(s, 1u);
  if (barrier) sync_block();
  store_global<uint32_t>(y + i, load_shared<uint32_t>(s));
}
template <bool cleared, bool barrier>
void count(uint32_t* y) {
  SDAR_LAUNCH((LaunchShape{.threads = kThreads, .shared_bytes = 16}), count_kernel<cleared, barrier>, y);
}

/// Column-wise loads of a 32×32 matrix whose rows are `stride` floats apart.
SDAR_KERNEL(32, 4, columns, float* y, int stride) {
  const auto s = shared_memory<float>(0);
  const int lane = lane_index();
  for (int row = 0; row < 32; row++) store_shared<float>(s + (row * stride + lane), static_cast<float>(row));
  sync_warp(kFullMask);
  float sum = 0;
  for (int column = 0; column < 32; column++) sum += load_shared<float>(s + (lane * stride + column));
  store_global<float>(y + lane, sum);
}

SDAR_KERNEL(32, 4, dereference, const float* x, float* y) {
  store_global<float>(y + thread_index(), x[thread_index()]);
}

SDAR_KERNEL(32, 4, uninitialised, float* y) {
  const float x = load_global<float>(y + thread_index());
  store_global<float>(y + thread_index(), x);
}

/// Fragments through shared memory, straight and transposed; a · b in both kinds.
SDAR_KERNEL(32, 1, multiply, const uint16_t* a, const uint16_t* b, float* d, const uint32_t* a8, const uint32_t* b8,
            int32_t* d8) {
  const auto s = shared_memory<uint16_t>(0);  // a [16][16], then b [16][8]
  const int lane = lane_index(), g = lane / 4, t = lane % 4;
  store_shared<Words4>(s + lane * 8, load_global<Words4>(a + lane * 8));
  if (lane < 16) store_shared<Words4>(s + 256 + lane * 8, load_global<Words4>(b + lane * 8));
  sync_warp(kFullMask);
  uint32_t left[4], right[2];
  ldmatrix_x4(left, s + (lane % 16 * 16 + lane / 16 * 8));
  ldmatrix_x2_trans(right, s + (256 + lane % 16 * 8));
  float sum[4] = {0, 0, 0, 0};
  mma_m16n8k16_bf16(sum, left, right);
  const uint32_t left8[4] = {load_global<uint32_t>(a8 + g * 8 + t), load_global<uint32_t>(a8 + (g + 8) * 8 + t),
                             load_global<uint32_t>(a8 + g * 8 + t + 4),
                             load_global<uint32_t>(a8 + (g + 8) * 8 + t + 4)};
  const uint32_t right8[2] = {load_global<uint32_t>(b8 + g * 8 + t), load_global<uint32_t>(b8 + g * 8 + t + 4)};
  int32_t sum8[4] = {0, 0, 0, 0};
  mma_m16n8k32_s8(sum8, left8, right8);
  for (int i = 0; i < 4; i++) {
    const int at = (g + i / 2 * 8) * 8 + t * 2 + i % 2;
    store_global<float>(d + at, sum[i]);
    store_global<int32_t>(d8 + at, sum8[i]);
  }
}

}  // namespace

TEST("a barrier that is missing is a race, whatever the order of threads") {
  const Buffer<float> x(ramp(kThreads), "x"), y(kThreads, "y");
  // In some orders a value is missing rather than early.
  each_order([&] {
    check_fault({"RACE", "UNWRITTEN"}, "reverse_kernel<barrier, all_write>, block (0, 0, 0)",
                [&] { reverse<false, true>(x.get(), y.get()); });
  });
  each_order([&] {
    reverse<true, true>(x.get(), y.get());
    auto wanted = ramp(kThreads);
    std::reverse(wanted.begin(), wanted.end());
    CHECK(y.values() == wanted);
  });
  const Buffer<float> z(ramp(kThreads), "z");
  each_order([&] { check_fault({"RACE"}, "neighbour", [&] { neighbour<false>(z.get()); }); });
  const Buffer<float> right(ramp(kThreads), "right");
  neighbour<true>(right.get());
  CHECK(right.values()[0] == 1 && right.values()[kThreads - 1] == 0);
}

TEST("shared and global memory that nobody wrote is not read") {
  const Buffer<float> x(ramp(kThreads), "x"), y(kThreads, "y");
  each_order([&] {
    check_fault({"UNWRITTEN"}, "cuda_host_test.cc", [&] { reverse<true, false>(x.get(), y.get()); });
    const Buffer<float> fresh(32, "fresh");
    check_fault({"UNWRITTEN"}, "fresh",
                [&] { SDAR_LAUNCH((LaunchShape{.threads = 32}), uninitialised_kernel, fresh.get()); });
  });
}

TEST("cp_async: data before the wait, before the barrier, and groups that are forgotten") {
  const Buffer<float> x(ramp(kThreads * 4), "x"), y(kThreads * 4, "y");
  each_order([&] {
    check_fault({"NOT_WAITED"}, "in flight", [&] { copy<Copy::no_wait>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "in flight", [&] { copy<Copy::no_commit>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "in flight", [&] { copy<Copy::wait_for_less>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "store", [&] { copy<Copy::write_in_flight>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "never waited for", [&] { copy<Copy::never_waited>(x.get(), y.get()); });
    check_fault({"RACE", "UNWRITTEN", "NOT_WAITED"}, "copy_kernel", [&] { copy<Copy::no_barrier>(x.get(), y.get()); });
    copy<Copy::right>(x.get(), y.get());
    for (int i = 0; i < kThreads * 4; i++) CHECK(y.values()[i] == static_cast<float>(i ^ 4));
  });
  const Buffer<float> two(ramp(kThreads * 8), "two"), out(kThreads * 8, "out");
  const LaunchShape shape{.threads = kThreads, .shared_bytes = kThreads * 16};
  each_order([&] {
    check_fault({"RACE", "NOT_WAITED"}, "reuse_kernel",
                [&] { SDAR_LAUNCH(shape, reuse_kernel<false>, two.get(), out.get()); });
    SDAR_LAUNCH(shape, reuse_kernel<true>, two.get(), out.get());
  });
}

TEST("accesses out of bounds, misaligned, of freed and of host memory") {
  const int n = 2 * kThreads - 3;
  const Buffer<float> x(ramp(n), "x"), y(n, "y");
  each_order([&] {
    check_fault({"OUT_OF_BOUNDS"}, "shift_kernel", [&] { shift<float, false>(x.get(), y.get(), n, 0, 2); });
    check_fault({"OUT_OF_BOUNDS"}, "y", [&] { shift<float, true>(x.get(), y.get(), n, 1, 2); });
    shift<float, true>(x.get(), y.get(), n, 0, 2);
    CHECK(y.values() == ramp(n));
    const Buffer<float> wide(ramp(kThreads * 4 + 4), "wide"), to(kThreads * 4 + 4, "to");
    check_fault({"MISALIGNED"}, "16 bytes", [&] { shift<Floats4, true>(wide.get(), to.get(), kThreads * 4, 1, 1); });
    shift<Floats4, true>(wide.get(), to.get(), kThreads * 4, 4, 1);
  });
  const float* gone = nullptr;
  {
    const Buffer<float> freed(ramp(kThreads), "freed");
    gone = freed.get();
  }
  check_fault({"FREED_MEMORY", "OUT_OF_BOUNDS"}, "shift_kernel",
              [&] { shift<float, true>(gone, y.get(), kThreads, 0, 1); });
  float host[kThreads] = {};
  check_fault({"OUT_OF_BOUNDS"}, "shift_kernel", [&] { shift<float, true>(host, y.get(), kThreads, 0, 1); });
}

TEST("a device pointer cannot be dereferenced") {
  const Buffer<float> x(ramp(32), "x"), y(32, "y");
  const pid_t child = fork();
  if (child == 0) {
    // The host's own crash report would only disturb.
    (void)!freopen("/dev/null", "w", stderr);
    SDAR_LAUNCH((LaunchShape{.threads = 32}), dereference_kernel, x.get(), y.get());
    _exit(0);
  }
  int status = 0;
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  CHECK(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}

TEST("barriers that not all threads reach") {
  const Buffer<float> y(kThreads, "y");
  each_order([&] {
    branch<Path::right>(y.get());
    for (const auto& run :
         {branch<Path::half_of_a_warp>, branch<Path::other_place>, branch<Path::returned>, branch<Path::one_warp>})
      check_fault({"DIVERGENT_BARRIER"}, "branch_kernel", [&] { run(y.get()); });
  });
}

TEST("masks that are wrong, and lanes that are elsewhere") {
  const Buffer<float> y(32, "y");
  each_order([&] {
    sum<Mask::right>(y.get());
    CHECK(y.values() == std::vector<float>(32, 31 * 16));
    for (const auto& run : {sum<Mask::without_itself>, sum<Mask::different>, sum<Mask::too_wide>,
                            sum<Mask::of_returned>, sum<Mask::absent_source>, sum<Mask::other_function>})
      check_fault({"WRONG_MASK", "DIVERGENT_WARP"}, "sum_kernel", [&] { run(y.get()); });
  });
}

TEST("what a warp hands on needs sync_warp of all who take part") {
  const Buffer<float> y(kThreads, "y");
  const LaunchShape shape{.threads = kThreads, .shared_bytes = kThreads * 4};
  each_order([&] {
    check_fault({"RACE", "UNWRITTEN"}, "hand_on",
                [&] { SDAR_LAUNCH(shape, hand_on_kernel<false>, y.get(), kFullMask); });
    check_fault({"RACE", "UNWRITTEN"}, "hand_on", [&] { SDAR_LAUNCH(shape, hand_on_kernel<true>, y.get(), kLowHalf); });
    SDAR_LAUNCH(shape, hand_on_kernel<true>, y.get(), kFullMask);
    CHECK(y.values()[0] == 1 && y.values()[1] == 0);
  });
}

TEST("what the last block takes from the others needs barrier, fence and arrival") {
  each_order([&] {
    total<Arrival::right>(5);
    check_fault({"RACE", "UNWRITTEN"}, "total_kernel", [] { total<Arrival::no_fence>(5); });
    check_fault({"RACE", "UNWRITTEN"}, "total_kernel", [] { total<Arrival::no_arrival>(5); });
    check_fault({"RACE", "UNWRITTEN"}, "total_kernel", [] { total<Arrival::no_barrier_before>(5); });
    check_fault({"NOT_COHERENT"}, "total_kernel", [] { total<Arrival::not_coherent>(5); });
  });
}

TEST("additions to shared memory need no barrier between them, but before and after") {
  const Buffer<uint32_t> y(kThreads, "y");
  each_order([&] {
    check_fault({"UNWRITTEN"}, "atomic_add", [&] { count<false, true>(y.get()); });
    check_fault({"RACE"}, "count_kernel", [&] { count<true, false>(y.get()); });
    count<true, true>(y.get());
    CHECK(y.values() == std::vector<uint32_t>(kThreads, kThreads));
  });
}

TEST("launches that no device takes") {
  const Buffer<float> y(kThreads, "y");
  const auto refused = [&](LaunchShape shape, const char* part) {
    check_fault({"LAUNCH"}, part, [&] { SDAR_LAUNCH(shape, branch_kernel<Path::right>, y.get()); });
  };
  refused({.threads = 2 * kThreads}, "128");
  refused({.threads = 48}, "48");
  refused({.grid_x = 0, .threads = 32}, "grid");
  refused({.threads = 32, .shared_bytes = 300 * 1024}, "shared");
}

TEST("bank conflicts are counted") {
  const Buffer<float> y(32, "y");
  SDAR_LAUNCH((LaunchShape{.threads = 32, .shared_bytes = 32 * 32 * 4}), columns_kernel, y.get(), 32);
  CHECK(cuda_host::last_launch().bank_conflicts() == 32 * 31);
  SDAR_LAUNCH((LaunchShape{.threads = 32, .shared_bytes = 32 * 33 * 4}), columns_kernel, y.get(), 33);
  CHECK(cuda_host::last_launch().bank_conflicts() == 0);
}

TEST("bytes and matrix instructions are counted, fragments lie as the instruction set says") {
  const int m = 16, n = 8, k = 16;
  std::vector<uint16_t> a(m * k), b(k * n);
  std::vector<uint32_t> a8(m * 8), b8(n * 8);
  for (int i = 0; i < m * k; i++) a[i] = float_to_bf16(static_cast<float>(i % 7 - 3));
  for (int i = 0; i < k * n; i++) b[i] = float_to_bf16(static_cast<float>(i % 5 - 2));
  for (size_t i = 0; i < a8.size(); i++) a8[i] = 0x01ff0203u * static_cast<uint32_t>(i % 3);
  for (size_t i = 0; i < b8.size(); i++) b8[i] = 0xfe010302u * static_cast<uint32_t>(i % 4 + 1);
  const Buffer<uint16_t> da(a, "a"), db(b, "b");
  const Buffer<uint32_t> da8(a8, "a8"), db8(b8, "b8");
  const Buffer<float> d(m * n, "d");
  const Buffer<int32_t> d8(m * n, "d8");
  SDAR_LAUNCH((LaunchShape{.threads = 32, .shared_bytes = 768}), multiply_kernel, da.get(), db.get(), d.get(),
              da8.get(), db8.get(), d8.get());
  const auto& report = cuda_host::last_launch();
  CHECK(report.mma_bf16 == 1 && report.mma_s8 == 1);
  CHECK(report.loaded == 512 + 256 + 512 + 256 && report.stored == 2 * 512);
  const auto byte = [](const std::vector<uint32_t>& words, int row, int i) {
    return static_cast<int8_t>(words[row * 8 + i / 4] >> (8 * (i % 4)) & 0xff);
  };
  for (int row = 0; row < m; row++) {
    for (int column = 0; column < n; column++) {
      float sum = 0;
      int32_t sum8 = 0;
      for (int i = 0; i < k; i++) sum += bf16_to_float(a[row * k + i]) * bf16_to_float(b[i * n + column]);
      for (int i = 0; i < 32; i++) sum8 += byte(a8, row, i) * byte(b8, column, i);
      CHECK(d.values()[row * n + column] == sum);
      CHECK(d8.values()[row * n + column] == sum8);
    }
  }
}

TEST("a programmatic dependent launch: before pdl_wait it reads what no launch writes, and every thread waits") {
  each_order([] {
    const Buffer<float> weights(ramp(kThreads), "weights"), x(kThreads, "x"), y(kThreads, "y");
    reverse<true, true>(weights.get(), x.get());
    dependent<Dependent::right>(weights.get(), x.get(), y.get());
    for (float sum : y.values()) CHECK(sum == kThreads - 1);
    dependent<Dependent::plain>(weights.get(), x.get(), y.get());
    for (float sum : y.values()) CHECK(sum == kThreads - 1);
    check_fault({"TOO_EARLY"}, "'x'", [&] { dependent<Dependent::reads_before>(weights.get(), x.get(), y.get()); });
    check_fault({"TOO_EARLY"}, "store of 4 bytes at 'y'",
                [&] { dependent<Dependent::writes_before>(weights.get(), x.get(), y.get()); });
    check_fault({"NOT_COHERENT"}, "may begin before its end",
                [&] { dependent<Dependent::reads_cached>(weights.get(), x.get(), y.get()); });
    check_fault({"TOO_EARLY"}, "ends without having waited",
                [&] { dependent<Dependent::some_return>(weights.get(), x.get(), y.get()); });
  });
}

TEST("warpgroup MMA: computed at the wait; what is touched before it, or not fenced, is found") {
  each_order([] {
    std::vector<uint16_t> tokens(128 * 32);
    for (size_t i = 0; i < tokens.size(); i++) tokens[i] = f32_to_bf16(static_cast<float>(i / 32 % 100 + i % 32));
    const Buffer<uint16_t> x(tokens, "x");
    const Buffer<float> y(64 * 128, "y");
    warpgroup<Mma::right>(x.get(), y.get());
    const std::vector<float> got = y.values();
    int wrong = 0;
    for (int i = 0; i < 64 * 128; i++) {
      float want = 0;
      for (int k = 0; k < 32; k++) want += bf16_to_f32(tokens[static_cast<size_t>(i % 128 * 32 + k)]);
      wrong += got[static_cast<size_t>(i)] != want;
    }
    CHECK(wrong == 0);
    check_fault({"NOT_FENCED"}, "without a warpgroup_fence",
                [&] { warpgroup<Mma::no_register_fence>(x.get(), y.get()); });
    check_fault({"NOT_FENCED"}, "without a warpgroup_fence",
                [&] { warpgroup<Mma::load_after_register_fence>(x.get(), y.get()); });
    check_fault({"NOT_FENCED"}, "without a fence_for_warpgroup_mma between",
                [&] { warpgroup<Mma::late_fence_of_copies>(x.get(), y.get()); });
    check_fault({"NOT_FENCED"}, "without a fence_for_warpgroup_mma between",
                [&] { warpgroup<Mma::no_fence_of_copies>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "never waited for", [&] { warpgroup<Mma::no_commit>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "never waited for", [&] { warpgroup<Mma::no_wait>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "never waited for", [&] { warpgroup<Mma::wait_for_less>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "first operand was written",
                [&] { warpgroup<Mma::fragments_written>(x.get(), y.get()); });
    check_fault({"NOT_WAITED"}, "accumulators were written",
                [&] { warpgroup<Mma::accumulators_written>(x.get(), y.get()); });
    check_fault({"NOT_FENCED", "RACE"}, "at shared", [&] { warpgroup<Mma::tokens_written>(x.get(), y.get()); });
    check_fault({"MISALIGNED"}, "tokens at shared 16", [&] { warpgroup<Mma::misplaced>(x.get(), y.get()); });
    check_fault({"DIVERGENT_WARP"}, "warps of a group issued",
                [&] { warpgroup<Mma::one_warp_less>(x.get(), y.get()); });
  });
}

int main(int argc, char** argv) { return check::run(argc, argv); }
