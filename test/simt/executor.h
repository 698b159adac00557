// Runs a kernel as C++: a fiber per thread, one block after another, both in a seeded random order. Barriers and
// warp-wide functions are rendezvous; what the scalar emulation touches goes through the checks of global.h and shared_memory.h.
// What is wrong is thrown out of the launch as an Error naming kernel, block, thread and place; codes:
//   LAUNCH             shape that no device takes, or beyond the kernel's launch bounds
//   OUT_OF_BOUNDS, MISALIGNED, FREED_MEMORY, UNWRITTEN      of global and shared memory
//   RACE               two accesses, one a write, without a barrier (shared) or arrival (between blocks) between them
//   NOT_WAITED         data of cp_async, or registers or shared memory of a warpgroup MMA, used before the wait for it, or
//                      never waited for
//   TOO_EARLY          a programmatic dependent launch touches, before pdl_wait, what launches write; or a thread of it
//                      ends without pdl_wait
//   NOT_FENCED         a warpgroup MMA without the fence of registers, or of what it reads
//   NOT_COHERENT       load_global_cached or _stream of memory that this launch writes
//   DIVERGENT_BARRIER  threads at different barriers, or gone
//   DIVERGENT_WARP     lanes at different warp-wide functions, or gone
//   WRONG_MASK         a mask without the calling lane, with lanes that are gone or elsewhere, or not the same in all;
//                      stricter than the hardware: lanes may not wait with masks that overlap
// What it cannot see: orders of blocks that wait for one another (none may), and memory that a fence alone orders.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "backend/cuda/kernels/device_types.h"
#include "simt/access_log.h"
#include "simt/fiber.h"
#include "simt/sites.h"
#include "simt/warpgroup.h"

namespace sdar::cuda_host {

struct Warp;

/// One cp_async_16 that has not been waited for.
struct PendingCopy {
  const Site* site = nullptr;
  uint32_t offset = 0;  ///< of shared memory
  uint32_t words[4] = {};
};
/// That everything of block run `run` before its barrier `clock` (and by `thread`) is visible.
struct Release {
  uint64_t run = 0;
  uint32_t clock = 0, thread = 0;
};

struct Thread {
  Fiber fiber;
  int index = 0, lane = 0;
  Warp* warp = nullptr;
  uint32_t clock = 0;
  bool finished = false;
  const Site* waits_at = nullptr;
  std::vector<PendingCopy> copies;       ///< in order of issue
  std::vector<uint32_t> groups;          ///< number of copies at each commit
  std::vector<WarpgroupMma> mma;         ///< in flight, in order of issue
  std::vector<uint32_t> mma_groups;      ///< number of MMAs at each commit
  struct Accumulators {
    float* d;
    std::vector<float> values;
  };
  std::vector<Accumulators> accumulators_in_flight;
  bool pdl_waited = false;            ///< in a programmatic dependent launch
  bool registers_fenced = false;     ///< since they were last waited for
  int64_t mma_issued = 0;
  std::vector<uint32_t> mma_fences;      ///< of its writes, for MMA: its clock at each
  bool fenced = false;                   ///< and nothing stored since
  uint32_t fence_clock = 0;              ///< the block's barrier before the fence
  std::vector<Release> taken, visible;   ///< by atomics, and since a fence
};

/// A warp-wide function that lanes have come to.
struct WarpCall {
  const Site* site = nullptr;
  const char* name = nullptr;
  uint32_t mask = 0, arrived = 0;
  void* arguments[32] = {};
};

struct Warp {
  int index = 0;
  uint32_t ready = 0, finished = 0;
  uint32_t barrier = 0;  ///< clock of the last barrier of all its lanes
  int first_lane = 0;    ///< that goes first
  std::vector<WarpCall> calls;
  bool partly = false;         ///< some sync_warp had a mask: `seen` holds
  uint32_t seen[32][32] = {};  ///< [lane][other]: accesses of `other` with lower clocks precede this lane's
  AccessLog log;
};

struct Launch {
  std::string kernel;
  cuda::LaunchShape shape;
  int max_threads = 0;
  void (*run_thread)(void* kernel_and_arguments) = nullptr;
  void* kernel_and_arguments = nullptr;
};

/// The block that runs.
struct Block {
  const Launch* launch = nullptr;
  uint64_t run = 0, first_run = 0;  ///< number of this block's run, and of the launch's first
  uint64_t runs_done = 0;           ///< blocks of this launch that ended
  int x = 0, y = 0, z = 0;
  int threads = 0;
  uint32_t clock = 0, barrier = 0;  ///< synchronisations so far; the clock of the last barrier of the block
  std::vector<Release> visible;     ///< runs of this launch that are visible to all its threads
  std::vector<Warp> warps;
  std::vector<Thread> all;
  Stacks stacks;
};
extern Block block;
extern Thread* me;  ///< the thread that runs; null outside

void execute(const Launch& launch);
bool running();
/// "scale_kernel, block (3, 0, 0), thread 17"
std::string describe_thread();
[[noreturn]] void fault(const char* code, const Site& site, const std::string& what);

/// All threads of the block meet.
void block_barrier(const Site& site);
/// The lanes of `mask` meet; the last computes for all from each lane's arguments.
void meet(const Site& site, const char* name, uint32_t mask, void* arguments,
          void (*compute)(void* const* arguments, uint32_t mask));
/// Orders memory among the lanes of `mask`.
void warp_barrier(const Site& site, uint32_t mask);

/// Whether the access behind a stamp of this block's run precedes what `me` does now.
bool precedes(uint64_t stamp_bits);

/// The order of fibers and blocks from the next launch on. SDAR_CUDA_SEED sets the first.
void set_seed(uint64_t seed);
uint64_t random_number();
/// How many orders tests run in: SDAR_CUDA_ORDERS, else three.
uint64_t orders();
/// Runs `body` once for each order.
template <class F>
void each_order(F body) {
  for (uint64_t seed = 1; seed <= orders(); seed++) {
    set_seed(seed);
    body();
  }
}
/// Whether warpgroup MMA runs here.
bool has_warpgroups();
/// Bytes of shared memory that a block may have; that of sm_86, sm_89 and sm_120 unless set.
void set_shared_limit(int bytes);

}  // namespace sdar::cuda_host
