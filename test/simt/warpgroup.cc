#include "simt/warpgroup.h"

#include <bit>
#include <cstring>
#include <string>

#include "simt/executor.h"
#include "simt/report.h"
#include "simt/shared_memory.h"
#include "util/error.h"
#include "util/half.h"

namespace sdar::cuda_host {
namespace {

constexpr uint32_t kPoison = 0xffffffffu;  // a NaN

/// Where 8 values of token `row` of a tile lie, from k = 8 · part: bits 4 and 5 of the address are swapped by bits 7, 8.
int64_t address(const WarpgroupMma& p, int tile, int row, int part) {
  const int64_t at = p.first + int64_t{tile} * p.stride + row * 64 + part * 16;
  return at ^ (at >> 3 & 0x30);
}

/// Source: PTX ISA, "Matrix Descriptor Format".
void read_descriptor(WarpgroupMma& p) {
  const uint64_t bits = p.descriptor;
  const auto field = [&](int first, int count) { return static_cast<int>(bits >> first & ((1u << count) - 1)); };
  p.first = field(0, 14) << 4;
  p.stride = field(32, 14) << 4;
  if (field(62, 2) != 2 || field(49, 3) != 0 || field(14, 2) || field(30, 2) || field(46, 3) || field(52, 10))
    fault("MISALIGNED", *p.site, "warpgroup_mma: a descriptor that is not of 64-byte swizzling without base offset");
}

void check_operand(const WarpgroupMma& p) {
  if (p.first % 512 != 0 && p.first % 512 != 32)
    fault("MISALIGNED", *p.site, "warpgroup_mma: tokens at shared " + std::to_string(p.first));
  if (p.stride % 512 != 0) fault("MISALIGNED", *p.site, "warpgroup_mma: tiles " + std::to_string(p.stride) + " apart");
  for (int tile = 0; tile < p.tiles; tile++) {
    for (int row = 0; row < 8; row++) {
      for (int part = 0; part < 2; part++) check_for_mma(*p.site, address(p, tile, row, part));
    }
  }
}

/// The accumulators as they will be; `d` holds poison while an MMA of it is in flight.
std::vector<float>& accumulators_in_flight(Thread& t, const WarpgroupMma& p) {
  for (Thread::Accumulators& s : t.accumulators_in_flight) {
    if (s.d == p.d) return s.values;
  }
  t.accumulators_in_flight.push_back({p.d, std::vector<float>(p.d, p.d + p.tiles * 4)});
  for (int i = 0; i < p.tiles * 4; i++) p.d[i] = std::bit_cast<float>(kPoison);
  return t.accumulators_in_flight.back().values;
}

/// The MMA that each lane of a warp issued first.
void compute(Thread* lanes) {
  const WarpgroupMma& p = lanes[0].mma.front();
  float a[16][16];
  for (int lane = 0; lane < 32; lane++) {
    const WarpgroupMma& mine = lanes[lane].mma.front();
    if (std::memcmp(mine.a, mine.a_issued, sizeof mine.a_issued) != 0)
      fault("NOT_WAITED", *mine.site, "warpgroup_mma: its first operand was written while it was in flight");
    for (int i = 0; i < 4; i++) {
      float* to = &a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8];
      to[0] = bf16_to_f32(static_cast<uint16_t>(mine.a[i]));
      to[1] = bf16_to_f32(static_cast<uint16_t>(mine.a[i] >> 16));
    }
  }
  for (int tile = 0; tile < p.tiles; tile++) {
    float b[16][8];
    for (int row = 0; row < 8; row++) {
      for (int part = 0; part < 2; part++) {
        uint16_t bits[8];
        read_for_mma(*p.site, address(p, tile, row, part), bits);
        for (int i = 0; i < 8; i++) b[part * 8 + i][row] = bf16_to_f32(bits[i]);
      }
    }
    float sum[16][8];
    for (int lane = 0; lane < 32; lane++) {
      const WarpgroupMma& mine = lanes[lane].mma.front();
      const float* from = &accumulators_in_flight(lanes[lane], mine)[static_cast<size_t>(tile) * 4];
      for (int i = 0; i < 4; i++) sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = p.accumulate ? from[i] : 0.0f;
    }
    for (int r = 0; r < 16; r++)
      for (int k = 0; k < 16; k++)
        for (int c = 0; c < 8; c++) sum[r][c] += a[r][k] * b[k][c];
    for (int lane = 0; lane < 32; lane++) {
      float* to = &accumulators_in_flight(lanes[lane], lanes[lane].mma.front())[static_cast<size_t>(tile) * 4];
      for (int i = 0; i < 4; i++) to[i] = sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
  }
  counters().mma_bf16 += p.tiles;
}

/// Accumulators of which no MMA is in flight any more go to their registers.
void deliver(Thread& t, const Site& site) {
  std::erase_if(t.accumulators_in_flight, [&](const Thread::Accumulators& s) {
    for (const WarpgroupMma& p : t.mma)
      if (p.d == s.d) return false;
    for (size_t i = 0; i < s.values.size(); i++) {
      if (std::bit_cast<uint32_t>(s.d[i]) != kPoison)
        fault("NOT_WAITED", site, "warpgroup_wait: the accumulators were written while an MMA was in flight");
      s.d[i] = s.values[i];
    }
    return true;
  });
}

}  // namespace

void issue_mma(const Site& site, const WarpgroupMma& mma) {
  WarpgroupMma p = mma;
  p.site = &site;
  read_descriptor(p);
  std::memcpy(p.a_issued, p.a, sizeof p.a_issued);
  meet(site, "warpgroup_mma", ~0u, &p, [](void* const* all, uint32_t) {
    Thread* lanes = &block.all[me->warp->index * 32];
    const auto& first = *static_cast<WarpgroupMma*>(all[0]);
    if (block.threads % 128 != 0) fault("DIVERGENT_WARP", *first.site, "warpgroup_mma: the block has no whole groups");
    check_operand(first);
    for (int lane = 0; lane < 32; lane++) {
      const auto& mine = *static_cast<WarpgroupMma*>(all[lane]);
      if (!lanes[lane].registers_fenced)
        fault("NOT_FENCED", *mine.site, "warpgroup_mma without a warpgroup_fence since registers were waited for");
      if (mine.first != first.first || mine.stride != first.stride || mine.accumulate != first.accumulate)
        fault("DIVERGENT_WARP", *mine.site, "warpgroup_mma: lanes name different operands");
      accumulators_in_flight(lanes[lane], mine);
      lanes[lane].mma.push_back(mine);
      lanes[lane].mma_issued++;
    }
  });
}

void commit_mma(const Site& site) {
  meet(site, "warpgroup_commit", ~0u, nullptr, [](void* const*, uint32_t) {
    for (int lane = 0; lane < 32; lane++) {
      Thread& t = block.all[me->warp->index * 32 + lane];
      t.mma_groups.push_back(static_cast<uint32_t>(t.mma.size()));
    }
  });
}

void wait_for_mma(const Site& site, int pending) {
  struct Arguments {
    const Site* site;
    int pending;
  } mine{&site, pending};
  meet(site, "warpgroup_wait", ~0u, &mine, [](void* const* all, uint32_t) {
    const auto& [at, most] = *static_cast<Arguments*>(all[0]);
    Thread* lanes = &block.all[me->warp->index * 32];
    for (int lane = 0; lane < 32; lane++) lanes[lane].registers_fenced = false;
    const size_t groups = lanes[0].mma_groups.size();
    if (groups <= static_cast<size_t>(most)) return;
    const uint32_t done = lanes[0].mma_groups[groups - static_cast<size_t>(most) - 1];
    for (uint32_t i = 0; i < done; i++) {
      compute(lanes);
      for (int lane = 0; lane < 32; lane++) lanes[lane].mma.erase(lanes[lane].mma.begin());
    }
    for (int lane = 0; lane < 32; lane++) {
      auto& left = lanes[lane].mma_groups;
      left.erase(left.begin(), left.end() - most);
      for (uint32_t& end : left) end -= done;
      deliver(lanes[lane], *at);
    }
  });
}

void fence_registers() { me->registers_fenced = true; }

void check_mma_done() {
  const Thread& t = *me;
  if (!t.mma.empty())
    fault("NOT_WAITED", *t.mma.front().site, "it ends with a warpgroup MMA that it never waited for");
  const int group = t.warp->index / 4 * 4;
  for (int warp = group; warp < group + 4 && warp < block.threads / 32; warp++) {
    const Thread& other = block.all[warp * 32];
    if (other.finished && other.mma_issued != t.mma_issued)
      throw Error("DIVERGENT_WARP", block.launch->kernel + ": warps of a group issued " +
                                        std::to_string(other.mma_issued) + " and " +
                                        std::to_string(t.mma_issued) + " MMAs");
  }
}

}  // namespace sdar::cuda_host
