#include "util/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "util/error.h"

namespace sdar {
namespace fs = std::filesystem;

void unwritable(const std::string& path, const std::string& why) {
  throw Error(code::kFileUnwritable, path + ": cannot be written: " + why);
}

OutputFile::OutputFile(std::string path)
    : path_(std::move(path)), file_(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
  if (file_ < 0) unwritable(path_, std::strerror(errno));
}

OutputFile::~OutputFile() {
  if (file_ >= 0) close(file_);
}

void OutputFile::write(const void* data, size_t bytes) {
  for (const char* at = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t n = ::write(file_, at, std::min<size_t>(bytes, size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) unwritable(path_, std::strerror(errno));
    at += n;
    bytes -= static_cast<size_t>(n);
  }
}

void OutputFile::finish(bool sync) {
  if (sync && fsync(file_) != 0) unwritable(path_, std::strerror(errno));
  if (close(std::exchange(file_, -1)) != 0) unwritable(path_, std::strerror(errno));
}

void write_text(const fs::path& path, const std::string& text, bool sync) {
  OutputFile file(path.string());
  file.write(text.data(), text.size());
  file.finish(sync);
}

void sync_folder(const std::string& folder) {
  const int file = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return;
  fsync(file);
  close(file);
}

struct FolderBeside::All {
  std::mutex mutex;
  std::set<const FolderBeside*> folders;
};

/// Whose end a process that exits does not wait for, such as that of a thread whose slow disk holds it up.
FolderBeside::All& FolderBeside::all() {
  static auto* folders = new All;  // lives as long as threads may
  static const int registered = std::atexit([] {
    const std::lock_guard lock(folders->mutex);
    for (const FolderBeside* folder : folders->folders) folder->remove();
  });
  (void)registered;
  return *folders;
}

FolderBeside::FolderBeside(const fs::path& target) {
  for (fs::path above = target.parent_path(); !fs::exists(above); above = above.parent_path())
    parents_.push_back(above);
  fs::create_directories(target.parent_path());
  std::string name = target.string() + ".partial-XXXXXX";
  if (!mkdtemp(name.data())) unwritable(name, std::strerror(errno));
  path_ = name;
  const std::lock_guard lock(all().mutex);
  all().folders.insert(this);
}

FolderBeside::~FolderBeside() {
  const std::lock_guard lock(all().mutex);
  all().folders.erase(this);
  remove();
}

void FolderBeside::remove() const {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  for (const fs::path& parent : parents_) fs::remove(parent, ignored);  // refused where it is not empty
}

}  // namespace sdar
