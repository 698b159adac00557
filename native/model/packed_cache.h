// Packed weights in a file, so that a second load maps them instead of packing again. One file per checkpoint content,
// weight format and layout; written aside and renamed, so that a reader sees all of it or nothing.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "util/mapped_file.h"

namespace sdar {

class PackedCache {
 public:
  /// `identity` is whatever the packed bytes depend on; equal identities mean equal bytes. `bytes` is their number.
  PackedCache(const std::string& folder, std::string identity, size_t bytes);

  const std::string& path() const { return path_; }

  /// The packed bytes, mapped, or null when there is no such file or it is damaged (a checksum of every chunk is
  /// compared, on `threads` threads). Never throws.
  std::shared_ptr<MappedFile> open(int threads) const;
  /// Where the packed bytes begin in the mapping.
  static const std::byte* payload(const MappedFile& file);

  /// Writes the file; false when that is not possible (no permission, disk full), which harms nothing. Never throws.
  bool write(std::span<const std::byte> packed, int threads) const;

 private:
  std::string header(std::span<const std::byte> packed, int threads) const;

  std::string identity_;
  std::string path_;
  size_t bytes_;
};

/// Stands for the contents of a file without reading all of it: name, size, time of change, its first megabyte (which
/// holds the header of a safetensors file) and samples all along.
std::string fingerprint(const std::string& path);

}  // namespace sdar
