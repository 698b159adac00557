#include "model/packed_cache.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>

#include "model/cache_folder.h"
#include "model/packed_entry.h"
#include "util/error.h"
#include "util/hash.h"

namespace sdar {
namespace {

/// A line for each file: its size and name.
std::string list(const SourceFiles& sources) {
  std::string text;
  for (const auto& file : sources)
    text += std::to_string(file->bytes().size()) + " " + std::filesystem::path(file->path()).filename().string() + "\n";
  return text;
}

/// A file system whose times are whole seconds is an image of a disk (which may have been made with constant times), or
/// one on which two changes can share a time.
bool has_fine_times(const FileStamp& stamp) { return stamp.changed % 1'000'000'000 != 0; }

/// Waits until a further change of the file would show in its stamp. A file system's clock has ticks of a few
/// milliseconds; where it counts whole seconds, of two.
void let_settle(const FileStamp& stamp, const std::function<void()>& check) {
  using namespace std::chrono;
  const nanoseconds changed(stamp.changed), tick = has_fine_times(stamp) ? milliseconds(20) : milliseconds(2000);
  // A time of change in the future is a clock set back, of which nothing is known.
  for (nanoseconds now; (now = system_clock::now().time_since_epoch()) >= changed && now < changed + tick;) {
    if (check) check();
    std::this_thread::sleep_for(milliseconds(5));
  }
}

struct Stopped {};

}  // namespace

PackedCache::PackedCache(CacheSettings settings, std::string description, SourceFiles sources, size_t bytes,
                         const std::function<void()>& check)
    : settings_(std::move(settings)),
      description_(std::move(description)),
      sources_(std::move(sources)),
      bytes_(bytes) {
  for (const auto& file : sources_) let_settle(file->stamp(), check);
  place_ = hash_text(description_, kDamageKey).hex().substr(0, 16);
  description_ += list(sources_);
  trusted_ = make_private_folder(settings_.folder) &&
             std::all_of(sources_.begin(), sources_.end(), [](const auto& f) { return has_fine_times(f->stamp()); });
}

std::string PackedCache::stamps() const {
  std::string text;
  for (const auto& file : sources_) {
    const FileStamp& s = file->stamp();
    for (const uint64_t part :
         {s.inode, static_cast<uint64_t>(s.size), static_cast<uint64_t>(s.modified), static_cast<uint64_t>(s.changed)})
      text.append(reinterpret_cast<const char*>(&part), sizeof part);
  }
  return hash_text(text, kDamageKey).hex().substr(0, 16);
}

std::string PackedCache::path() const { return settings_.folder + "/" + entry_name(place_, stamps()); }

const std::byte* PackedCache::payload(const MappedFile& file) { return file.bytes().data() + payload_offset(file); }

std::shared_ptr<MappedFile> PackedCache::open(int threads, const std::function<void()>& check) const {
  const std::string best = path();
  std::shared_ptr<MappedFile> found;
  if (trusted_) found = open_entry(best, true, threads, check);
  for (const std::string& entry : entries_of(settings_.folder, place_)) {
    if (found) break;
    found = open_entry(entry, false, threads, check);
    // Under its new name it is found at once. Both names may be the same, of other stamps than it seems.
    if (found && entry != best) rename(entry.c_str(), best.c_str());
  }
  if (found) touch_entry(best);
  tidy_folder(settings_.folder, settings_.limit, settings_.unused_seconds, found ? best : "");
  return found;
}

std::shared_ptr<MappedFile> PackedCache::open_entry(const std::string& path, bool same_stamps, int threads,
                                                    const std::function<void()>& check) const {
  std::shared_ptr<MappedFile> file;
  try {
    if (!is_file(path)) return nullptr;
    file = std::make_shared<MappedFile>(path, Trust::own);
  } catch (const Error&) {
    return nullptr;
  }
  const std::optional<std::string_view> text = read_text(*file, bytes_);
  if (!text || !text->starts_with(description_)) return nullptr;
  const std::string_view hashes = text->substr(description_.size());
  if (!same_stamps && SourceHashes(sources_, key_in(hashes)).text(threads, check) != hashes) return nullptr;
  return payload_is_whole(*file, bytes_, threads, check) ? file : nullptr;
}

void PackedCacheWrite::check() const {
  if (stopped_) throw Stopped{};
}

bool PackedCacheWrite::run() {
  int file = -1;
  bool written = false;
  try {
    file = begin();
    written = file >= 0 && write(file);
  } catch (const Stopped&) {
  } catch (const std::exception&) {  // no memory for a list of hashes
  }
  const std::lock_guard lock(mutex_);
  if (!written && !temporary_.empty()) unlink(temporary_.c_str());
  temporary_.clear();
  if (file >= 0) close(file);
  return written;
}

int PackedCache::create(std::string& path) const {
  struct statvfs space;
  const size_t bytes = bytes_ + bytes_ / 16;  // a little is left for others
  if (bytes_ > settings_.limit || statvfs(settings_.folder.c_str(), &space) != 0 ||
      static_cast<uint64_t>(space.f_bavail) * space.f_frsize < bytes)
    return -1;
  return create_locked(settings_.folder, place_, stamps(), path);
}

bool PackedCache::being_written() const { return entry_is_being_written(settings_.folder, place_); }

bool PackedCache::sources_unchanged() const {
  return std::all_of(sources_.begin(), sources_.end(),
                     [](const auto& source) { return source->stamp_now() == source->stamp(); });
}

bool PackedCache::publish(const std::string& temporary) const {
  const std::string entry = path();
  if (rename(temporary.c_str(), entry.c_str()) != 0) return false;
  // Entries of what the folder held before.
  for (const std::string& old : entries_of(settings_.folder, place_))
    if (old != entry) unlink(old.c_str());
  tidy_folder(settings_.folder, settings_.limit, settings_.unused_seconds, entry);
  return true;
}

int PackedCacheWrite::begin() {
  const std::lock_guard lock(mutex_);
  check();
  return cache_.create(temporary_);
}

bool PackedCacheWrite::write(int file) {
  const std::function<void()> look = [this] { check(); };
  const std::span<const std::byte> payload(packed_.get(), cache_.bytes_);
  const std::string text = cache_.description_ + SourceHashes(cache_.sources_, random_key()).text(1, look);
  if (!cache_.sources_unchanged()) return false;
  std::vector<Hash> chunks;
  for (size_t i = 0; i < chunks_of(payload.size()); i++) {
    check();
    chunks.push_back(hash_chunk(payload, i, kDamageKey));
  }
  const std::string header = make_header(text, chunks, payload.size());
  if (!write_at(file, std::as_bytes(std::span(header)), 0, look) || !write_at(file, payload, header.size(), look))
    return false;
  const std::lock_guard lock(mutex_);
  check();
  return cache_.publish(temporary_);
}

void PackedCacheWrite::stop() {
  stopped_ = true;
  const std::lock_guard lock(mutex_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

}  // namespace sdar
