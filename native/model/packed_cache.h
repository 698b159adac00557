// Packed weights in a file, so that a second load maps them instead of packing again. An entry is for one checkpoint's
// folder, weight format and layout, and says which contents of the source files were packed. Whether the files still
// hold those is told by their stamps (inode, size, times), a hash of which is in the entry's name, or else by a hash of
// all their bytes. An entry never changes once it has its name: it is written aside and renamed.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "model/packed_entry.h"
#include "util/mapped_file.h"

namespace sdar {

struct CacheSettings {
  std::string folder = {};                       ///< empty: no cache
  size_t above = 64 << 20;                       ///< packed weights of fewer bytes are not worth a file
  size_t stream_above = 1 << 30;                 ///< those of more are written while they are packed
  uint64_t limit = uint64_t{64} << 30;           ///< bytes of all entries together; the longest unused go first
  int64_t unused_seconds = int64_t{90} * 86400;  ///< entries unused for so long go
};

class PackedCache {
 public:
  /// `description` is whatever the packed bytes depend on besides the contents of `sources`; its first line is the
  /// checkpoint's folder. `bytes` is their number. Nothing of the sources that is packed may have been read before: this
  /// waits, where a file has just changed, until a further change would show in its stamp. `check` is called meanwhile;
  /// what it throws comes out.
  PackedCache(CacheSettings settings, std::string description, SourceFiles sources, size_t bytes,
              const std::function<void()>& check = {});

  /// Name of an entry written now.
  std::string path() const;

  /// The packed bytes, mapped; null when there is no entry of these contents, or it is damaged, or not this user's alone
  /// to write. Removes what killed processes left and entries beyond the settings' limits. `check` is called every few
  /// milliseconds; only what it throws comes out.
  std::shared_ptr<MappedFile> open(int threads, const std::function<void()>& check) const;
  /// Where the packed bytes begin in the mapping.
  static const std::byte* payload(const MappedFile& file);
  /// Another process, or another load of this one, writes an entry of this description.
  bool being_written() const;
  /// Whether the weights are so many that they are better written while they are packed.
  bool streams() const { return bytes_ > settings_.stream_above; }

 private:
  friend class PackedCacheWrite;
  friend class PackedCacheStream;
  /// A locked file for an entry; −1 when there cannot be one.
  int create(std::string& path) const;
  /// No source has changed since it was mapped.
  bool sources_unchanged() const;
  /// Gives the file the entry's name; it takes the place of entries of other contents.
  bool publish(const std::string& temporary) const;
  std::shared_ptr<MappedFile> open_entry(const std::string& path, bool same_stamps, int threads,
                                         const std::function<void()>& check) const;
  std::string stamps() const;

  CacheSettings settings_;
  std::string description_;
  std::string place_;  ///< beginning of an entry's name
  SourceFiles sources_;
  size_t bytes_;
  bool trusted_ = false;  ///< equal stamps mean equal contents
};

/// Writes an entry from packed weights in memory, on any one thread.
class PackedCacheWrite {
 public:
  PackedCacheWrite(PackedCache cache, std::shared_ptr<const std::byte> packed)
      : cache_(std::move(cache)), packed_(std::move(packed)) {}

  size_t bytes() const { return cache_.bytes_; }
  /// False when it is not written: no permission, no space, a source file that has changed meanwhile, another process
  /// that writes the same, stop(). That harms nothing and leaves nothing behind. Never throws.
  bool run();
  /// From any thread, at any time: run() ends within milliseconds, and its file is gone already.
  void stop();

 private:
  int begin();
  bool write(int file);
  void check() const;

  PackedCache cache_;
  std::shared_ptr<const std::byte> packed_;
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::string temporary_;  ///< the file being written, else empty
};

}  // namespace sdar
