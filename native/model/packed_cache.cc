#include "model/packed_cache.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <thread>

#include "model/cache_folder.h"
#include "util/error.h"
#include "util/hash.h"
#include "util/machine.h"

namespace sdar {
namespace {

// An entry: magic, length of the header, length of its text, text, a hash of each chunk of the payload, a hash of all
// that, zeros up to a page, payload. The text: description, sizes and names of the sources, key,
// hashes of the sources.
constexpr char kMagic[] = "SDARPACK2\n";
constexpr size_t kChunk = 16 << 20;
constexpr size_t kPageBytes = 4096;
constexpr size_t kFixed = sizeof kMagic + 2 * sizeof(uint64_t);
constexpr size_t kWriteBytes = 2 << 20;  // between two looks at stop()
constexpr uint64_t kDamageKey = 0;       // finds damage, which has no intent

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

size_t chunks_of(size_t bytes) { return (bytes + kChunk - 1) / kChunk; }

size_t header_bytes(size_t text, size_t payload) {
  const size_t bytes = kFixed + text + (chunks_of(payload) + 1) * sizeof(Hash);
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

void append(std::string& text, uint64_t value) { text.append(reinterpret_cast<const char*>(&value), sizeof value); }
void append(std::string& text, const Hash& hash) { append(text, hash.low), append(text, hash.high); }

uint64_t number_at(std::span<const std::byte> bytes, size_t at) {
  uint64_t value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

/// Of every chunk. Pages of `give_back` are given back once they have been read.
std::vector<Hash> hash_chunks(std::span<const std::byte> bytes, uint64_t key, int threads,
                              const std::function<void()>& check, const MappedFile* give_back = nullptr) {
  std::vector<Hash> hashes(chunks_of(bytes.size()));
  parallel_for(
      threads, static_cast<int64_t>(hashes.size()),
      [&](int64_t i) {
        const size_t begin = static_cast<size_t>(i) * kChunk, length = std::min(kChunk, bytes.size() - begin);
        hashes[i] = hash_bytes(bytes.subspan(begin, length), key);
        if (give_back) give_back->release(begin, length);
      },
      check);
  return hashes;
}

/// A line for each file: its size and name.
std::string list(const SourceFiles& sources) {
  std::string text;
  for (const auto& file : sources)
    text += std::to_string(file->bytes().size()) + " " + std::filesystem::path(file->path()).filename().string() + "\n";
  return text;
}

/// The key, and for each file a hash of all its bytes.
std::string hash_sources(const SourceFiles& sources, uint64_t key, int threads, const std::function<void()>& check) {
  std::string text = hex(key) + "\n";
  for (const auto& file : sources) {
    file->prefetch(0, file->bytes().size());
    const std::vector<Hash> hashes = hash_chunks(file->bytes(), key, threads, check, file.get());
    text += hash_bytes(std::as_bytes(std::span(hashes)), key).hex() + "\n";
  }
  return text;
}

/// The header without its zeros, the hashes of the payload taken.
std::string make_header(const std::string& text, std::span<const Hash> chunks, size_t payload) {
  std::string header(kMagic, sizeof kMagic);
  append(header, header_bytes(text.size(), payload));
  append(header, text.size());
  header += text;
  for (const Hash& hash : chunks) append(header, hash);
  append(header, hash_text(header, kDamageKey));
  return header;
}

/// The text of a mapped entry; none when its header is not whole.
std::optional<std::string_view> read_text(const MappedFile& file, size_t payload) {
  const auto bytes = file.bytes();
  if (bytes.size() < kFixed || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) return {};
  const uint64_t length = number_at(bytes, sizeof kMagic), text = number_at(bytes, sizeof kMagic + 8);
  if (text > bytes.size() || length != header_bytes(text, payload) || length + payload != bytes.size()) return {};
  const size_t hashed = kFixed + text + chunks_of(payload) * sizeof(Hash);
  const Hash hash = hash_bytes(bytes.first(hashed), kDamageKey);
  if (std::memcmp(bytes.data() + hashed, &hash, sizeof hash) != 0) return {};
  const auto zeros = bytes.subspan(hashed + sizeof hash, length - hashed - sizeof hash);
  if (std::any_of(zeros.begin(), zeros.end(), [](std::byte b) { return b != std::byte{0}; })) return {};
  return text_of(bytes.subspan(kFixed, text));
}

bool payload_is_whole(const MappedFile& file, size_t payload, int threads, const std::function<void()>& check) {
  const auto bytes = file.bytes();
  const size_t begin = bytes.size() - payload;
  file.prefetch(0, bytes.size());
  const std::vector<Hash> hashes = hash_chunks(bytes.subspan(begin), kDamageKey, threads, check);
  const std::byte* expected = bytes.data() + kFixed + number_at(bytes, sizeof kMagic + 8);
  return std::memcmp(expected, hashes.data(), hashes.size() * sizeof(Hash)) == 0 && !file.damaged();
}

/// The key of a text that hash_sources() wrote.
uint64_t key_in(std::string_view text) {
  uint64_t key = 0;
  std::from_chars(text.data(), text.data() + std::min<size_t>(text.size(), 16), key, 16);
  return key;
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
      append(text, part);
  }
  return hash_text(text, kDamageKey).hex().substr(0, 16);
}

std::string PackedCache::path() const { return settings_.folder + "/" + entry_name(place_, stamps()); }

const std::byte* PackedCache::payload(const MappedFile& file) {
  return file.bytes().data() + number_at(file.bytes(), sizeof kMagic);
}

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
  if (!same_stamps && hash_sources(sources_, key_in(hashes), threads, check) != hashes) return nullptr;
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

int PackedCacheWrite::begin() {
  const CacheSettings& settings = cache_.settings_;
  struct statvfs space;
  const size_t bytes = cache_.bytes_ + cache_.bytes_ / 16;  // a little is left for others
  if (cache_.bytes_ > settings.limit || statvfs(settings.folder.c_str(), &space) != 0 ||
      static_cast<uint64_t>(space.f_bavail) * space.f_frsize < bytes)
    return -1;
  const std::lock_guard lock(mutex_);
  check();
  return create_locked(settings.folder, cache_.place_, cache_.stamps(), temporary_);
}

bool PackedCacheWrite::write(int file) {
  const std::function<void()> look = [this] { check(); };
  const auto unchanged = [&] {
    return std::all_of(cache_.sources_.begin(), cache_.sources_.end(),
                       [](const auto& source) { return source->stamp_now() == source->stamp(); });
  };
  const std::span<const std::byte> payload(packed_.get(), cache_.bytes_);
  const std::string text = cache_.description_ + hash_sources(cache_.sources_, random_key(), 1, look);
  if (!unchanged()) return false;
  std::string header = make_header(text, hash_chunks(payload, kDamageKey, 1, look), payload.size());
  header.resize(header_bytes(text.size(), payload.size()), '\0');
  for (const auto part : {std::as_bytes(std::span(header)), payload}) {
    for (size_t at = 0; at < part.size();) {
      check();
      const ssize_t n = ::write(file, part.data() + at, std::min(kWriteBytes, part.size() - at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      at += static_cast<size_t>(n);
    }
  }
  return rename_to_entry();
}

bool PackedCacheWrite::rename_to_entry() {
  const std::lock_guard lock(mutex_);
  check();
  const std::string path = cache_.path();
  if (rename(temporary_.c_str(), path.c_str()) != 0) return false;
  // Entries of what the folder held before.
  for (const std::string& entry : entries_of(cache_.settings_.folder, cache_.place_))
    if (entry != path) unlink(entry.c_str());
  tidy_folder(cache_.settings_.folder, cache_.settings_.limit, cache_.settings_.unused_seconds, path);
  return true;
}

void PackedCacheWrite::stop() {
  stopped_ = true;
  const std::lock_guard lock(mutex_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

}  // namespace sdar
