#include "util/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <memory>
#include <thread>

#include "check.h"
#include "checkpoint_files.h"
#include "util/error.h"
#include "util/machine.h"

using namespace sdar;

namespace {

uint64_t sum(const MappedFile& file) {
  uint64_t total = 0;
  for (const std::byte b : file.bytes()) total += std::to_integer<uint64_t>(b);
  return total;
}

/// Exit status of a child that runs `body`; a signal counts as 1000 + its number.
int in_child(const std::function<int()>& body) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    close(2);  // a sanitizer's report about the fault we want
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// A fault in a mapping that is not ours.
int foreign_fault(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR);
  const auto* data = static_cast<const volatile char*>(mmap(nullptr, 1 << 16, PROT_READ, MAP_SHARED, file, 0));
  if (ftruncate(file, 0) != 0) return 3;
  return data[1 << 15] == 0 ? 4 : 5;
}

}  // namespace

// First: a child of a process that has no handler of ours yet.
TEST("faults elsewhere go to the handler that was there before") {
  files::TempFolder folder;
  files::write(folder / "a", std::string(1 << 16, 'x'));
  files::write(folder / "b", std::string(1 << 16, 'x'));
  const int status = in_child([&] {
    struct sigaction action = {};
    action.sa_handler = [](int) { _exit(42); };
    sigaction(SIGBUS, &action, nullptr);
    const MappedFile ours(folder / "a");
    std::filesystem::resize_file(folder / "a", 0);
    if (sum(ours) != 0 || !ours.damaged()) return 6;  // caught
    return foreign_fault(folder / "b");
  });
  CHECK(status == 42);
}

TEST("faults elsewhere still end the process when nobody handles them") {
  files::TempFolder folder;
  files::write(folder / "a", "x");
  files::write(folder / "b", std::string(1 << 16, 'x'));
  const auto with_default = [&](const std::function<int()>& body) {
    return in_child([&] {
      signal(SIGBUS, SIG_DFL);
      const MappedFile ours(folder / "a");
      return body();
    });
  };
  CHECK(with_default([&] { return foreign_fault(folder / "b"); }) == 1000 + SIGBUS);
  CHECK(with_default([] { return raise(SIGBUS); }) == 1000 + SIGBUS);
}

TEST("bytes, size, empty files") {
  files::TempFolder folder;
  files::write(folder / "a", "hello");
  const MappedFile file(folder / "a");
  CHECK(file.bytes().size() == 5 && std::memcmp(file.bytes().data(), "hello", 5) == 0);
  CHECK(file.path() == folder / "a" && !file.damaged());
  files::write(folder / "empty", "");
  const MappedFile empty(folder / "empty");
  CHECK(empty.bytes().empty() && !empty.damaged());
  empty.release(0, 10);
}

TEST("what cannot be mapped") {
  files::TempFolder folder;
  CHECK_THROWS("FILE_NOT_FOUND", "absent: no such file", MappedFile(folder / "absent"));
  CHECK_THROWS("FILE_UNREADABLE", "is a folder", MappedFile(folder.path));
  mkfifo((folder / "pipe").c_str(), 0600);
  CHECK_THROWS("FILE_UNREADABLE", "no regular file", MappedFile(folder / "pipe"));
  files::write(folder / "locked", "x");
  chmod((folder / "locked").c_str(), 0);
  if (geteuid() != 0) CHECK_THROWS("FILE_UNREADABLE", "cannot be read", MappedFile(folder / "locked"));
}

TEST("a file truncated while mapped reads as zeros and is damaged") {
  files::TempFolder folder;
  const size_t size = 1 << 20;
  for (const size_t left : {size_t{0}, size_t{1}, size_t{4096}, size_t{5000}, size - 1}) {
    files::write(folder / "a", std::string(size, '\1'));
    const MappedFile file(folder / "a");
    CHECK(sum(file) == size && !file.damaged());
    std::filesystem::resize_file(folder / "a", left);
    const uint64_t total = sum(file);
    CHECK(total == left);
    CHECK(file.damaged());
    CHECK(sum(file) == total);
  }
}

TEST("damage is remembered when the file grows back, and belongs to one mapping") {
  files::TempFolder folder;
  files::write(folder / "a", std::string(1 << 16, '\1'));
  files::write(folder / "b", std::string(1 << 16, '\1'));
  const auto a = std::make_unique<MappedFile>(folder / "a");
  const MappedFile b(folder / "b");
  std::filesystem::resize_file(folder / "a", 0);
  CHECK(sum(*a) == 0);
  std::filesystem::resize_file(folder / "a", 1 << 16);
  CHECK(a->damaged() && !b.damaged());
  const MappedFile again(folder / "a");
  CHECK(!again.damaged() && again.bytes().size() == 1 << 16 && sum(again) == 0);
}

TEST("released pages can be read again") {
  files::TempFolder folder;
  files::write(folder / "a", std::string(100000, '\1'));
  const MappedFile file(folder / "a");
  CHECK(sum(file) == 100000);
  file.release(5000, 90000);
  file.release(99999, 50);
  file.release(1 << 30, 5);
  file.prefetch(0, 1 << 30);
  CHECK(sum(file) == 100000 && !file.damaged());
}

TEST("truncation while several threads read") {
  files::TempFolder folder;
  const size_t size = 4 << 20;
  for (int round = 0; round < 5; round++) {
    files::write(folder / "a", std::string(size, '\1'));
    const MappedFile file(folder / "a");
    std::atomic<int> reading{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; t++)
      threads.emplace_back([&] {
        for (int i = 0; i < 4; i++) {
          reading++;
          sum(file);
        }
      });
    while (reading == 0) std::this_thread::yield();
    std::filesystem::resize_file(folder / "a", 12345);
    for (std::thread& thread : threads) thread.join();
    CHECK(sum(file) == 12345 && file.damaged());
  }
}

TEST("mappings come and go in several threads") {
  files::TempFolder folder;
  files::write(folder / "a", std::string(1 << 14, '\1'));
  parallel_for(3, 3, [&](int64_t t) {
    const std::string mine = folder / std::to_string(t);
    for (int i = 0; i < 100; i++) {
      const MappedFile whole(folder / "a");
      files::write(mine, std::string(1 << 14, '\1'));
      const MappedFile cut(mine);
      std::filesystem::resize_file(mine, 0);
      if (sum(cut) != 0 || !cut.damaged() || sum(whole) != 1 << 14 || whole.damaged()) throw Error("INTERNAL", "wrong");
    }
  });
}

TEST("parallel_for runs every job once and hands on what is thrown") {
  for (const int threads : {1, 2, 5}) {
    std::vector<std::atomic<int>> runs(1000);
    int64_t looks = 0;
    parallel_for(
        threads, 1000, [&](int64_t i) { runs[i]++; }, [&] { looks++; });
    bool once = true;
    for (const auto& n : runs) once &= n == 1;
    CHECK(once && looks >= 1);
    CHECK_THROWS("ABORTED", "job", parallel_for(threads, 100, [](int64_t i) {
                   if (i == 50) throw Error("ABORTED", "job");
                 }));
    CHECK_THROWS("ABORTED", "look",
                 parallel_for(
                     threads, 100, [](int64_t) {}, [] { throw Error("ABORTED", "look"); }));
  }
  parallel_for(2, 0, [](int64_t) { CHECK(false); });
}

int main(int c, char** v) { return check::run(c, v); }
