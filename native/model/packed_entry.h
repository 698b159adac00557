// The format of a file of packed weights: magic, length of the header, length of its text, text, a hash of each chunk of
// the payload, a hash of all that, zeros up to a page, payload. The text: a description that is the caller's, key, and a
// line for each source file, the hash of all its bytes.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "util/hash.h"
#include "util/mapped_file.h"

namespace sdar {

using SourceFiles = std::vector<std::shared_ptr<const MappedFile>>;

constexpr size_t kChunkBytes = 16 << 20;  ///< of a file or payload that have a hash of their own
constexpr uint64_t kDamageKey = 0;        ///< finds damage, which has no intent
constexpr size_t kWriteBytes = 2 << 20;   ///< between two calls of `check`

/// Bytes before the payload.
size_t header_bytes(size_t text, size_t payload);
/// The header with its zeros; `chunks` are the hashes of the payload's.
std::string make_header(const std::string& text, std::span<const Hash> chunks, size_t payload);
/// The text of a mapped entry; none when its header is not whole, or of another payload.
std::optional<std::string_view> read_text(const MappedFile& file, size_t payload);
/// As the file says and has it; 0 where it does not.
size_t payload_bytes(const MappedFile& file);
/// Where the payload of a whole entry begins.
size_t payload_offset(const MappedFile& file);
/// Whether all bytes of the payload are those that were written.
bool payload_is_whole(const MappedFile& file, size_t payload, int threads, const std::function<void()>& check);

inline size_t chunks_of(size_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }
Hash hash_chunk(std::span<const std::byte> bytes, size_t chunk, uint64_t key);

/// Writes all of it; false when the system does not. `check` is called meanwhile; what it throws comes out.
bool write_at(int file, std::span<const std::byte> bytes, size_t offset, const std::function<void()>& check);

/// Hashes of all bytes of files, in whatever order these are read.
class SourceHashes {
 public:
  SourceHashes(SourceFiles files, uint64_t key);

  /// Hashes what is not hashed yet of the chunks in which these bytes of a file lie.
  void add(std::span<const std::span<const std::byte>> parts, int threads, const std::function<void()>& check);
  /// Hashes the rest, giving back pages that it has read; the key and a line for each file.
  std::string text(int threads, const std::function<void()>& check);
  /// The length of that, which is known before.
  size_t text_bytes() const;

 private:
  struct Chunk {
    size_t file, index;
  };
  void hash(const std::vector<Chunk>& chunks, bool give_back, int threads, const std::function<void()>& check);

  SourceFiles files_;
  uint64_t key_;
  std::vector<std::vector<Hash>> hashes_;  ///< of each file's chunks
  std::vector<std::vector<bool>> done_;
};
/// The key of a text that SourceHashes wrote.
uint64_t key_in(std::string_view text);

}  // namespace sdar
