// Packed weights kept in a file: a second load maps them and computes the same; what is damaged, of other contents or
// somebody else's is packed again; what is stopped or killed leaves nothing.
#include "model/packed_cache.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "check.h"
#include "checkpoint_files.h"
#include "model/weights.h"

namespace fs = std::filesystem;
using namespace sdar;

namespace {

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator(folder)) all.push_back(entry.path());
  return all;
}

std::shared_ptr<std::byte> noise(size_t bytes, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::shared_ptr<std::byte> data = map_memory(bytes);
  for (size_t i = 0; i < bytes; i++) data.get()[i] = static_cast<std::byte>(random());
  return data;
}

/// A source file and a folder for entries.
struct Place {
  files::TempFolder root;
  std::string folder = root / "cache", source = root / "model.safetensors";
  CacheSettings settings{.folder = folder};

  Place() { files::write(source, std::string(100000, 'a')); }
  PackedCache cache(size_t bytes, const std::string& description = "model\nlayout\n") const {
    return PackedCache(settings, description, {std::make_shared<MappedFile>(source)}, bytes);
  }
  bool write(size_t bytes, const std::shared_ptr<std::byte>& data) const {
    return PackedCacheWrite(cache(bytes), data).run();
  }
  bool found(size_t bytes, const std::shared_ptr<std::byte>& data) const {
    const auto file = cache(bytes).open(2, {});
    return file && memcmp(PackedCache::payload(*file), data.get(), bytes) == 0;
  }
  std::vector<fs::path> entries() const { return files_in(folder); }
};

/// Changes a byte where no size and no time tells of it.
void change_quietly(const std::string& path, std::streamoff at) {
  struct stat before;
  CHECK(stat(path.c_str(), &before) == 0);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const char old = static_cast<char>(file.get());
  file.seekp(at).put(static_cast<char>(old ^ 0x10)).flush();
  const timespec times[2] = {before.st_atim, before.st_mtim};
  CHECK(utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

struct Model {
  files::TempFolder cache;
  std::string folder;
  std::unique_ptr<Backend> backend = cpu::make_reference_backend(1);
  ModelConfig config;
  WeightHooks hooks{.threads = 2, .cache = {.folder = cache.path, .above = 1000}};

  explicit Model(const std::string& path) : folder(path), config(read_config(path)) {}
  ModelWeights load(WeightFormat format) { return load_weights(*backend, folder, config, format, hooks); }
};

/// One forward's worth of proof that two loads hold the same weights: their packed bytes.
std::string bytes_of(const ModelWeights& weights) {
  const void* data = weights.cache ? PackedCache::payload(*weights.cache) : weights.memory.get();
  return std::string(static_cast<const char*>(data), weights.bytes);
}

struct Copy : files::TempFolder {
  explicit Copy(const char* of) {
    fs::copy(of, path, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    for (const auto& file : files_in(path)) fs::permissions(file, fs::perms::owner_all);
  }
};

}  // namespace

TEST("what was written is mapped again, for its description and size alone") {
  for (size_t size : {size_t(1), size_t(100), size_t(16 << 20), size_t((16 << 20) + 5)}) {
    const Place place;
    const auto data = noise(size);
    CHECK(!place.found(size, data) && place.write(size, data) && place.found(size, data));
    CHECK(place.entries().size() == 1 && place.entries()[0] == place.cache(size).path());
    CHECK(place.cache(size, "model\nother\n").open(1, {}) == nullptr);
    CHECK(place.cache(size + 1).open(1, {}) == nullptr);
  }
}

TEST("a damaged file is not used: every byte counts") {
  const Place place;
  const auto data = noise(50000);
  CHECK(place.write(50000, data));
  const std::string path = place.cache(50000).path();
  const auto size = fs::file_size(path);
  std::mt19937 random(3);
  for (int i = 0; i < 100; i++) {
    const auto at = static_cast<std::streamoff>(random() % size);
    change_quietly(path, at);
    CHECK(!place.found(50000, data));
    change_quietly(path, at);
  }
  CHECK(place.found(50000, data));
  for (const size_t left : {size - 1, size_t{3}, size_t{0}}) {
    fs::resize_file(path, left);
    CHECK(!place.found(50000, data));
  }
  CHECK(place.write(50000, data) && place.found(50000, data));
}

TEST("contents decide, whatever sizes and times say; a file that was only touched, copied or renamed is known again") {
  const Place place;
  const auto data = noise(5000), other = noise(5000, 2);
  CHECK(place.write(5000, data));
  change_quietly(place.source, 77777);
  CHECK(!place.found(5000, data));
  change_quietly(place.source, 77777);  // its old contents under new stamps
  CHECK(place.found(5000, data) && place.found(5000, data) && place.entries().size() == 1);
  const std::string text = files::read(place.source);
  files::write(place.source, text);
  CHECK(place.found(5000, data) && place.entries()[0] == place.cache(5000).path());
  change_quietly(place.source, 5);
  CHECK(place.write(5000, other) && place.found(5000, other) && place.entries().size() == 1);
  files::write(place.source, text + "b");
  CHECK(!place.found(5000, other) && place.write(5000, data) && place.found(5000, data));
  CHECK(place.entries().size() == 1);
}

TEST("an entry is not written when its source has changed since it was mapped") {
  const Place place;
  PackedCacheWrite write(place.cache(1000), noise(1000));
  change_quietly(place.source, 3);
  CHECK(!write.run() && place.entries().empty());
}

TEST("waiting for a file that has just changed can be stopped") {
  const Place place;
  bool stopped = false;
  for (int i = 0; i < 50 && !stopped; i++) {
    files::write(place.source, "just changed");
    try {
      PackedCache({.folder = place.folder}, "model\n", {std::make_shared<MappedFile>(place.source)}, 1,
                  [] { throw sdar::Error(sdar::code::kAborted, "stopped"); });
    } catch (const sdar::Error&) {
      stopped = true;
    }
  }
  CHECK(stopped);
}

TEST("files of others, that others can write to, links and folders are not used") {
  const Place place;
  const auto data = noise(1000);
  CHECK(place.write(1000, data));
  const fs::path path = place.cache(1000).path();
  for (const auto perms : {fs::perms::group_write, fs::perms::others_write}) {
    fs::permissions(path, perms, fs::perm_options::add);
    CHECK(!place.found(1000, data));
    fs::permissions(path, perms, fs::perm_options::remove);
    CHECK(place.found(1000, data));
  }
  if (geteuid() == 0) {
    CHECK(chown(path.c_str(), 12345, 12345) == 0 && !place.found(1000, data));
    CHECK(chown(path.c_str(), 0, 0) == 0 && place.found(1000, data));
  }
  const fs::path elsewhere = place.root / "elsewhere";
  fs::rename(path, elsewhere);
  fs::create_symlink(elsewhere, path);
  CHECK(!place.found(1000, data));
  fs::remove(path);
  fs::create_directory(path);
  CHECK(!place.found(1000, data) && !place.write(1000, data));
  fs::remove(path);
  CHECK(mkfifo(path.c_str(), 0600) == 0 && !place.found(1000, data));
}

TEST("in a folder that others can write to, names are not believed") {
  const Place place;
  const auto data = noise(1000);
  CHECK(place.write(1000, data));
  fs::permissions(place.folder, fs::perms::all);
  CHECK(place.found(1000, data));
  const fs::path old = place.cache(1000).path();
  change_quietly(place.source, 9);
  fs::rename(old, place.cache(1000).path());
  CHECK(!place.found(1000, data));
}

TEST("what killed processes left is removed, what is being written stays and is not written twice") {
  const Place place;
  const auto data = noise(1000);
  CHECK(place.write(1000, data));
  const std::string path = place.cache(1000).path();
  fs::remove(path);
  files::write(path + ".1.tmp", "half");  // as a process of an equal id may have left it
  const std::string busy = path + ".2.tmp";
  files::write(busy, "half");
  const int file = open(busy.c_str(), O_RDWR | O_CLOEXEC);
  CHECK(flock(file, LOCK_EX) == 0);
  CHECK(!place.write(1000, data) && !place.found(1000, data));
  CHECK(!fs::exists(path + ".1.tmp") && fs::exists(busy));
  close(file);
  CHECK(place.write(1000, data) && place.found(1000, data) && place.entries().size() == 1);
  files::write(place.folder + "/somebody.else", "x");
  CHECK(place.found(1000, data) && place.entries().size() == 2);
}

TEST("entries go by size, the longest unused first, and by age") {
  Place place;
  const auto data = noise(100000);
  const auto write = [&](const std::string& name) {
    return PackedCacheWrite(place.cache(100000, name + "\n"), data).run();
  };
  const auto there = [&](const std::string& name) { return place.cache(100000, name + "\n").open(1, {}) != nullptr; };
  const auto used = [&](const std::string& name, int64_t seconds_ago) {
    const std::string path = place.cache(100000, name + "\n").path();
    const timespec time{.tv_sec = ::time(nullptr) - seconds_ago, .tv_nsec = 0}, times[2] = {time, time};
    CHECK(utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
  };
  CHECK(write("a") && write("b") && write("c"));
  used("a", 300), used("b", 200), used("c", 100);
  CHECK(there("a"));  // and thereby used
  place.settings.limit = 350000;
  CHECK(write("d") && place.entries().size() == 3 && !there("b") && there("a") && there("c") && there("d"));
  place.settings.limit = 90000;
  CHECK(!write("e"));
  place.settings.limit = 1 << 30;
  CHECK(!there("e") && there("d"));
  used("c", 91 * 86400);
  CHECK(there("d") && !there("c") && place.entries().size() == 2);
}

TEST("a folder or disk that cannot take the file harms nothing and leaves nothing behind") {
  Place place;
  files::write(place.root / "file", "x");
  place.settings.folder = place.root / "file";
  CHECK(!place.write(10, noise(10)));
  place.settings.folder = "/proc/no";
  CHECK(!place.write(10, noise(10)));
  place.settings.folder = place.folder;
  const auto data = noise(3 << 20);
  signal(SIGXFSZ, SIG_IGN);  // a thread of the addon blocks it
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{.rlim_cur = 1 << 20, .rlim_max = old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const bool written = place.write(3 << 20, data);
  setrlimit(RLIMIT_FSIZE, &old);
  CHECK(!written && place.entries().empty());
  CHECK(place.write(3 << 20, data) && place.found(3 << 20, data));
}

TEST("stopped at any moment it leaves nothing, or the whole") {
  const size_t size = size_t{24} << 20;
  const auto data = noise(size);
  int whole = 0;
  for (int i = 0; i < 12; i++) {
    const Place place;
    PackedCacheWrite write(place.cache(size), data);
    bool written = false;
    std::thread thread([&] { written = write.run(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(2 * i * i));
    const auto asked = std::chrono::steady_clock::now();
    write.stop();
    CHECK(place.entries().size() <= 1);
    for (const auto& file : place.entries()) CHECK(file.extension() == ".sdarpack");
    thread.join();
    CHECK(std::chrono::steady_clock::now() - asked < std::chrono::seconds(1));
    CHECK(place.entries().size() == (written ? 1u : 0u) && place.found(size, data) == written);
    whole += written;
  }
  CHECK(whole < 12);
}

TEST("killed at any moment: the next one writes it and removes the rest") {
  const size_t size = size_t{8} << 20;
  const auto data = noise(size);
  const int rounds = getenv("SDAR_TEST_QUICK") ? 8 : 60;
  for (int i = 0; i < rounds; i++) {
    const Place place;
    fs::create_directory(place.folder);
    const PackedCache cache = place.cache(size);
    const pid_t child = fork();
    if (child == 0) _exit(PackedCacheWrite(cache, data).run() ? 0 : 1);
    std::this_thread::sleep_for(std::chrono::microseconds(20000 * i / rounds));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (!place.found(size, data)) CHECK(place.write(size, data));
    CHECK(place.found(size, data) && place.entries().size() == 1);
  }
}

TEST("a second load maps the file, one of changed weights does not") {
  const Copy copy("test/golden/tiny-dense");
  Model model(copy.path);
  const auto first = model.load(WeightFormat::int8);
  CHECK(!first.cache && files_in(model.cache.path).size() == 1);
  const auto second = model.load(WeightFormat::int8);
  CHECK(second.cache && bytes_of(first) == bytes_of(second));
  CHECK(second.parameters == first.parameters && second.embedding && second.layers.size() == first.layers.size());
  CHECK(!model.load(WeightFormat::bf16).cache && files_in(model.cache.path).size() == 2);
  change_quietly(copy / "model.safetensors",
                 static_cast<std::streamoff>(fs::file_size(copy / "model.safetensors") - 97));
  const auto changed = model.load(WeightFormat::int8);
  CHECK(!changed.cache && bytes_of(changed) != bytes_of(first));
  CHECK(model.load(WeightFormat::int8).cache && files_in(model.cache.path).size() == 2);
}

TEST("a damaged file is packed again and replaced; one that is written to while it is in use says so") {
  Model model("test/golden/tiny-tied");
  const auto first = model.load(WeightFormat::bf16);
  const fs::path file = files_in(model.cache.path).at(0);
  fs::resize_file(file, fs::file_size(file) / 2);
  CHECK(!model.load(WeightFormat::bf16).cache);
  const auto again = model.load(WeightFormat::bf16), too = model.load(WeightFormat::bf16);
  CHECK(again.cache && bytes_of(again) == bytes_of(first) && !again.cache->damaged());
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary).seekp(9000).put('x').flush();
  CHECK(again.cache->damaged());
  fs::resize_file(file, fs::file_size(file) / 2);
  CHECK(again.cache->damaged() && too.cache->truncated());
}

TEST("a load can be stopped while it looks at the file") {
  Model model("test/golden/tiny-tied");
  model.load(WeightFormat::bf16);
  for (int after = 0; after < 3; after++) {
    int asked = 0;
    model.hooks.cancelled = [&] { return asked++ == after; };
    CHECK_THROWS("ABORTED", "cancelled", model.load(WeightFormat::bf16));
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
