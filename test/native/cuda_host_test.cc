// The SIMT executor itself: each class of mistake it claims to find, planted in a small kernel, beside one without it.
// cp_async, dependent launches and warpgroup MMA are cuda_host_async_test.cc's.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "cuda_host_kernels.h"
#include "simt/report.h"

using namespace sdar;
using namespace sdar::cuda;

namespace {

constexpr uint32_t kLowHalf = 0x0000ffffu;

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
    check_fault({"UNWRITTEN"}, "cuda_host_kernels.h", [&] { reverse<true, false>(x.get(), y.get()); });
    const Buffer<float> fresh(32, "fresh");
    check_fault({"UNWRITTEN"}, "fresh",
                [&] { SDAR_LAUNCH((LaunchShape{.threads = 32}), uninitialised_kernel, fresh.get()); });
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

int main(int argc, char** argv) { return check::run(argc, argv); }
