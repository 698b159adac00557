// Weights that are written to their file while they are packed, so that they are never in memory all together: neither
// the packed ones nor those of the checkpoint, which are read once, to be hashed and packed.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/packed_cache.h"
#include "model/packed_entry.h"
#include "util/mapped_file.h"

namespace sdar {

/// An entry being written; gone with this unless finish() gives it its name. Used by one thread, which alone calls
/// `check`; what that throws comes out.
class PackedCacheStream {
 public:
  PackedCacheStream(const PackedCache& cache, int threads, std::function<void()> check);
  ~PackedCacheStream();
  PackedCacheStream(const PackedCacheStream&) = delete;
  PackedCacheStream& operator=(const PackedCacheStream&) = delete;

  /// Whether there is a file to write to. It is false from the first error on; then all must be packed elsewhere.
  bool is_open() const { return file_ >= 0; }
  /// Where to pack: addresses for all bytes, of which those that are not written yet take memory.
  std::byte* memory() const { return memory_.get(); }

  /// To be called before these bytes of source files are packed.
  void will_read(std::span<const std::span<const std::byte>> parts);
  /// Bytes before `end` are packed. They are written up to the last whole chunk, and cannot be read any more.
  void packed(size_t end);
  /// All are. The entry, mapped; null when it could not be written, or a source file has changed.
  std::shared_ptr<MappedFile> finish();

 private:
  void write_chunks(size_t end);
  void give_up();

  PackedCache cache_;
  int threads_;
  std::function<void()> check_;
  SourceHashes sources_;
  size_t offset_;  ///< of the payload
  std::string temporary_;
  int file_;
  std::shared_ptr<std::byte> memory_;
  std::vector<Hash> chunks_;  ///< of those written
};

}  // namespace sdar
