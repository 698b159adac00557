// Call sites of the device layer: where an access is, for messages and counters, and which one a mutation run drops.
#pragma once
#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

namespace sdar::cuda_host {

/// What a mutation run drops at a site; `access` is never dropped.
enum class SiteKind : uint8_t { access, barrier, warp_barrier, wait, commit, fence, bound, guard, mask };
const char* name_of(SiteKind kind);

struct Site {
  std::string place;  ///< native/backend/cuda/embed.cu:21:8
  SiteKind kind = SiteKind::access;
  bool dropped = false;  ///< this run is to do without it
  uint16_t index = 0;
};

/// The site of a call; registered at its first use. With SDAR_MUTANT=place[,place…] set, those sites are dropped.
/// With SDAR_SITES=file set, the droppable sites of native/ are written to it at exit, one "kind place" a line.
Site& site_at(std::source_location at, SiteKind kind = SiteKind::access);
const Site& site_number(uint16_t index);
size_t site_count();

}  // namespace sdar::cuda_host
