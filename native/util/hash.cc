#include "util/hash.h"

#include <array>
#include <bit>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace sdar {
namespace {

static_assert(std::endian::native == std::endian::little, "words are hashed as they lie in memory");
__extension__ using Wide = unsigned __int128;

constexpr size_t kWords = 128;  // of a block
constexpr size_t kBlock = kWords * sizeof(uint64_t);
using Keys = std::array<uint64_t, kWords>;

/// splitmix64: https://prng.di.unimi.it/splitmix64.c
uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

Keys keys_of(uint64_t key, uint64_t level) {
  Keys keys;
  uint64_t state = mix(key + 0x9e3779b97f4a7c15u) + level;
  for (uint64_t& k : keys) k = mix(state += 0x9e3779b97f4a7c15u);
  return keys;
}

Hash nh(const std::byte* block, const Keys& keys) {
  Wide even = 0, odd = 0;  // two chains of additions
  for (size_t i = 0; i < kWords; i += 4) {
    uint64_t w[4];
    std::memcpy(w, block + i * sizeof(uint64_t), sizeof w);
    even += static_cast<Wide>(w[0] + keys[i]) * (w[1] + keys[i + 1]);
    odd += static_cast<Wide>(w[2] + keys[i + 2]) * (w[3] + keys[i + 3]);
  }
  const Wide sum = even + odd;
  return {static_cast<uint64_t>(sum), static_cast<uint64_t>(sum >> 64)};
}

/// One value for each block, the last of which is filled up with zeros.
std::vector<Hash> hash_blocks(std::span<const std::byte> bytes, const Keys& keys) {
  std::vector<Hash> values;
  values.reserve(bytes.size() / kBlock + 1);
  for (; bytes.size() >= kBlock; bytes = bytes.subspan(kBlock)) values.push_back(nh(bytes.data(), keys));
  if (!bytes.empty() || values.empty()) {
    std::byte last[kBlock] = {};
    if (!bytes.empty()) std::memcpy(last, bytes.data(), bytes.size());
    values.push_back(nh(last, keys));
  }
  return values;
}

}  // namespace

Hash hash_bytes(std::span<const std::byte> bytes, uint64_t key) {
  std::vector<Hash> values = hash_blocks(bytes, keys_of(key, 0));
  for (uint64_t level = 1; values.size() > 1; level++)
    values = hash_blocks(std::as_bytes(std::span(values)), keys_of(key, level));
  const uint64_t low = mix(values[0].low ^ mix(bytes.size() + 1));
  return {low, mix(values[0].high + low)};
}

Hash hash_text(std::string_view text, uint64_t key) {
  return hash_bytes(std::as_bytes(std::span(text.data(), text.size())), key);
}

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string Hash::hex() const { return sdar::hex(high) + sdar::hex(low); }

uint64_t random_key() {
  std::random_device random;
  return static_cast<uint64_t>(random()) << 32 | random();
}

}  // namespace sdar
