// The SIMT executor itself: mistakes with what runs on by itself, cp_async, dependent launches and warpgroup MMA, planted
// in small kernels, beside those without.
#include "cuda_host_kernels.h"
#include "util/half.h"

using namespace sdar;
using namespace sdar::cuda;

namespace {

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

}  // namespace

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
