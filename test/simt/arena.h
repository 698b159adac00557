// The inside of memory.h: one reserved range of addresses, and what is known of each part of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "simt/shadow.h"

namespace sdar::cuda_host {

struct Traffic {
  int64_t loaded = 0, loaded_once = 0, stored = 0;  ///< bytes; loaded_once counts each word's first load of a launch
  int64_t narrow = 0;                               ///< of `loaded`: by loads of less than 16 bytes
  int narrowest_load = 0;                           ///< bytes; 0: none
};

struct Allocation {
  uint64_t begin = 0, bytes = 0;  ///< as offsets into the arena
  std::string name;
  bool freed = false;
  uint64_t traffic_launch = 0;  ///< the launch that `traffic` is of
  Traffic traffic;
};

constexpr uint64_t kArenaBytes = uint64_t{8} << 30;
constexpr uint64_t kGranule = 256;  // alignment and least distance of allocations

struct Arena {
  std::byte* device = nullptr;  ///< addresses that kernels see, without access
  std::byte* host = nullptr;    ///< the bytes
  Shadow* shadow = nullptr;     ///< per 4 bytes
  uint8_t* live = nullptr;      ///< bit per byte: allocated
  uint8_t* written = nullptr;   ///< bit per byte: stored since
  uint32_t* owner = nullptr;    ///< per granule: allocation number + 1
  std::vector<Allocation> allocations;
  uint64_t next = kGranule;
  uint64_t held = 0, limit = kArenaBytes;

  Arena();
  /// Beyond kArenaBytes when the pointer is none of ours.
  uint64_t offset(const void* p) const { return static_cast<uint64_t>(static_cast<const std::byte*>(p) - device); }
  /// Names the place for a message: "'weights' + 4096 of 4096 bytes", "a host pointer".
  std::string describe(const void* p) const;
  /// The allocation that an address belongs to, or the nearest below; null for a host pointer.
  const Allocation* find(const void* p) const;
};
Arena& arena();

}  // namespace sdar::cuda_host
