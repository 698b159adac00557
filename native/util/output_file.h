// New files and folders: a write that fails is an exception, and what is not finished does not stay.
#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace sdar {

/// Throws Error(FILE_UNWRITABLE) that names the path.
[[noreturn]] void unwritable(const std::string& path, const std::string& why);

/// A new file, or an old one emptied. Throws Error(FILE_UNWRITABLE).
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  void write(const void* data, size_t bytes);
  /// `sync`: what was written is on the disk when this returns.
  void finish(bool sync = false);

 private:
  std::string path_;
  int file_;
};

void write_text(const std::filesystem::path& path, const std::string& text, bool sync = false);

/// Names of files that were made or renamed in the folder are on the disk when this returns, where the system can say so.
void sync_folder(const std::string& folder);

/// A new folder beside `target`, gone with all that is in it when this is or the process ends, and with what had to be made
/// above it where nothing else came there. Throws Error(FILE_UNWRITABLE) or std::filesystem::filesystem_error.
class FolderBeside {
 public:
  explicit FolderBeside(const std::filesystem::path& target);
  FolderBeside(const FolderBeside&) = delete;
  FolderBeside& operator=(const FolderBeside&) = delete;
  ~FolderBeside();
  /// For this user alone: what is to stay is moved out of it.
  const std::filesystem::path& path() const { return path_; }

 private:
  struct All;
  static All& all();
  void remove() const;

  std::filesystem::path path_;
  std::vector<std::filesystem::path> parents_;  ///< innermost first
};

}  // namespace sdar
