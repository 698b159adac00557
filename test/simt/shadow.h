// What is known of each 4-byte word of memory: who last wrote and read it, and when. A stamp holds
//   run (28 bits: number of the block's run, over all launches) | clock (19) | thread (10) | atomic (1) | readers (2) |
//   bytes (4: which of the word).
// A thread's clock is the number of synchronisations in its block at its own latest one. An access A precedes a later B
// of another thread if a barrier that both took part in lies between them: A's clock is below that of B's latest
// barrier. Writes of separate bytes of one word keep only the last writer.
#pragma once
#include <cstdint>

namespace sdar::cuda_host {

enum Readers : uint32_t { kOneThread, kOneWarp, kOneBlock, kManyBlocks };
constexpr uint32_t kMaxClock = (1u << 19) - 1;
constexpr uint64_t kMaxRun = (1u << 28) - 1;

struct Stamp {
  uint64_t bits = 0;
  static Stamp make(uint64_t run, uint32_t clock, uint32_t thread) {
    return {run << 36 | uint64_t{clock} << 17 | uint64_t{thread} << 7};
  }
  uint64_t run() const { return bits >> 36; }
  uint32_t clock() const { return static_cast<uint32_t>(bits >> 17) & kMaxClock; }
  uint32_t thread() const { return static_cast<uint32_t>(bits >> 7) & 1023u; }
  bool atomic() const { return bits >> 6 & 1; }
  Readers readers() const { return static_cast<Readers>(bits >> 4 & 3); }
  uint32_t bytes() const { return static_cast<uint32_t>(bits) & 15u; }
  Stamp with(uint32_t bytes, Readers readers = kOneThread, bool is_atomic = false) const {
    return {bits | uint64_t{is_atomic} << 6 | uint64_t{readers} << 4 | bytes};
  }
};

struct Shadow {
  Stamp write, read;
  uint16_t write_site = 0, read_site = 0;
};

/// One bit per byte of memory. An access of 1, 2, 4, 8 or 16 bytes, aligned:
inline uint32_t access_bits(uint64_t first, uint32_t bytes) { return ((1u << bytes) - 1) << (first % 8); }
inline bool access_set(const uint8_t* map, uint64_t first, uint32_t bytes) {
  const uint32_t wanted = access_bits(first, bytes);
  const uint32_t held = map[first / 8] | (bytes == 16 ? map[first / 8 + 1] << 8 : 0u);
  return (held & wanted) == wanted;
}
inline void set_access(uint8_t* map, uint64_t first, uint32_t bytes) {
  map[first / 8] = static_cast<uint8_t>(map[first / 8] | access_bits(first, bytes));
  if (bytes == 16) map[first / 8 + 1] = 0xff;
}
/// Any range:
inline bool bits_set(const uint8_t* map, uint64_t first, uint32_t count) {
  for (uint64_t i = first; i < first + count;) {
    if (i % 8 == 0 && count - (i - first) >= 8) {
      if (map[i / 8] != 0xff) return false;
      i += 8;
    } else {
      if (!(map[i / 8] >> (i % 8) & 1)) return false;
      i++;
    }
  }
  return true;
}
inline void set_bits(uint8_t* map, uint64_t first, uint64_t count, bool on) {
  for (uint64_t i = first; i < first + count;) {
    if (i % 8 == 0 && count - (i - first) >= 8) {
      map[i / 8] = on ? 0xff : 0;
      i += 8;
    } else {
      const uint8_t bit = static_cast<uint8_t>(1u << (i % 8));
      map[i / 8] = static_cast<uint8_t>(on ? map[i / 8] | bit : map[i / 8] & ~bit);
      i++;
    }
  }
}

}  // namespace sdar::cuda_host
