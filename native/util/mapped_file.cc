#include "util/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "util/error.h"
#include "util/machine.h"

namespace sdar {
namespace {

/// What the fault handler may look at: lock-free, never freed. begin == 0: no mapping here.
struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<bool> damaged{false};
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
};
static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);
constexpr int kSlots = 4096;
Slot g_slots[kSlots];
struct sigaction g_previous;
uintptr_t g_page_size;

Slot* slot_of(uintptr_t address) {
  for (Slot& slot : g_slots) {
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    if (begin == 0 || address < begin || address >= slot.end.load(std::memory_order_acquire)) continue;
    if (slot.begin.load(std::memory_order_acquire) == begin)
      return &slot;  // else it was given to another mapping meanwhile
  }
  return nullptr;
}

bool map_zeros(void* at, size_t size) {
  constexpr long kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
#ifdef __linux__
  // The bare call, fit for a signal handler; a thread sanitizer would take the wrapper for a write by this thread.
  return syscall(SYS_mmap, at, size, long{PROT_READ}, kFlags, -1L, 0L) != -1;
#else
  return mmap(at, size, PROT_READ, kFlags, -1, 0) != MAP_FAILED;
#endif
}

/// A fault in one of our mappings: the file no longer reaches there, nor beyond. Put zeros in its place and go on.
void on_sigbus(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  if (info->si_code > 0) {  // a real fault, not sent by a process
    const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
    if (Slot* slot = slot_of(address)) {
      slot->damaged.store(true, std::memory_order_release);
      const uintptr_t page = address & ~(g_page_size - 1);
      const bool mapped = map_zeros(reinterpret_cast<void*>(page), slot->end.load(std::memory_order_acquire) - page);
      errno = saved_errno;
      if (mapped) return;
    }
  }
  if (g_previous.sa_flags & SA_SIGINFO) {
    g_previous.sa_sigaction(signal, info, context);
  } else if (g_previous.sa_handler != SIG_DFL && g_previous.sa_handler != SIG_IGN) {
    g_previous.sa_handler(signal);
  } else if (!(g_previous.sa_handler == SIG_IGN && info->si_code <= 0)) {
    sigaction(SIGBUS, &g_previous, nullptr);  // the fault comes again and takes its usual course
    if (info->si_code <= 0) raise(signal);
  }
  errno = saved_errno;
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    g_page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    keep_loaded();  // the handler outlives every user
    struct sigaction action = {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, nullptr, &g_previous);  // before ours can run
    sigaction(SIGBUS, &action, nullptr);
  });
}

int take_slot(const std::byte* data, size_t size) {
  for (int i = 0; i < kSlots; i++) {
    Slot& slot = g_slots[i];
    if (slot.taken.exchange(true, std::memory_order_acq_rel)) continue;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
    slot.damaged.store(false, std::memory_order_relaxed);
    slot.end.store((begin + size + g_page_size - 1) & ~(g_page_size - 1), std::memory_order_release);
    slot.begin.store(begin, std::memory_order_release);
    return i;
  }
  return -1;
}

void give_slot(int i) {
  g_slots[i].begin.store(0, std::memory_order_release);
  g_slots[i].end.store(0, std::memory_order_release);
  g_slots[i].taken.store(false, std::memory_order_release);
}

[[noreturn]] void fail(const std::string& path, int error) {
  const bool absent = error == ENOENT || error == ENOTDIR;
  throw Error(absent ? code::kFileNotFound : code::kFileUnreadable,
              path + ": " + (absent ? "no such file" : std::string("cannot be read: ") + std::strerror(error)));
}

FileStamp stamp_of(const struct stat& status) {
#ifdef __APPLE__
  const auto modified = status.st_mtimespec, changed = status.st_ctimespec;
#else
  const auto modified = status.st_mtim, changed = status.st_ctim;
#endif
  const auto nanoseconds = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
  return {.inode = status.st_ino,
          .size = status.st_size,
          .modified = nanoseconds(modified),
          .changed = nanoseconds(changed),
          .links = status.st_nlink};
}

/// A regular file opened for reading.
int open_regular(const std::string& path, FileStamp& stamp, Trust trust = Trust::any) {
  // Non-blocking: a pipe must not hang us.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (trust == Trust::own ? O_NOFOLLOW : 0);
  const int file = open(path.c_str(), flags);
  if (file < 0) fail(path, errno);
  struct stat status;
  if (fstat(file, &status) != 0) {
    const int error = errno;
    close(file);
    fail(path, error);
  }
  if (!S_ISREG(status.st_mode)) {
    close(file);
    throw Error(code::kFileUnreadable,
                path + ": is " + (S_ISDIR(status.st_mode) ? "a folder" : "no regular file") + "; expected a file");
  }
  if (trust == Trust::own && (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)) {
    close(file);
    throw Error(code::kFileUnreadable, path + ": belongs to another user, or others can write to it");
  }
  stamp = stamp_of(status);
  return file;
}

}  // namespace

MappedFile::MappedFile(const std::string& path, Trust trust) : path_(path) {
  install_handler();
  file_ = open_regular(path, stamp_, trust);
  size_ = static_cast<size_t>(stamp_.size);
  if (size_ == 0) return;
  void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file_, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    close(file_);
    fail(path, error);
  }
  data_ = static_cast<const std::byte*>(data);
  slot_ = take_slot(data_, size_);
  if (slot_ < 0) {
    munmap(data, size_);
    close(file_);
    throw Error(code::kFileUnreadable, path + ": more than " + std::to_string(kSlots) + " files are mapped");
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(other.data_),
      size_(other.size_),
      stamp_(other.stamp_),
      file_(other.file_),
      slot_(other.slot_) {
  other.data_ = nullptr;
  other.size_ = 0;
  other.file_ = other.slot_ = -1;
}

MappedFile::~MappedFile() {
  // Unmapped after the slot is free: until then a fault of a thread that still reads would have been caught.
  if (slot_ >= 0) give_slot(slot_);
  if (data_) munmap(const_cast<std::byte*>(data_), size_);
  if (file_ >= 0) close(file_);
}

bool MappedFile::truncated() const {
  if (slot_ >= 0 && g_slots[slot_].damaged.load(std::memory_order_acquire)) return true;
  // What is missing of the last page reads as zeros without a fault.
  return stamp_now().size < stamp_.size;
}

FileStamp MappedFile::stamp_now() const {
  struct stat status;
  if (file_ < 0) return stamp_;
  return fstat(file_, &status) == 0 ? stamp_of(status) : FileStamp{};
}

void MappedFile::prefetch(size_t offset, size_t length) const { advise(offset, length, MADV_WILLNEED); }
void MappedFile::release(size_t offset, size_t length) const { advise(offset, length, MADV_DONTNEED); }

/// On whole pages, so neighbours on the first and last page are meant too; advice is never wrong, only useless.
void MappedFile::advise(size_t offset, size_t length, int advice) const {
  if (!data_ || offset >= size_ || length == 0) return;
  const size_t begin = offset & ~(g_page_size - 1), end = offset + std::min(length, size_ - offset);
  madvise(const_cast<std::byte*>(data_) + begin, end - begin, advice);
}

std::shared_ptr<std::byte> map_memory(size_t bytes, Commit commit) {
  const size_t size = std::max<size_t>(bytes, 1);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (commit == Commit::later ? MAP_NORESERVE : 0);
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (data == MAP_FAILED)
    throw Error(code::kOutOfMemory, "cannot allocate " + std::to_string(bytes >> 20) + " MiB: " + std::strerror(errno));
#ifdef MADV_HUGEPAGE
  if (size >= size_t{8} << 20) madvise(data, size, MADV_HUGEPAGE);
#endif
  return {static_cast<std::byte*>(data), [size](std::byte* p) { munmap(p, size); }};
}

void discard_memory(std::byte* data, size_t bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), from = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (from + page - 1) & ~(page - 1), end = (from + bytes) & ~(page - 1);
  if (begin < end) madvise(data + (begin - from), end - begin, MADV_DONTNEED);
}

std::string read_file(const std::string& path, size_t limit) {
  FileStamp stamp;
  const int file = open_regular(path, stamp);
  const auto size = static_cast<size_t>(stamp.size);
  if (size > limit) {
    close(file);
    throw Error(code::kConfigInvalid,
                path + ": has " + std::to_string(size) + " bytes; at most " + std::to_string(limit) + " are allowed");
  }
  std::string text(size, '\0');
  size_t got = 0;
  while (got < size) {
    const ssize_t n = read(file, text.data() + got, size - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      close(file);
      fail(path, error);
    }
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  close(file);
  text.resize(got);
  return text;
}

bool is_file(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && !S_ISDIR(status.st_mode);
}

bool is_folder(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace sdar
