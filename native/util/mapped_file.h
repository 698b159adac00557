// Read-only files in memory. A file that shrinks while it is mapped does not kill the process: missing pages read as
// zeros and the mapping says that it is damaged.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace sdar {

/// What a file system says of a file without its contents being read. Every change of contents changes `changed`, which
/// no program can set.
struct FileStamp {
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t modified = 0;  ///< nanoseconds since 1970
  int64_t changed = 0;
  uint64_t links = 0;

  bool operator==(const FileStamp&) const = default;
};

enum class Trust {
  any,  ///< whoever owns the file
  own,  ///< this user's file that no other can write to, and no symbolic link
};

class MappedFile {
 public:
  /// Throws Error: FILE_NOT_FOUND; FILE_UNREADABLE (no permission, not a regular file, not to be trusted, no address
  /// space left).
  explicit MappedFile(const std::string& path, Trust trust = Trust::any);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// The file is, or was at a moment that mattered, shorter than when it was mapped. Ask after reading.
  bool truncated() const;
  /// truncated(), or written to since it was mapped.
  bool damaged() const { return truncated() || stamp_now().modified != stamp_.modified; }
  /// As it was when it was mapped, and as it is now.
  const FileStamp& stamp() const { return stamp_; }
  FileStamp stamp_now() const;
  /// The bytes will be needed soon: reading them may start.
  void prefetch(size_t offset, size_t length) const;
  /// The bytes will not be needed soon: their pages need not stay in this process. Reading them again is allowed.
  void release(size_t offset, size_t length) const;

 private:
  void advise(size_t offset, size_t length, int advice) const;

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  FileStamp stamp_;
  int file_ = -1;
  int slot_ = -1;  // in the fault handler's table
};

enum class Commit {
  now,    ///< the system may refuse what it could not give
  later,  ///< it gives what is written to, so there may be more than it has
};

/// Zeroed memory of its own pages, with large pages where the system gives them. Throws Error(OUT_OF_MEMORY).
std::shared_ptr<std::byte> map_memory(size_t bytes, Commit commit = Commit::now);

/// Gives back the whole pages in this part of map_memory(), whose contents are lost.
void discard_memory(std::byte* data, size_t bytes);

/// A whole small file. Throws like MappedFile, and CONFIG_INVALID above `limit` bytes.
std::string read_file(const std::string& path, size_t limit);

bool is_file(const std::string& path);
bool is_folder(const std::string& path);

}  // namespace sdar
