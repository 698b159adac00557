// The hash that tells contents apart: every byte, its place and the length count, and the key.
#include "util/hash.h"

#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "check.h"

using namespace sdar;

namespace {

std::vector<std::byte> noise(size_t bytes) {
  std::mt19937_64 random(bytes + 1);
  std::vector<std::byte> data(bytes);
  for (auto& b : data) b = static_cast<std::byte>(random());
  return data;
}

}  // namespace

TEST("a changed bit anywhere changes the hash, in texts of every size") {
  std::mt19937_64 random(5);
  for (const size_t size : {1, 7, 8, 1023, 1024, 1025, 16384, 65536, 65537, 3000000}) {
    auto data = noise(size);
    const Hash hash = hash_bytes(data, 1);
    CHECK(hash == hash_bytes(data, 1) && !(hash == hash_bytes(data, 2)));
    for (int i = 0; i < 20; i++) {
      const size_t at = i == 0 ? 0 : i == 1 ? size - 1 : random() % size;
      const auto bit = static_cast<std::byte>(1 << random() % 8);
      data[at] ^= bit;
      CHECK(!(hash_bytes(data, 1) == hash));
      data[at] ^= bit;
    }
  }
}

TEST("zeros of every length differ, and words that change places") {
  std::set<std::string> seen;
  for (size_t size = 0; size < 3000; size++) seen.insert(hash_bytes(std::vector<std::byte>(size), 3).hex());
  CHECK(seen.size() == 3000);
  auto data = noise(1 << 16);
  const Hash hash = hash_bytes(data, 4);
  for (const size_t distance : {8, 16, 1024, 32768}) {
    auto swapped = data;
    std::swap_ranges(swapped.begin(), swapped.begin() + 8, swapped.begin() + static_cast<std::ptrdiff_t>(distance));
    CHECK(!(hash_bytes(swapped, 4) == hash));
  }
}

TEST("sign bits flipped everywhere, which simpler hashes let cancel") {
  auto data = noise(1 << 16);
  const Hash hash = hash_bytes(data, 5);
  for (size_t i = 1; i < data.size(); i += 2) data[i] ^= std::byte{0x80};
  CHECK(!(hash_bytes(data, 5) == hash));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
