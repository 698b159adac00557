// Packed weights kept in a file: a second load maps them and computes the same; a damaged file is packed again.
#include "model/packed_cache.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "check.h"
#include "model/weights.h"

namespace fs = std::filesystem;
using sdar::PackedCache;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("sdar-cache-" + std::to_string(std::random_device{}()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::vector<fs::path> files() const {
    std::vector<fs::path> all;
    for (const auto& entry : fs::directory_iterator(path)) all.push_back(entry.path());
    return all;
  }
};

std::vector<std::byte> noise(size_t bytes) {
  std::mt19937_64 random(bytes);
  std::vector<std::byte> data(bytes);
  for (auto& b : data) b = static_cast<std::byte>(random());
  return data;
}

bool same(const sdar::MappedFile& file, const std::vector<std::byte>& data) {
  return memcmp(PackedCache::payload(file), data.data(), data.size()) == 0;
}

/// One forward's worth of proof that two loads hold the same weights: their packed bytes.
std::string bytes_of(const sdar::ModelWeights& weights) {
  const void* data = weights.cache ? PackedCache::payload(*weights.cache) : weights.memory.get();
  return std::string(static_cast<const char*>(data), weights.bytes);
}

}  // namespace

TEST("what was written is mapped again, for its identity and size alone") {
  Folder folder;
  for (size_t size : {size_t(1), size_t(100), size_t(16 << 20), size_t((16 << 20) + 5)}) {
    const auto data = noise(size);
    const PackedCache cache(folder.path / "deeper", "identity " + std::to_string(size), size);
    CHECK(cache.open(2) == nullptr);
    CHECK(cache.write(data, 2));
    const auto file = cache.open(2);
    CHECK(file && same(*file, data));
    CHECK(PackedCache(folder.path / "deeper", "other " + std::to_string(size), size).open(1) == nullptr);
    CHECK(PackedCache(folder.path / "deeper", "identity " + std::to_string(size), size + 1).open(1) == nullptr);
  }
}

TEST("a damaged file is not used: every byte counts") {
  Folder folder;
  const auto data = noise(50000);
  const PackedCache cache(folder.path, "identity", data.size());
  CHECK(cache.write(data, 1));
  const auto size = fs::file_size(cache.path());
  std::mt19937 random(3);
  for (int i = 0; i < 200; i++) {
    const auto at = static_cast<std::streamoff>(random() % size);
    std::fstream file(cache.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char old = static_cast<char>(file.get());
    file.seekp(at).put(static_cast<char>(old ^ 0x10)).flush();
    CHECK(cache.open(1) == nullptr);
    file.seekp(at).put(old).flush();
  }
  CHECK(cache.open(1) != nullptr);
  fs::resize_file(cache.path(), size - 1);
  CHECK(cache.open(1) == nullptr);
  fs::resize_file(cache.path(), 3);
  CHECK(cache.open(1) == nullptr);
  fs::resize_file(cache.path(), 0);
  CHECK(cache.open(1) == nullptr);
}

TEST("a folder that cannot be written harms nothing and leaves nothing behind") {
  Folder folder;
  std::ofstream(folder.path / "file") << "x";
  CHECK(!PackedCache(folder.path / "file", "identity", 10).write(noise(10), 1));
  CHECK(folder.files().size() == 1);
}

TEST("a second load maps the file, one of changed weights does not") {
  Folder cache, model;
  fs::copy("test/golden/tiny-dense", model.path, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  const auto config = sdar::read_config(model.path);
  const auto backend = sdar::cpu::make_reference_backend(1);
  const sdar::WeightHooks hooks{
      .progress = {}, .cancelled = {}, .threads = 2, .cache_folder = cache.path, .cache_above = 1000};
  const auto load = [&](sdar::WeightFormat format) {
    return sdar::load_weights(*backend, model.path, config, format, hooks);
  };
  const auto first = load(sdar::WeightFormat::int8);
  CHECK(!first.cache && cache.files().size() == 1);
  const auto second = load(sdar::WeightFormat::int8);
  CHECK(second.cache && bytes_of(first) == bytes_of(second));
  CHECK(second.parameters == first.parameters && second.embedding && second.layers.size() == first.layers.size());
  CHECK(!load(sdar::WeightFormat::bf16).cache && cache.files().size() == 2);

  const fs::path file = model.path / "model.safetensors";
  fs::permissions(file, fs::perms::owner_all);
  std::fstream weights(file, std::ios::in | std::ios::out | std::ios::binary);
  weights.seekp(static_cast<std::streamoff>(fs::file_size(file) - 100)).put('\x3c').flush();
  CHECK(!load(sdar::WeightFormat::int8).cache);
}

TEST("a damaged file is packed again and replaced") {
  Folder cache;
  const auto config = sdar::read_config("test/golden/tiny-tied");
  const auto backend = sdar::cpu::make_reference_backend(1);
  const sdar::WeightHooks hooks{
      .progress = {}, .cancelled = {}, .threads = 1, .cache_folder = cache.path, .cache_above = 1000};
  const auto load = [&] {
    return sdar::load_weights(*backend, "test/golden/tiny-tied", config, sdar::WeightFormat::bf16, hooks);
  };
  const auto first = load();
  const fs::path file = cache.files().at(0);
  fs::resize_file(file, fs::file_size(file) / 2);
  CHECK(!load().cache);
  const auto again = load();
  CHECK(again.cache && bytes_of(again) == bytes_of(first));
  fs::resize_file(file, fs::file_size(file) / 2);  // while it is in use
  CHECK(again.cache->damaged());
}

int main(int argc, char** argv) { return check::run(argc, argv); }
