#include "model/cache_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <string_view>

#include "util/hash.h"

namespace sdar {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnding = ".sdarpack", kTemporary = ".tmp";
constexpr size_t kNameLength = 16 + 1 + 16 + kEnding.size();

struct Entry {
  std::string path;
  uint64_t bytes;
  int64_t used;  // seconds since 1970
};

bool is_entry(const std::string& name) { return name.ends_with(kEnding); }
bool is_temporary(const std::string& name) {
  return name.ends_with(kTemporary) && name.find(kEnding) != std::string::npos;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    names.push_back(at->path().filename().string());
  return names;
}

/// Whether a process holds the file's lock.
bool is_being_written(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return false;
  const bool locked = flock(file, LOCK_EX | LOCK_NB) != 0;
  close(file);
  return locked;
}

}  // namespace

std::string entry_name(const std::string& place, const std::string& stamps) {
  return place + "-" + stamps + std::string(kEnding);
}

std::vector<std::string> entries_of(const std::string& folder, const std::string& place) {
  std::vector<std::string> paths;
  for (const std::string& name : names_in(folder))
    if (name.size() == kNameLength && is_entry(name) && name.starts_with(place + "-"))
      paths.push_back(folder + "/" + name);
  return paths;
}

bool make_private_folder(const std::string& folder) {
  std::error_code ignored;
  fs::create_directories(fs::path(folder).parent_path(), ignored);
  mkdir(folder.c_str(), 0700);
  struct stat status;
  return stat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid() &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

bool entry_is_being_written(const std::string& folder, const std::string& place) {
  const std::vector<std::string> names = names_in(folder);
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return is_temporary(name) && name.starts_with(place) && is_being_written(folder + "/" + name);
  });
}

int create_locked(const std::string& folder, const std::string& place, const std::string& stamps, std::string& path) {
  if (entry_is_being_written(folder, place)) return -1;
  path = folder + "/" + entry_name(place, stamps) + "." + hex(random_key()) + std::string(kTemporary);
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return -1;
  struct stat status;
  // Another process may have taken it for a left one before it was locked.
  if (flock(file, LOCK_EX | LOCK_NB) == 0 && fstat(file, &status) == 0 && status.st_nlink == 1) return file;
  unlink(path.c_str());
  close(file);
  return -1;
}

void touch_entry(const std::string& path) {
  // The time of change says whether the contents are still those that were mapped, so it stays.
  const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_NOW}, {.tv_sec = 0, .tv_nsec = UTIME_OMIT}};
  utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW);
}

void tidy_folder(const std::string& folder, uint64_t limit, int64_t unused_seconds, const std::string& keep) {
  std::vector<Entry> entries;
  uint64_t total = 0;
  const int64_t now = time(nullptr);
  for (const std::string& name : names_in(folder)) {
    const std::string path = folder + "/" + name;
    struct stat status;
    if (lstat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    if (is_temporary(name)) {
      if (!is_being_written(path)) unlink(path.c_str());
    } else if (is_entry(name)) {
      const int64_t used = std::max<int64_t>(status.st_atime, status.st_mtime);
      if (path != keep && now - used > unused_seconds) {
        unlink(path.c_str());
        continue;
      }
      entries.push_back({path, static_cast<uint64_t>(status.st_size), path == keep ? INT64_MAX : used});
      total += entries.back().bytes;
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= limit || entry.path == keep) break;
    unlink(entry.path.c_str());
    total -= entry.bytes;
  }
}

}  // namespace sdar
