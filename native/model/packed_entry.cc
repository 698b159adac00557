#include "model/packed_entry.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "util/machine.h"

namespace sdar {
namespace {

constexpr char kMagic[] = "SDARPACK2\n";
constexpr size_t kPageBytes = 4096;
constexpr size_t kFixed = sizeof kMagic + 2 * sizeof(uint64_t);
constexpr size_t kAhead = 8;  // chunks that are fetched before they are hashed: not all, or they would be gone again
constexpr size_t kKeyLine = 16 + 1, kHashLine = 32 + 1;

void append(std::string& text, uint64_t value) { text.append(reinterpret_cast<const char*>(&value), sizeof value); }
void append(std::string& text, const Hash& hash) { append(text, hash.low), append(text, hash.high); }

uint64_t number_at(std::span<const std::byte> bytes, size_t at) {
  uint64_t value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

}  // namespace

size_t header_bytes(size_t text, size_t payload) {
  const size_t bytes = kFixed + text + (chunks_of(payload) + 1) * sizeof(Hash);
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

std::string make_header(const std::string& text, std::span<const Hash> chunks, size_t payload) {
  std::string header(kMagic, sizeof kMagic);
  append(header, header_bytes(text.size(), payload));
  append(header, text.size());
  header += text;
  for (const Hash& hash : chunks) append(header, hash);
  append(header, hash_text(header, kDamageKey));
  header.resize(header_bytes(text.size(), payload), '\0');
  return header;
}

std::optional<std::string_view> read_text(const MappedFile& file, size_t payload) {
  const auto bytes = file.bytes();
  if (bytes.size() < kFixed || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) return {};
  const uint64_t length = number_at(bytes, sizeof kMagic), text = number_at(bytes, sizeof kMagic + 8);
  if (text > bytes.size() || length != header_bytes(text, payload) || length + payload != bytes.size()) return {};
  const size_t hashed = kFixed + text + chunks_of(payload) * sizeof(Hash);
  const Hash hash = hash_bytes(bytes.first(hashed), kDamageKey);
  if (std::memcmp(bytes.data() + hashed, &hash, sizeof hash) != 0) return {};
  const auto zeros = bytes.subspan(hashed + sizeof hash, length - hashed - sizeof hash);
  if (std::any_of(zeros.begin(), zeros.end(), [](std::byte b) { return b != std::byte{0}; })) return {};
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + kFixed, text);
}

size_t payload_bytes(const MappedFile& file) {
  const size_t bytes = file.bytes().size();
  return bytes < kFixed || payload_offset(file) > bytes ? 0 : bytes - payload_offset(file);
}

size_t payload_offset(const MappedFile& file) { return number_at(file.bytes(), sizeof kMagic); }

Hash hash_chunk(std::span<const std::byte> bytes, size_t chunk, uint64_t key) {
  const size_t begin = chunk * kChunkBytes;
  return hash_bytes(bytes.subspan(begin, std::min(kChunkBytes, bytes.size() - begin)), key);
}

bool payload_is_whole(const MappedFile& file, size_t payload, int threads, const std::function<void()>& check) {
  const auto bytes = file.bytes();
  const std::byte* expected = bytes.data() + kFixed + number_at(bytes, sizeof kMagic + 8);
  const auto packed = bytes.subspan(bytes.size() - payload);
  std::vector<Hash> hashes(chunks_of(payload));
  file.prefetch(0, kAhead * kChunkBytes);
  parallel_for(
      threads, static_cast<int64_t>(hashes.size()),
      [&](int64_t i) {
        file.prefetch((static_cast<size_t>(i) + kAhead) * kChunkBytes, kChunkBytes);
        hashes[i] = hash_chunk(packed, static_cast<size_t>(i), kDamageKey);
      },
      check);
  return std::memcmp(expected, hashes.data(), hashes.size() * sizeof(Hash)) == 0 && !file.damaged();
}

bool write_at(int file, std::span<const std::byte> bytes, size_t offset, const std::function<void()>& check) {
  for (size_t at = 0; at < bytes.size();) {
    if (check) check();
    const ssize_t n =
        pwrite(file, bytes.data() + at, std::min(kWriteBytes, bytes.size() - at), static_cast<off_t>(offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<size_t>(n);
  }
  return true;
}

SourceHashes::SourceHashes(SourceFiles files, uint64_t key) : files_(std::move(files)), key_(key) {
  for (const auto& file : files_) {
    hashes_.emplace_back(chunks_of(file->bytes().size()));
    done_.emplace_back(hashes_.back().size());
  }
}

void SourceHashes::add(std::span<const std::span<const std::byte>> parts, int threads,
                       const std::function<void()>& check) {
  std::vector<Chunk> chunks;
  for (const auto part : parts) {
    if (part.empty()) continue;
    for (size_t f = 0; f < files_.size(); f++) {
      const auto bytes = files_[f]->bytes();
      // As numbers: pointers into different files have no order.
      const auto from = reinterpret_cast<uintptr_t>(bytes.data()), at = reinterpret_cast<uintptr_t>(part.data());
      if (at < from || at >= from + bytes.size()) continue;
      for (size_t i = (at - from) / kChunkBytes; i <= (at - from + part.size() - 1) / kChunkBytes; i++) {
        if (!done_[f][i]) chunks.push_back({f, i});
        done_[f][i] = true;
      }
    }
  }
  hash(chunks, false, threads, check);
}

std::string SourceHashes::text(int threads, const std::function<void()>& check) {
  std::vector<Chunk> chunks;
  for (size_t f = 0; f < files_.size(); f++) {
    for (size_t i = 0; i < done_[f].size(); i++) {
      if (!done_[f][i]) chunks.push_back({f, i});
      done_[f][i] = true;
    }
  }
  hash(chunks, true, threads, check);
  std::string text = hex(key_) + "\n";
  for (const std::vector<Hash>& hashes : hashes_)
    text += hash_bytes(std::as_bytes(std::span(hashes)), key_).hex() + "\n";
  return text;
}

size_t SourceHashes::text_bytes() const { return kKeyLine + files_.size() * kHashLine; }

void SourceHashes::hash(const std::vector<Chunk>& chunks, bool give_back, int threads,
                        const std::function<void()>& check) {
  const auto fetch = [&](size_t i) {
    if (i < chunks.size()) files_[chunks[i].file]->prefetch(chunks[i].index * kChunkBytes, kChunkBytes);
  };
  for (size_t i = 0; i < kAhead; i++) fetch(i);
  parallel_for(
      threads, static_cast<int64_t>(chunks.size()),
      [&](int64_t i) {
        fetch(static_cast<size_t>(i) + kAhead);
        const auto& [file, index] = chunks[i];
        hashes_[file][index] = hash_chunk(files_[file]->bytes(), index, key_);
        if (give_back) files_[file]->release(index * kChunkBytes, kChunkBytes);
      },
      check);
}

uint64_t key_in(std::string_view text) {
  uint64_t key = 0;
  std::from_chars(text.data(), text.data() + std::min<size_t>(text.size(), 16), key, 16);
  return key;
}

}  // namespace sdar
