// Counter-based random numbers: a pure function of who asks, so that a request's samples depend on nothing else in the
// batch. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32-10 of Random123).
#pragma once
#include <cstdint>

#include "util/host_device.h"

namespace sdar {

struct PhiloxWords {
  uint32_t w[4];
};

SDAR_HOST_DEVICE inline PhiloxWords philox4x32_10(PhiloxWords counter, uint64_t key) {
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter.w[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter.w[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.w[1] ^ key0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.w[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// In [0, 1), a multiple of 2^-53. `position` is absolute, `step` counts within the block, `completion` is the index
/// among `n`.
SDAR_HOST_DEVICE inline double philox_uniform(uint64_t seed, int32_t position, int32_t step, int32_t completion) {
  const PhiloxWords words = philox4x32_10(
      {{static_cast<uint32_t>(position), static_cast<uint32_t>(step), static_cast<uint32_t>(completion), 0}}, seed);
  const uint64_t bits = uint64_t{words.w[0]} << 32 | words.w[1];
  return static_cast<double>(bits >> 11) * (1.0 / 9007199254740992.0);
}

}  // namespace sdar
