// Call sites of the device layer: where an access is, for messages and counters, and which one a mutation run changes.
//   SDAR_SITES=file: at exit the changeable sites of native/ are written to it, a line "site KERNEL KIND PLACE" for each
//     kernel that reached one, and a line "order KERNEL SEED" for each order of fibers that a kernel ran in.
//   SDAR_MUTANT="KERNEL PLACE CHANGE": this kernel does without the check, or with another bound.
#pragma once
#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

namespace sdar::cuda_host {

/// What a site is of; an `access` is never changed.
enum class SiteKind : uint8_t {
  access,
  barrier,
  warp_barrier,
  wait,
  commit,
  fence,
  bound,
  guard,
  full_mask,
  part_mask
};
const char* name_of(SiteKind kind);

/// drop: the check is not made, all threads pass. Of a bound: one `more` or `less` passes. Of a wait: one `more` group
/// may be in flight. Of a full mask: half of the lanes are in it, `less`.
enum class Change : uint8_t { none, drop, more, less };

struct Site {
  std::string place;  ///< native/backend/cuda/embed.cu:21:8
  SiteKind kind = SiteKind::access;
  Change change = Change::none;  ///< of the kernel that runs
  uint16_t index = 0;
  uint64_t kernels = 0;  ///< that reached it; bit i: the i-th that was launched
  bool dropped() const { return change == Change::drop; }
};

/// The site of a call; registered at its first use.
Site& site_at(std::source_location at, SiteKind kind = SiteKind::access);
const Site& site_number(uint16_t index);
size_t site_count();

/// `kernel` (as in SDAR_LAUNCH: "(gemm_kernel<format, 8>)") begins to run in this order.
void enter_kernel(const std::string& kernel, uint64_t seed);

}  // namespace sdar::cuda_host
