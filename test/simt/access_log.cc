#include "simt/access_log.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sdar::cuda_host {
namespace {

/// Passes of one warp: 4-byte accesses together, 8-byte ones by half warps, 16-byte ones by quarters. In a pass, each
/// bank of 4 bytes gives one word.
int passes(const uint64_t* address, uint32_t lanes, uint32_t bytes) {
  const int lanes_per_pass = bytes <= 4 ? 32 : static_cast<int>(128 / bytes);
  int total = 0;
  for (int first = 0; first < 32; first += lanes_per_pass) {
    uint64_t words[32][32];
    int count[32] = {}, worst = 0;
    for (int lane = first; lane < first + lanes_per_pass; lane++) {
      if (!(lanes >> lane & 1)) continue;
      for (uint64_t word = address[lane] / 4; word <= (address[lane] + bytes - 1) / 4; word++) {
        const int bank = static_cast<int>(word % 32);
        if (std::find(words[bank], words[bank] + count[bank], word) != words[bank] + count[bank]) continue;
        words[bank][count[bank]++] = word;
        worst = std::max(worst, count[bank]);
      }
    }
    total += worst;
  }
  return total;
}

/// As many as there must be for the lanes that take part.
int least_passes(uint32_t lanes, uint32_t bytes) {
  const int lanes_per_pass = bytes <= 4 ? 32 : static_cast<int>(128 / bytes);
  int total = 0;
  for (int first = 0; first < 32; first += lanes_per_pass) {
    const uint32_t group = lanes_per_pass == 32 ? ~0u : ((1u << lanes_per_pass) - 1) << first;
    total += (lanes & group) != 0;
  }
  return total;
}

}  // namespace

void AccessLog::add(uint16_t site, bool shared, int lane, uint64_t address, uint32_t bytes) {
  const uint32_t key = 2u * site + shared;
  if (key >= sites_.size()) sites_.resize(key + 64);
  PerSite& s = sites_[key];
  const uint32_t k = s.count[lane]++;
  if (k == s.used) {
    if (k == 0) touched_.push_back(key);
    if (k == s.accesses.size()) s.accesses.emplace_back();
    s.accesses[k].lanes = 0;
    s.used++;
  }
  Access& a = s.accesses[k];
  a.lanes |= 1u << lane;
  a.bytes = bytes;
  a.address[lane] = address;
}

void AccessLog::close(std::vector<SiteTraffic>& traffic) {
  for (const uint32_t key : touched_) {
    PerSite& s = sites_[key];
    if (key >= traffic.size()) traffic.resize(key + 64);
    SiteTraffic& t = traffic[key];
    for (size_t i = 0; i < s.used; i++) {
      const Access& a = s.accesses[i];
      t.accesses++;
      if (key % 2) {
        t.units += passes(a.address, a.lanes, a.bytes);
        t.least += least_passes(a.lanes, a.bytes);
        continue;
      }
      uint64_t sectors[32];
      int count = 0;
      for (int lane = 0; lane < 32; lane++)
        if (a.lanes >> lane & 1) sectors[count++] = a.address[lane] / 32;
      std::sort(sectors, sectors + count);
      t.units += std::unique(sectors, sectors + count) - sectors;
      t.least += (static_cast<int64_t>(count) * a.bytes + 31) / 32;
    }
    s.used = 0;
    std::memset(s.count, 0, sizeof s.count);
  }
  touched_.clear();
}

}  // namespace sdar::cuda_host
