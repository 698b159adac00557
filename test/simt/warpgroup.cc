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

/// Where 8 values of token `row` of a tile lie, from k = 8 · part: bits 4 and 5 of the address are swapped by bits
/// 7, 8.
int64_t address(const Product& p, int tile, int row, int part) {
  const int64_t at = p.first + int64_t{tile} * p.stride + row * 64 + part * 16;
  return at ^ (at >> 3 & 0x30);
}

/// Source: PTX ISA, "Matrix Descriptor Format".
void read_descriptor(Product& p) {
  const uint64_t bits = p.descriptor;
  const auto field = [&](int first, int count) { return static_cast<int>(bits >> first & ((1u << count) - 1)); };
  p.first = field(0, 14) << 4;
  p.stride = field(32, 14) << 4;
  if (field(62, 2) != 2 || field(49, 3) != 0 || field(14, 2) || field(30, 2) || field(46, 3) || field(52, 10))
    fault("MISALIGNED", *p.site, "warpgroup_mma: a descriptor that is not of 64-byte swizzling without base offset");
}

void check_operand(const Product& p) {
  if (p.first % 512 != 0 && p.first % 512 != 32)
    fault("MISALIGNED", *p.site, "warpgroup_mma: tokens at shared " + std::to_string(p.first));
  if (p.stride % 512 != 0) fault("MISALIGNED", *p.site, "warpgroup_mma: tiles " + std::to_string(p.stride) + " apart");
  for (int tile = 0; tile < p.tiles; tile++) {
    for (int row = 0; row < 8; row++) {
      for (int part = 0; part < 2; part++) check_for_products(*p.site, address(p, tile, row, part));
    }
  }
}

/// The sums as they will be; `d` holds poison while products of it are under way.
std::vector<float>& sums_under_way(Thread& t, const Product& p) {
  for (Thread::Sums& s : t.sums_under_way) {
    if (s.d == p.d) return s.values;
  }
  t.sums_under_way.push_back({p.d, std::vector<float>(p.d, p.d + p.tiles * 4)});
  for (int i = 0; i < p.tiles * 4; i++) p.d[i] = std::bit_cast<float>(kPoison);
  return t.sums_under_way.back().values;
}

/// The product that each lane of a warp issued first.
void compute(Thread* lanes) {
  const Product& p = lanes[0].products.front();
  float a[16][16];
  for (int lane = 0; lane < 32; lane++) {
    const Product& mine = lanes[lane].products.front();
    if (std::memcmp(mine.a, mine.a_issued, sizeof mine.a_issued) != 0)
      fault("NOT_WAITED", *mine.site, "warpgroup_mma: its first operand was written while it was under way");
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
        read_for_products(*p.site, address(p, tile, row, part), bits);
        for (int i = 0; i < 8; i++) b[part * 8 + i][row] = bf16_to_f32(bits[i]);
      }
    }
    float sum[16][8];
    for (int lane = 0; lane < 32; lane++) {
      const Product& mine = lanes[lane].products.front();
      const float* from = &sums_under_way(lanes[lane], mine)[static_cast<size_t>(tile) * 4];
      for (int i = 0; i < 4; i++) sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = p.accumulate ? from[i] : 0.0f;
    }
    for (int r = 0; r < 16; r++)
      for (int k = 0; k < 16; k++)
        for (int c = 0; c < 8; c++) sum[r][c] += a[r][k] * b[k][c];
    for (int lane = 0; lane < 32; lane++) {
      float* to = &sums_under_way(lanes[lane], lanes[lane].products.front())[static_cast<size_t>(tile) * 4];
      for (int i = 0; i < 4; i++) to[i] = sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
  }
  counters().mma_bf16 += p.tiles;
}

/// Sums of which no product is under way any more go to their registers.
void deliver(Thread& t, const Site& site) {
  std::erase_if(t.sums_under_way, [&](const Thread::Sums& s) {
    for (const Product& p : t.products)
      if (p.d == s.d) return false;
    for (size_t i = 0; i < s.values.size(); i++) {
      if (std::bit_cast<uint32_t>(s.d[i]) != kPoison)
        fault("NOT_WAITED", site, "warpgroup_wait: the sums were written while products were under way");
      s.d[i] = s.values[i];
    }
    return true;
  });
}

}  // namespace

void issue_product(const Site& site, const Product& product) {
  Product p = product;
  p.site = &site;
  read_descriptor(p);
  std::memcpy(p.a_issued, p.a, sizeof p.a_issued);
  meet(site, "warpgroup_mma", ~0u, &p, [](void* const* all, uint32_t) {
    Thread* lanes = &block.all[me->warp->index * 32];
    const auto& first = *static_cast<Product*>(all[0]);
    if (block.threads % 128 != 0) fault("DIVERGENT_WARP", *first.site, "warpgroup_mma: the block has no whole groups");
    check_operand(first);
    for (int lane = 0; lane < 32; lane++) {
      const auto& mine = *static_cast<Product*>(all[lane]);
      if (!lanes[lane].registers_fenced)
        fault("NOT_FENCED", *mine.site, "warpgroup_mma without a warpgroup_fence since registers were waited for");
      if (mine.first != first.first || mine.stride != first.stride || mine.accumulate != first.accumulate)
        fault("DIVERGENT_WARP", *mine.site, "warpgroup_mma: lanes name different operands");
      sums_under_way(lanes[lane], mine);
      lanes[lane].products.push_back(mine);
      lanes[lane].products_issued++;
    }
  });
}

void commit_products(const Site& site) {
  meet(site, "warpgroup_commit", ~0u, nullptr, [](void* const*, uint32_t) {
    for (int lane = 0; lane < 32; lane++) {
      Thread& t = block.all[me->warp->index * 32 + lane];
      t.product_groups.push_back(static_cast<uint32_t>(t.products.size()));
    }
  });
}

void wait_for_products(const Site& site, int pending) {
  struct Arguments {
    const Site* site;
    int pending;
  } mine{&site, pending};
  meet(site, "warpgroup_wait", ~0u, &mine, [](void* const* all, uint32_t) {
    const auto& [at, most] = *static_cast<Arguments*>(all[0]);
    Thread* lanes = &block.all[me->warp->index * 32];
    for (int lane = 0; lane < 32; lane++) lanes[lane].registers_fenced = false;
    const size_t groups = lanes[0].product_groups.size();
    if (groups <= static_cast<size_t>(most)) return;
    const uint32_t done = lanes[0].product_groups[groups - static_cast<size_t>(most) - 1];
    for (uint32_t i = 0; i < done; i++) {
      compute(lanes);
      for (int lane = 0; lane < 32; lane++) lanes[lane].products.erase(lanes[lane].products.begin());
    }
    for (int lane = 0; lane < 32; lane++) {
      auto& left = lanes[lane].product_groups;
      left.erase(left.begin(), left.end() - most);
      for (uint32_t& end : left) end -= done;
      deliver(lanes[lane], *at);
    }
  });
}

void fence_registers() { me->registers_fenced = true; }

void check_products_done() {
  const Thread& t = *me;
  if (!t.products.empty())
    fault("NOT_WAITED", *t.products.front().site, "it ends with products of its warpgroup that it never waited for");
  const int group = t.warp->index / 4 * 4;
  for (int warp = group; warp < group + 4 && warp < block.threads / 32; warp++) {
    const Thread& other = block.all[warp * 32];
    if (other.finished && other.products_issued != t.products_issued)
      throw Error("DIVERGENT_WARP", block.launch->kernel + ": warps of a group issued " +
                                        std::to_string(other.products_issued) + " and " +
                                        std::to_string(t.products_issued) + " products");
  }
}

}  // namespace sdar::cuda_host
