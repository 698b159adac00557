// A keyed hash as fast as memory, to tell contents apart: NH of UMAC (Black et al. 1999, "UMAC: Fast and Secure Message
// Authentication"), applied until one value is left. Two given texts collide for one key in 2^60; who does not know the
// key cannot make texts that do.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sdar {

struct Hash {
  uint64_t low = 0, high = 0;

  bool operator==(const Hash&) const = default;
  /// 32 digits.
  std::string hex() const;
};

Hash hash_bytes(std::span<const std::byte> bytes, uint64_t key);
Hash hash_text(std::string_view text, uint64_t key);

/// 16 digits.
std::string hex(uint64_t value);

/// A key that nobody can guess.
uint64_t random_key();

}  // namespace sdar
