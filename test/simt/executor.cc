#include "simt/executor.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <numeric>
#include <utility>

#include "simt/report.h"
#include "simt/shadow.h"
#include "simt/shared_memory.h"
#include "util/error.h"

namespace sdar::cuda_host {

Block block;
Thread* me = nullptr;

namespace {

constexpr int kMaxThreads = 1024;
std::mutex one_launch;  // like a stream that all threads share
Fiber main_fiber;
std::exception_ptr error;
uint32_t ready_warps = 0;
int present_warp = 0, alive = 0, at_barrier = 0;
const Site* barrier_site = nullptr;
uint64_t next_run = 1;
std::vector<int64_t> order;  // of the blocks of this launch
int shared_limit = 99 * 1024;

uint64_t seed_of_environment() {
  const char* text = std::getenv("SDAR_CUDA_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}
uint64_t seed = seed_of_environment();
uint64_t state = seed * 0x9E3779B97F4A7C15u | 1;

void make_ready(Warp& warp, uint32_t lanes) {
  warp.ready |= lanes;
  if (warp.ready) ready_warps |= 1u << warp.index;
}

/// Mostly another lane of the same warp, so that they meet soon; null when none can go on.
Thread* choose() {
  if (!ready_warps) return nullptr;
  const uint64_t random = random_number();
  if (!(ready_warps >> present_warp & 1) || (random & 7) == 0) {
    const int first = static_cast<int>(random >> 8 & 31);
    present_warp = (std::countr_zero(std::rotr(ready_warps, first)) + first) & 31;
  }
  Warp& warp = block.warps[present_warp];
  const int lane = (std::countr_zero(std::rotr(warp.ready, warp.first_lane)) + warp.first_lane) & 31;
  warp.ready &= ~(1u << lane);
  if (!warp.ready) ready_warps &= ~(1u << present_warp);
  return &block.all[present_warp * 32 + lane];
}

/// Suspends `me` until it is made ready.
void run_another() {
  Thread* from = me;
  Thread* to = choose();
  if (to == from) return;
  me = to;
  switch_fiber(from->fiber, to ? to->fiber : main_fiber);
}

std::string place_of(const Thread& t) {
  return "thread " + std::to_string(t.index) +
         (t.finished   ? " has returned"
          : t.waits_at ? " is at " + t.waits_at->place
                       : " runs on");
}

void leave() {
  Thread& t = *me;
  if (!t.copies.empty())
    fault("NOT_WAITED", *t.copies.front().site, "it ends with copies of cp_async that it never waited for");
  check_mma_done();
  if (block.launch->shape.pdl && !t.pdl_waited)
    throw Error("TOO_EARLY", describe_thread() + ": it ends without having waited for the launches before");
  t.finished = true;
  t.warp->finished |= 1u << t.lane;
  if (t.warp->finished == ~0u) t.warp->log.close(site_traffic());
  alive--;
  for (const WarpCall& call : t.warp->calls)
    if (call.mask >> t.lane & 1)
      fault("DIVERGENT_WARP", *call.site, std::string("it returned while others of its warp are at ") + call.name);
  if (at_barrier > 0) fault("DIVERGENT_BARRIER", *barrier_site, "it returned while others wait at sync_block");
}

void entry() {
  entered();
  try {
    block.launch->run_thread(block.launch->kernel_and_arguments);
    leave();
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    Thread* from = std::exchange(me, nullptr);
    switch_fiber(from->fiber, main_fiber);
  }
  run_another();
  std::abort();  // a thread that has left is never made ready
}

void check_shape(const Launch& l) {
  const auto& s = l.shape;
  auto refuse = [&](const std::string& why) { throw Error("LAUNCH", l.kernel + ": " + why); };
  if (s.grid_x < 1 || s.grid_y < 1 || s.grid_z < 1 || s.grid_y > 65535 || s.grid_z > 65535) refuse("grid out of range");
  if (s.threads < 32 || s.threads > kMaxThreads || s.threads % 32) refuse("threads: " + std::to_string(s.threads));
  if (s.threads > l.max_threads)
    refuse(std::to_string(s.threads) + " threads, its launch bound is " + std::to_string(l.max_threads));
  if (s.shared_bytes < 0 || s.shared_bytes > shared_limit)
    refuse(std::to_string(s.shared_bytes) + " bytes of shared memory, the device has " + std::to_string(shared_limit));
  if (me) refuse("launched by a kernel");
}

void prepare_block(int64_t number) {
  const auto& s = block.launch->shape;
  block.run = next_run++;
  if (next_run > kMaxRun) throw Error("LAUNCH", "more blocks in one process than stamps can number");
  block.x = static_cast<int>(number % s.grid_x);
  block.y = static_cast<int>(number / s.grid_x % s.grid_y);
  block.z = static_cast<int>(number / s.grid_x / s.grid_y);
  block.clock = block.barrier = 0;
  block.visible.clear();
  for (int w = 0; w < s.threads / 32; w++) {
    Warp& warp = block.warps[w];
    warp.index = w;
    warp.ready = ~0u;
    warp.finished = warp.barrier = 0;
    warp.first_lane = static_cast<int>(random_number() >> 20 & 31);
    warp.calls.clear();
    warp.partly = false;
  }
  for (int i = 0; i < s.threads; i++) {
    Thread& t = block.all[i];
    if (!t.fiber.stack) block.stacks.give(t.fiber);
    t.index = i;
    t.lane = i % 32;
    t.warp = &block.warps[i / 32];
    t.clock = 0;
    t.finished = t.fenced = false;
    t.waits_at = nullptr;
    t.copies.clear();
    t.groups.clear();
    t.mma.clear();
    t.mma_groups.clear();
    t.accumulators_in_flight.clear();
    t.registers_fenced = t.pdl_waited = false;
    t.mma_issued = 0;
    t.mma_fences.clear();
    t.taken.clear();
    t.visible.clear();
    prepare(t.fiber, entry);
  }
  ready_warps = s.threads == kMaxThreads ? ~0u : (1u << s.threads / 32) - 1;
  present_warp = 0;
  alive = s.threads;
  at_barrier = 0;
  clear_shared();
}

/// Everyone left waits for someone.
[[noreturn]] void tell_deadlock() {
  Thread* first = nullptr;
  std::string others;
  for (int i = 0; i < block.threads; i++) {
    Thread& t = block.all[i];
    if (!first && !t.finished) first = &t;
    if (first && &t != first && (t.finished || t.waits_at != first->waits_at) && others.size() < 200)
      others += (others.empty() ? "" : ", ") + place_of(t);
  }
  for (int i = 0; i < block.threads && others.empty(); i++)
    if (&block.all[i] != first) others = place_of(block.all[i]);
  me = first;
  const char* code = at_barrier > 0 ? "DIVERGENT_BARRIER" : "DIVERGENT_WARP";
  fault(code, *first->waits_at, "it waits for ever: " + others);
}

void run_block(int64_t number) {
  prepare_block(number);
  describe_own_stack(main_fiber);
  me = choose();
  switch_fiber(main_fiber, me->fiber);
  if (error) std::rethrow_exception(std::exchange(error, nullptr));
  if (alive > 0) tell_deadlock();
  block.runs_done++;
}

}  // namespace

uint64_t random_number() {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}
uint64_t orders() {
  const char* set = std::getenv("SDAR_CUDA_ORDERS");
  return set ? std::strtoull(set, nullptr, 10) : 3;
}

void set_seed(uint64_t value) {
  seed = value;
  state = seed * 0x9E3779B97F4A7C15u | 1;
}
void set_shared_limit(int bytes) { shared_limit = bytes; }
bool has_warpgroups() { return true; }
bool running() { return me != nullptr; }

std::string describe_thread() {
  auto text = [](int n) { return std::to_string(n); };
  return block.launch->kernel + ", block (" + text(block.x) + ", " + text(block.y) + ", " + text(block.z) +
         "), thread " + text(me->index);
}

void fault(const char* code, const Site& site, const std::string& what) {
  throw Error(code, describe_thread() + ", " + site.place + ": " + what);
}

void execute(const Launch& launch) {
  const std::lock_guard lock(one_launch);
  check_shape(launch);
  const auto& s = launch.shape;
  block.launch = &launch;
  block.threads = s.threads;
  block.first_run = next_run;
  block.runs_done = 0;
  if (block.all.empty()) {
    block.all.resize(kMaxThreads);
    block.warps.resize(kMaxThreads / 32);
  }
  order.resize(static_cast<size_t>(s.grid_x) * s.grid_y * s.grid_z);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random_number() % i]);
  enter_kernel(launch.kernel, seed);
  begin_report(launch.kernel, static_cast<int64_t>(order.size()), s.threads, s.shared_bytes);
  try {
    for (const int64_t number : order) run_block(number);
  } catch (...) {
    me = nullptr;
    throw;
  }
  end_report();
}

void block_barrier(const Site& site) {
  if (at_barrier > 0 && barrier_site != &site && barrier_site->place != site.place)
    fault("DIVERGENT_BARRIER", site, "others of its block are at the sync_block of " + barrier_site->place);
  if (alive < block.threads) fault("DIVERGENT_BARRIER", site, "sync_block, but threads of its block have returned");
  barrier_site = &site;
  me->waits_at = &site;
  if (++at_barrier < block.threads) return run_another();
  at_barrier = 0;
  counters().barriers++;
  block.barrier = ++block.clock;
  if (block.clock > kMaxClock) fault("LAUNCH", site, "more synchronisations than stamps can number");
  for (int i = 0; i < block.threads; i++) {
    Thread& t = block.all[i];
    t.clock = block.clock;
    t.waits_at = nullptr;
    if (t.visible.empty()) continue;
    block.visible.insert(block.visible.end(), t.visible.begin(), t.visible.end());
    t.visible.clear();
  }
  for (int w = 0; w < block.threads / 32; w++) {
    block.warps[w].log.close(site_traffic());
    block.warps[w].first_lane = static_cast<int>(random_number() >> 20 & 31);
    make_ready(block.warps[w], ~0u);
  }
  run_another();
}

void meet(const Site& site, const char* name, uint32_t mask, void* arguments,
          void (*compute)(void* const* arguments, uint32_t mask)) {
  Thread& t = *me;
  Warp& warp = *t.warp;
  const uint32_t bit = 1u << t.lane;
  if (!(mask & bit)) fault("WRONG_MASK", site, std::string(name) + ": its own lane is not in the mask");
  if (mask & warp.finished) fault("WRONG_MASK", site, std::string(name) + ": lanes of the mask have returned");
  WarpCall* call = nullptr;
  for (WarpCall& other : warp.calls) {
    if (!(other.mask & mask)) continue;
    if (!(other.mask & bit) || other.mask != mask)
      fault("WRONG_MASK", site,
            std::string(name) + ": other lanes of its mask are at " + other.name + " of " + other.site->place +
                " with another mask");
    if (other.site->place != site.place || other.name != name)
      fault("DIVERGENT_WARP", site,
            std::string(name) + ", but lanes of its mask are at " + other.name + " of " + other.site->place);
    call = &other;
  }
  if (!call) {
    warp.calls.push_back({&site, name, mask, 0, {}});
    call = &warp.calls.back();
  }
  call->arguments[t.lane] = arguments;
  call->arrived |= bit;
  t.waits_at = &site;
  if (call->arrived != mask) return run_another();
  compute(call->arguments, mask);
  *call = warp.calls.back();
  warp.calls.pop_back();
  if (mask == ~0u) warp.log.close(site_traffic());
  warp.first_lane = static_cast<int>(random_number() >> 20 & 31);
  make_ready(warp, mask);
  run_another();
}

void warp_barrier(const Site& site, uint32_t mask) {
  meet(site, "sync_warp", mask, nullptr, [](void* const*, uint32_t m) {
    Warp& warp = *me->warp;
    const uint32_t clock = ++block.clock;
    if (m == ~0u) {
      warp.barrier = clock;
      for (int lane = 0; lane < 32; lane++) block.all[warp.index * 32 + lane].clock = clock;
      return;
    }
    if (!std::exchange(warp.partly, true))
      for (auto& row : warp.seen) std::fill(std::begin(row), std::end(row), 0u);
    for (int other = 0; other < 32; other++) {
      uint32_t latest = 0;
      for (int lane = 0; lane < 32; lane++)
        if (m >> lane & 1) latest = std::max(latest, warp.seen[lane][other]);
      if (m >> other & 1) latest = clock;
      for (int lane = 0; lane < 32; lane++)
        if (m >> lane & 1) warp.seen[lane][other] = latest;
    }
    for (int lane = 0; lane < 32; lane++)
      if (m >> lane & 1) block.all[warp.index * 32 + lane].clock = clock;
  });
}

bool precedes(uint64_t stamp_bits) {
  const Stamp stamp{stamp_bits};
  if (stamp.clock() < block.barrier) return true;
  const uint32_t thread = stamp.thread();
  if (stamp.readers() == kOneThread && thread == static_cast<uint32_t>(me->index)) return true;
  if (stamp.readers() > kOneWarp || static_cast<int>(thread / 32) != me->warp->index) return false;
  const Warp& warp = *me->warp;
  if (stamp.clock() < warp.barrier) return true;
  if (!warp.partly) return false;
  if (stamp.readers() == kOneThread) return stamp.clock() < warp.seen[me->lane][thread % 32];
  return stamp.clock() < *std::min_element(std::begin(warp.seen[me->lane]), std::end(warp.seen[me->lane]));
}

}  // namespace sdar::cuda_host
