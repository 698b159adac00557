// Packed weights that are written while they are packed: the same bytes, in little memory, whatever happens meanwhile.
#include "model/packed_stream.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "backend/cpu/cpu.h"
#include "bench/shapes.h"
#include "check.h"
#include "checkpoint_files.h"
#include "model/weights.h"

namespace fs = std::filesystem;
using namespace sdar;

namespace {

const bool kFull = std::getenv("SDAR_TEST_FULL") != nullptr;

size_t files_in(const std::string& folder) {
  if (!fs::exists(folder)) return 0;
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

size_t entries_in(const std::string& folder) {
  size_t count = 0;
  if (!fs::exists(folder)) return 0;
  for (const auto& file : fs::directory_iterator(folder)) count += file.path().extension() == ".sdarpack";
  return count;
}

/// Bytes of memory of this process's own: neither those of mapped files nor what the system keeps of files.
size_t own_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::stoull(line.substr(8)) << 10;
  throw check::Skip{"this system does not say how much memory a process has"};
}

/// A checkpoint in shards, of random weights, and a folder for what is packed of it.
struct Model {
  files::TempFolder root;
  std::string folder = root / "model", cache = root / "cache";
  std::unique_ptr<Backend> backend = cpu::make_backend({.threads = 2});
  ModelConfig config;
  CacheSettings settings{.folder = cache, .above = 0, .stream_above = 0};

  explicit Model(ModelConfig c, int64_t shard_bytes = 5 << 20) : config(std::move(c)) {
    write_checkpoint(folder, config, {.seed = 3, .shard_bytes = shard_bytes}, {.threads = 2});
  }
  ModelWeights load(WeightFormat format, WeightHooks hooks = {}) {
    hooks.cache = settings;
    return load_weights(*backend, folder, config, format, hooks);
  }
  ModelWeights load_without(WeightFormat format) { return load_weights(*backend, folder, config, format, {}); }
};

/// 8 experts, 4 MB in bf16; `scale` makes the experts so many times wider.
ModelConfig small(int32_t scale = 1) {
  ModelConfig config = shape_config("sdar-30b-a3b", 2);
  config.shape.hidden = 256;
  config.shape.heads = 4, config.shape.kv_heads = 2, config.shape.head_dim = 64;
  config.shape.vocabulary = 2000;
  config.shape.experts = 8, config.shape.experts_per_token = 2, config.shape.moe_intermediate = 128 * scale;
  config.mask_token_id = 1999, config.end_token_ids = {1};
  return config;
}

bool equal(const ModelWeights& mapped, const ModelWeights& packed) {
  return mapped.cache && packed.memory && mapped.bytes == packed.bytes &&
         std::memcmp(PackedCache::payload(*mapped.cache), packed.memory.get(), packed.bytes) == 0;
}

/// The most memory of its own that a load takes beyond what there was.
size_t peak_of_load(Model& model, WeightFormat format) {
  const size_t before = own_memory();
  size_t peak = before;
  const auto look = [&] { peak = std::max(peak, own_memory()); };
  model.load(format, {.cancelled = [&] { return look(), false; }, .threads = 2});
  return peak - before;
}

}  // namespace

TEST("the first load maps what it wrote, the same as is packed in memory; the second maps it too") {
  Model model(small());
  for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    std::vector<int64_t> seen;
    int64_t total = 0;
    const auto first = model.load(
        format, {.progress = [&](int64_t done, int64_t all) { seen.push_back(done), total = all; }, .threads = 2});
    const auto plain = model.load_without(format);
    CHECK(equal(first, plain) && first.parameters == plain.parameters && first.layers[1].expert_down_views.size() == 8);
    CHECK(seen.front() == 0 && seen.back() == total && std::is_sorted(seen.begin(), seen.end()));
    const auto second = model.load(format);
    CHECK(equal(second, plain) && second.cache->path() == first.cache->path());
    CHECK(!first.cache->damaged());
  }
  CHECK(files_in(model.cache) == 4);
}

TEST("packed weights take no memory but those of a few experts at a time") {
  Model model(small(48));  // 150 MB of experts in bf16
  const size_t little = size_t{72} << 20, bytes = model.load_without(WeightFormat::bf16).bytes;
  CHECK(bytes > 2 * little);
  const size_t streamed = peak_of_load(model, WeightFormat::bf16);
#ifndef __SANITIZE_ADDRESS__  // which keeps what is freed
  CHECK(streamed < little);
#endif
  fs::remove_all(model.cache);
  model.settings.stream_above = bytes;
  CHECK(peak_of_load(model, WeightFormat::bf16) > bytes / 2);  // so it is seen where it is taken
}

TEST("a checkpoint of 8 GB is packed in less than 2 GiB") {
  if (!kFull) throw check::Skip{"SDAR_TEST_FULL=1"};
  Model model(shape_config("sdar-30b-a3b", 6), int64_t{2} << 30);
  model.settings.stream_above = CacheSettings{}.stream_above;
  for (const WeightFormat format : {WeightFormat::int4, WeightFormat::int8}) {
    const size_t peak = peak_of_load(model, format);
    std::printf("# %s: %zu MiB of memory at most\n", name_of(format), peak >> 20);
    CHECK(peak < size_t{2} << 30);
    fs::remove_all(model.cache);
  }
}

TEST("the hash of the sources does not depend on the order in which they are read") {
  files::TempFolder folder;
  SourceFiles sources;
  for (const size_t size : {size_t{0}, size_t{5}, kChunkBytes, 3 * kChunkBytes + 7}) {
    const std::string path = folder / std::to_string(size);
    files::write(path, std::string(size, 'x'));
    sources.push_back(std::make_shared<MappedFile>(path));
  }
  const std::string expected = SourceHashes(sources, 11).text(2, {});
  CHECK(expected.size() == SourceHashes(sources, 11).text_bytes() && key_in(expected) == 11);
  SourceHashes other(sources, 11);
  const auto last = sources[3]->bytes();
  const std::span<const std::byte> parts[] = {last.subspan(2 * kChunkBytes - 1, 2),
                                              last.subspan(9, 20),
                                              {},
                                              sources[1]->bytes(),
                                              std::as_bytes(std::span("elsewhere"))};
  other.add(parts, 2, {});
  CHECK(other.text(1, {}) == expected);
  CHECK(SourceHashes(sources, 12).text(2, {}) != expected);
}

TEST("a disk that does not take the file: packed in memory, nothing is left behind") {
  Model model(small(8));
  const auto plain = model.load_without(WeightFormat::bf16);
  signal(SIGXFSZ, SIG_IGN);  // a thread of the addon blocks it
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  for (const rlim_t most : {rlim_t{0}, rlim_t{17} << 20, static_cast<rlim_t>(plain.bytes)}) {
    std::vector<int64_t> seen;
    const rlimit small{.rlim_cur = most, .rlim_max = old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    const auto weights =
        model.load(WeightFormat::bf16, {.progress = [&](int64_t done, int64_t) { seen.push_back(done); }});
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK(!weights.cache && weights.bytes == plain.bytes);
    CHECK(weights.memory && std::memcmp(weights.memory.get(), plain.memory.get(), plain.bytes) == 0);
    CHECK(std::is_sorted(seen.begin(), seen.end()) && files_in(model.cache) == 0);
  }
}

TEST("cancelled at any moment it leaves nothing, or the whole") {
  Model model(small(4));
  int after = 0;
  for (bool loaded = false; !loaded; after += 3) {
    fs::remove_all(model.cache);
    int asked = 0;
    try {
      const WeightHooks hooks{.cancelled = [&] { return asked++ == after; }, .threads = 2};
      loaded = model.load(WeightFormat::int8, hooks).cache != nullptr;
    } catch (const Error& e) {
      CHECK(e.code() == std::string(code::kAborted));
    }
    CHECK(files_in(model.cache) == entries_in(model.cache) && entries_in(model.cache) <= 1);
  }
  CHECK(after > 9);
}

TEST("killed at any moment: the next load writes it and removes the rest") {
  Model model(small(8));
  const auto plain = model.load_without(WeightFormat::bf16);
  const int rounds = getenv("SDAR_TEST_QUICK") ? 6 : 40;
  for (int i = 0; i < rounds; i++) {
    fs::remove_all(model.cache);
    const pid_t child = fork();
    if (child == 0) {
      model.backend.release();  // its threads are not in this process
      const auto one = cpu::make_backend({.threads = 1});
      int asked = 0;
      WeightHooks hooks{.cancelled = [&] { return asked++ == 10 * i ? raise(SIGKILL), true : false; }, .threads = 1};
      hooks.cache = model.settings;
      load_weights(*one, model.folder, model.config, WeightFormat::bf16, hooks);
      _exit(0);
    }
    waitpid(child, nullptr, 0);
    CHECK(equal(model.load(WeightFormat::bf16), plain));
    CHECK(files_in(model.cache) == 1 && entries_in(model.cache) == 1);
  }
}

TEST("a load waits for another that writes the same, and maps what it wrote") {
  Model model(small(4));
  const auto other = cpu::make_backend({.threads = 1});
  std::atomic<bool> begun{false};
  std::atomic<int> waited{0};
  ModelWeights second;
  std::thread thread([&] {
    while (!begun) std::this_thread::yield();
    WeightHooks hooks{.cancelled = [&] { return waited++, false; }, .threads = 1};
    hooks.cache = model.settings;
    second = load_weights(*other, model.folder, model.config, WeightFormat::int8, hooks);
  });
  const auto first = model.load(WeightFormat::int8, {.cancelled =
                                                         [&] {
                                                           // In the middle of its file, until the other waits for it.
                                                           if (files_in(model.cache) == 0) return false;
                                                           begun = true;
                                                           while (waited < 20) std::this_thread::yield();
                                                           return false;
                                                         },
                                                     .threads = 1});
  thread.join();
  CHECK(equal(first, model.load_without(WeightFormat::int8)));
  CHECK(second.cache && second.cache->path() == first.cache->path() && files_in(model.cache) == 1);
}

TEST("a source that changes while it is packed is an error, and nothing is kept") {
  Model model(small(4));
  bool changed = false;
  const auto change = [&](int64_t done, int64_t) {
    if (done == 0 || changed) return;
    changed = true;
    for (const auto& file : fs::directory_iterator(model.folder)) {
      if (file.path().extension() != ".safetensors") continue;
      std::fstream(file.path(), std::ios::in | std::ios::out | std::ios::binary).seekp(-1, std::ios::end).put('x');
    }
  };
  CHECK_THROWS("CHECKPOINT_INVALID", "was written to", model.load(WeightFormat::bf16, {.progress = change}));
  CHECK(changed && files_in(model.cache) == 0);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
