#include "model/packed_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "util/error.h"
#include "util/machine.h"

namespace sdar {

PackedCacheStream::PackedCacheStream(const PackedCache& cache, int threads, std::function<void()> check)
    : cache_(cache),
      threads_(threads),
      check_(std::move(check)),
      sources_(cache_.sources_, random_key()),
      offset_(header_bytes(cache_.description_.size() + sources_.text_bytes(), cache_.bytes_)),
      file_(cache_.create(temporary_)) {
  if (file_ < 0) return;
  try {
    memory_ = map_memory(cache_.bytes_, Commit::later);
  } catch (...) {
    give_up();
    throw;
  }
}

PackedCacheStream::~PackedCacheStream() { give_up(); }

void PackedCacheStream::give_up() {
  if (file_ < 0) return;
  if (!temporary_.empty()) unlink(temporary_.c_str());
  close(file_);  // and with it the lock
  file_ = -1;
}

void PackedCacheStream::will_read(std::span<const std::span<const std::byte>> parts) {
  sources_.add(parts, threads_, check_);
}

void PackedCacheStream::packed(size_t end) {
  if (is_open()) write_chunks(end / kChunkBytes * kChunkBytes);
}

void PackedCacheStream::write_chunks(size_t end) {
  const std::span payload(memory_.get(), cache_.bytes_);
  const size_t done = chunks_.size(), count = chunks_of(end);
  if (count <= done) return;
  chunks_.resize(count);
  parallel_for(
      threads_, static_cast<int64_t>(count - done),
      [&](int64_t i) {
        const size_t chunk = done + static_cast<size_t>(i);
        chunks_[chunk] = hash_chunk(payload, chunk, kDamageKey);
      },
      check_);
  const size_t begin = done * kChunkBytes;
  if (!write_at(file_, payload.subspan(begin, end - begin), offset_ + begin, check_)) return give_up();
  discard_memory(memory_.get() + begin, end - begin);
#ifdef SYNC_FILE_RANGE_WRITE
  // The disk begins now, or the system would make us wait for all of it at once.
  sync_file_range(file_, static_cast<off_t>(offset_ + begin), static_cast<off_t>(end - begin), SYNC_FILE_RANGE_WRITE);
#endif
}

std::shared_ptr<MappedFile> PackedCacheStream::finish() {
  if (is_open()) write_chunks(cache_.bytes_);
  if (!is_open()) return nullptr;
  const std::string text = cache_.description_ + sources_.text(threads_, check_);
  const std::string header = make_header(text, chunks_, cache_.bytes_);
  if (!cache_.sources_unchanged() || !write_at(file_, std::as_bytes(std::span(header)), 0, check_) ||
      !cache_.publish(temporary_)) {
    give_up();
    return nullptr;
  }
  temporary_.clear();  // it is an entry now
  try {
    auto entry = std::make_shared<MappedFile>(cache_.path(), Trust::own);
    return entry->bytes().size() == header.size() + cache_.bytes_ ? entry : nullptr;
  } catch (const Error&) {  // removed meanwhile, or there is no address space
    return nullptr;
  }
}

}  // namespace sdar
