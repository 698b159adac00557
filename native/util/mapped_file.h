// Read-only files in memory. A file that shrinks while it is mapped does not kill the process: missing pages read as
// zeros and the mapping says that it is damaged.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace sdar {

class MappedFile {
 public:
  /// Throws Error: FILE_NOT_FOUND; FILE_UNREADABLE (no permission, not a regular file, no address space left).
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// The file is, or was at a moment that mattered, shorter than when it was mapped. Ask after reading.
  bool damaged() const;
  /// The bytes will be needed soon: reading them may start.
  void prefetch(size_t offset, size_t length) const;
  /// The bytes will not be needed soon: their pages need not stay in this process. Reading them again is allowed.
  void release(size_t offset, size_t length) const;

 private:
  void advise(size_t offset, size_t length, int advice) const;

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int file_ = -1;
  int slot_ = -1;  // in the fault handler's table
};

/// Zeroed memory of its own pages, with large pages where the system gives them. Throws Error(OUT_OF_MEMORY).
std::shared_ptr<std::byte> map_memory(size_t bytes);

/// A whole small file. Throws like MappedFile, and CONFIG_INVALID above `limit` bytes.
std::string read_file(const std::string& path, size_t limit);

bool is_file(const std::string& path);
bool is_folder(const std::string& path);

}  // namespace sdar
