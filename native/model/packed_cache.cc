#include "model/packed_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <vector>

#include "util/error.h"
#include "util/machine.h"

namespace sdar {
namespace {

constexpr char kMagic[] = "SDARPACK1\n";
constexpr size_t kChunk = 16 << 20;  // bytes under one checksum
constexpr size_t kPageBytes = 4096;  // the payload begins on a page

/// Four lanes of multiply and rotate: as fast as memory, for damage, not for enemies.
uint64_t checksum(std::span<const std::byte> bytes) {
  uint64_t lane[4] = {1, 2, 3, 4};
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  const auto take = [](uint64_t& h, uint64_t word) { h = std::rotl((h ^ word) * 0x9E3779B97F4A7C15u, 27); };
  for (; left >= 32; left -= 32, at += 32) {
    uint64_t words[4];
    memcpy(words, at, 32);
    for (int i = 0; i < 4; i++) take(lane[i], words[i]);
  }
  for (; left > 0; left--, at++) take(lane[0], static_cast<uint64_t>(*at) + 1);
  uint64_t hash = bytes.size();
  for (uint64_t h : lane) take(hash, h ^ h >> 32);
  return hash ^ hash >> 29;
}

std::string hex(uint64_t value) {
  char text[17];
  snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

uint64_t checksum(const std::string& text) { return checksum(std::as_bytes(std::span(text.data(), text.size()))); }

size_t round_up(size_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

/// Header: magic, its own length, then per chunk a checksum, then the identity; padded to whole pages.
size_t header_bytes(size_t payload, const std::string& identity) {
  return round_up(sizeof kMagic + 8 + (payload + kChunk - 1) / kChunk * 8 + identity.size());
}

std::vector<uint64_t> piece_checksums(std::span<const std::byte> packed, int threads) {
  std::vector<uint64_t> sums((packed.size() + kChunk - 1) / kChunk);
  parallel_for(threads, static_cast<int64_t>(sums.size()), [&](int64_t i) {
    const size_t begin = static_cast<size_t>(i) * kChunk;
    sums[i] = checksum(packed.subspan(begin, std::min(kChunk, packed.size() - begin)));
  });
  return sums;
}

bool write_all(int file, const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(file, at, std::min<size_t>(bytes, 64 << 20));
    if (n <= 0) return false;
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

PackedCache::PackedCache(const std::string& folder, std::string identity, size_t bytes)
    : identity_(std::move(identity)), path_(folder + "/" + hex(checksum(identity_)) + ".sdarpack"), bytes_(bytes) {}

std::string PackedCache::header(std::span<const std::byte> packed, int threads) const {
  std::string text(kMagic, sizeof kMagic);
  const uint64_t length = header_bytes(packed.size(), identity_);
  text.append(reinterpret_cast<const char*>(&length), 8);
  for (uint64_t sum : piece_checksums(packed, threads)) text.append(reinterpret_cast<const char*>(&sum), 8);
  text += identity_;
  text.resize(length, '\0');
  return text;
}

const std::byte* PackedCache::payload(const MappedFile& file) {
  uint64_t length;
  memcpy(&length, file.bytes().data() + sizeof kMagic, 8);
  return file.bytes().data() + length;
}

std::shared_ptr<MappedFile> PackedCache::open(int threads) const {
  try {
    if (!is_file(path_)) return nullptr;
    auto file = std::make_shared<MappedFile>(path_);
    const size_t length = header_bytes(bytes_, identity_);
    if (file->bytes().size() != length + bytes_) return nullptr;
    file->prefetch(0, length + bytes_);
    const std::string expected = header(file->bytes().subspan(length), threads);
    if (memcmp(file->bytes().data(), expected.data(), length) != 0 || file->damaged()) return nullptr;
    return file;
  } catch (const std::exception&) {
    return nullptr;
  }
}

bool PackedCache::write(std::span<const std::byte> packed, int threads) const {
  std::error_code ignored;
  const std::filesystem::path target(path_);
  std::filesystem::create_directories(target.parent_path(), ignored);
  const std::string aside = path_ + "." + std::to_string(getpid()) + ".tmp";
  const int file = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return false;
  bool ok = false;
  try {
    const std::string head = header(packed, threads);
    ok = write_all(file, head.data(), head.size()) && write_all(file, packed.data(), packed.size()) && fsync(file) == 0;
  } catch (const std::exception&) {
  }
  ok = ::close(file) == 0 && ok;
  ok = ok && rename(aside.c_str(), path_.c_str()) == 0;
  if (!ok) unlink(aside.c_str());
  return ok;
}

std::string fingerprint(const std::string& path) {
  const MappedFile file(path);
  struct stat info {};
  stat(path.c_str(), &info);
#ifdef __APPLE__
  const auto changed = info.st_mtimespec;
#else
  const auto changed = info.st_mtim;
#endif
  const auto bytes = file.bytes();
  constexpr size_t kSample = 4096, kSamples = 256, kHead = 1 << 20;
  uint64_t hash = checksum(bytes.first(std::min(bytes.size(), kHead)));
  for (size_t i = 0; i < kSamples && bytes.size() > kSample; i++) {
    const size_t at = (bytes.size() - kSample) / (kSamples - 1) * i;
    hash = hash * 31 + checksum(bytes.subspan(at, kSample));
  }
  return std::filesystem::path(path).filename().string() + " " + std::to_string(bytes.size()) + " " +
         std::to_string(changed.tv_sec) + "." + std::to_string(changed.tv_nsec) + " " + hex(hash) + "\n";
}

}  // namespace sdar
