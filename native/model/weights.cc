#include "model/weights.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <optional>
#include <span>
#include <thread>

#include "model/checkpoint.h"
#include "model/packed_cache.h"
#include "model/packed_stream.h"
#include "util/error.h"
#include "util/machine.h"
#include "util/mapped_file.h"

namespace sdar {
namespace {

constexpr size_t kAlignment = 64;                // what Backend::adopt asks for
constexpr int64_t kGroupBytes = 32 << 20;        // source bytes opened at once
constexpr int64_t kJobBytes = 2 << 20;           // source bytes between two looks at `cancelled`
constexpr std::chrono::milliseconds kPause{20};  // between two looks at a file that another process writes

/// Where each planned weight lies: a function of plan and Backend::layout_id() alone, so that the same bytes could be
/// mapped from a file.
struct Layout {
  std::vector<size_t> offsets;
  size_t bytes = 0;
};

Layout lay_out(const Backend& backend, const std::vector<PlannedWeight>& plan) {
  Layout layout;
  for (const PlannedWeight& weight : plan) {
    layout.offsets.push_back(layout.bytes);
    layout.bytes += (backend.packed_bytes(weight.spec) + kAlignment - 1) / kAlignment * kAlignment;
  }
  return layout;
}

std::shared_ptr<std::byte> allocate(size_t bytes, WeightFormat format) {
  const auto most = static_cast<uint64_t>(memory_limit());
  if (bytes > most)
    throw Error(code::kOutOfMemory, "the weights take " + std::to_string(bytes >> 20) + " MiB as " + name_of(format) +
                                        ", this process may use " + std::to_string(most >> 20) + " MiB");
  return map_memory(bytes);
}

void check(const WeightHooks& hooks) {
  if (hooks.cancelled && hooks.cancelled()) throw Error(code::kAborted, "loading was cancelled");
}

/// Units [begin, end) of a weight.
struct Job {
  const PlannedWeight* weight;
  const std::vector<SourceTensor>* tensors;
  std::byte* packed;
  int64_t begin, end, units;
  int64_t bytes;  // of the source
};

/// Gives back the rows that the job's units have read. Units are panels of rows in order, so shares are near enough.
void release(const TensorSource& source, const Job& job) {
  const bool side_by_side = job.weight->spec.kind == WeightKind::gate_up;
  const int64_t rows = side_by_side ? job.weight->parts[0].rows : job.weight->spec.rows;
  const int64_t begin = rows * job.begin / job.units, end = rows * job.end / job.units;
  int64_t first = 0;
  for (const TensorSpec& part : job.weight->parts) {
    const int64_t from = std::max<int64_t>(begin - first, 0), to = std::min(end - first, part.rows);
    if (from < to) source.release(part, from, to);
    if (!side_by_side) first += part.rows;
  }
}

class Packer {
 public:
  Packer(const Backend& backend, TensorSource& source, const WeightHooks& hooks, int64_t total)
      : backend_(backend),
        source_(source),
        hooks_(hooks),
        threads_(hooks.threads > 0 ? hooks.threads : backend.threads()),
        total_(total) {}

  /// Everything the plan names, into memory or, group by group, through it into a file. False when that cannot be
  /// written to.
  bool pack_all(const std::vector<PlannedWeight>& plan, const Layout& layout, std::byte* memory,
                PackedCacheStream* stream) {
    done_ = 0;  // again, after a file that could not be written to
    for (size_t begin = 0, end; begin < plan.size(); begin = end) {
      int64_t bytes = 0;
      for (end = begin; end < plan.size() && (end == begin || bytes + source_bytes(plan[end]) <= kGroupBytes); end++)
        bytes += source_bytes(plan[end]);
      pack(std::span(plan).subspan(begin, end - begin), std::span(layout.offsets).subspan(begin), memory, stream);
      if (!stream) continue;
      stream->packed(end < plan.size() ? layout.offsets[end] : layout.bytes);
      if (!stream->is_open()) return false;
    }
    source_.check();
    check_cancelled();
    return true;
  }

 private:
  static int64_t part_of(int64_t whole, int64_t part, int64_t parts) {
    return whole / parts * part + whole % parts * part / parts;
  }
  int64_t source_bytes(const PlannedWeight& weight) const {
    int64_t bytes = 0;
    for (const TensorSpec& part : weight.parts) bytes += source_.bytes(part);
    return bytes;
  }

  /// A few weights, a group small enough to be resident.
  void pack(std::span<const PlannedWeight> group, std::span<const size_t> offsets, std::byte* memory,
            PackedCacheStream* stream) {
    std::vector<std::vector<SourceTensor>> tensors(group.size());
    std::vector<std::span<const std::byte>> read;
    std::vector<Job> jobs;
    for (size_t i = 0; i < group.size(); i++) {
      check_cancelled();
      int64_t bytes = 0;
      for (const TensorSpec& part : group[i].parts) {
        tensors[i].push_back(source_.open(part));
        read.emplace_back(tensors[i].back().data, static_cast<size_t>(source_.bytes(part)));
        bytes += source_.bytes(part);
      }
      const int64_t units = backend_.pack_units(group[i].spec);
      const int64_t count = std::clamp<int64_t>(bytes / kJobBytes, 1, std::max<int64_t>(units, 1));
      for (int64_t j = 0; j < count; j++)
        jobs.push_back({&group[i], &tensors[i], memory + offsets[i], part_of(units, j, count),
                        part_of(units, j + 1, count), std::max<int64_t>(units, 1),
                        part_of(bytes, j + 1, count) - part_of(bytes, j, count)});
    }
    if (stream) stream->will_read(read);
    parallel_for(
        threads_, static_cast<int64_t>(jobs.size()),
        [&](int64_t i) {
          const Job& job = jobs[i];
          backend_.pack(job.weight->spec, *job.tensors, job.begin, job.end, job.packed);
          release(source_, job);
          done_ += job.bytes;
        },
        [&] { check_cancelled(); });
    for (const PlannedWeight& weight : group)
      for (const TensorSpec& part : weight.parts) source_.close(part);
  }

  /// Reports, and stops when asked to.
  void check_cancelled() {
    check(hooks_);
    const int64_t done = done_;
    if (hooks_.progress && done > reported_) hooks_.progress(reported_ = done, total_);
  }

  const Backend& backend_;
  TensorSource& source_;
  const WeightHooks& hooks_;
  int threads_;
  int64_t total_;
  std::atomic<int64_t> done_{0};
  int64_t reported_ = -1;
};

/// A backend with memory of its own copies each weight, so this may take as long as reading a file does. `adopted` is
/// called after each, with the bytes so far.
template <class Adopted>
void adopt(Backend& backend, const std::vector<PlannedWeight>& plan, const Layout& layout, const std::byte* packed,
           const WeightHooks& hooks, ModelWeights& weights, Adopted adopted) {
  for (size_t i = 0; i < plan.size(); i++) {
    check(hooks);
    *plan[i].handle = backend.adopt(plan[i].spec, packed + layout.offsets[i]);
    adopted(i + 1 < plan.size() ? layout.offsets[i + 1] : layout.bytes);
  }
  for (LayerWeights& layer : weights.layers) {
    for (const auto& expert : layer.expert_gate_up) layer.expert_gate_up_views.push_back(expert.get());
    for (const auto& expert : layer.expert_down) layer.expert_down_views.push_back(expert.get());
  }
}

/// The file that may hold these packed weights; none when they are small, random, or no folder was given.
std::optional<PackedCache> cache_for(const Backend& backend, const std::vector<PlannedWeight>& plan,
                                     const TensorSource& source, const WeightHooks& hooks, size_t bytes) {
  if (hooks.cache.folder.empty() || bytes < hooks.cache.above) return std::nullopt;
  const SourceFiles files = source.files();
  if (files.empty()) return std::nullopt;
  std::error_code unresolved;
  const auto given = std::filesystem::path(files[0]->path()).parent_path();
  const auto folder = std::filesystem::canonical(given, unresolved);
  std::string description = (unresolved ? given : folder).string() + "\n" + backend.layout_id() + "\n";
  for (const auto& [spec, parts, handle] : plan)
    description += std::to_string(int(spec.kind)) + name_of(spec.format) + std::to_string(spec.rows) + "x" +
                   std::to_string(spec.cols) + "\n";
  return PackedCache(hooks.cache, std::move(description), files, bytes, [&] { check(hooks); });
}

/// The entry of these weights, written now if they are many: what others write meanwhile is waited for. Null when they
/// are to be packed into memory.
std::shared_ptr<const MappedFile> entry_of(const PackedCache& cache, int threads, const WeightHooks& hooks,
                                           const std::function<bool(PackedCacheStream&)>& pack) {
  const std::function<void()> look = [&] { check(hooks); };
  for (;;) {
    if (auto entry = cache.open(threads, look)) return entry;
    if (!cache.streams()) return nullptr;
    PackedCacheStream stream(cache, threads, look);
    if (stream.is_open()) return pack(stream) ? stream.finish() : nullptr;
    if (!cache.being_written()) return nullptr;
    while (cache.being_written()) {
      look();
      std::this_thread::sleep_for(kPause);
    }
  }
}

/// Packs everything the plan names and fills in `weights`, which the plan's handles point into.
void build(Backend& backend, const std::vector<PlannedWeight>& plan, TensorSource& source, WeightFormat format,
           const WeightHooks& hooks, ModelWeights& weights) {
  const Layout layout = lay_out(backend, plan);
  int64_t total = 0;
  for (const PlannedWeight& weight : plan) {
    for (const TensorSpec& part : weight.parts) total += source.bytes(part), weights.parameters += part.elements();
  }
  weights.bytes = layout.bytes;
  const int threads = hooks.threads > 0 ? hooks.threads : backend.threads();
  const std::optional<PackedCache> cache = cache_for(backend, plan, source, hooks, layout.bytes);
  const bool copied = backend.begin_adopting(layout.bytes, format);
  Packer packer(backend, source, hooks, total);
  bool packed = false;  // all progress is reported
  if (cache) {
    weights.cache = entry_of(*cache, threads, hooks, [&](PackedCacheStream& stream) {
      return packed = packer.pack_all(plan, layout, stream.memory(), &stream);
    });
  }
  if (weights.cache) {
    adopt(backend, plan, layout, PackedCache::payload(*weights.cache), hooks, weights, [&](size_t bytes) {
      if (packed || !hooks.progress || (!copied && bytes < layout.bytes)) return;
      const double share = static_cast<double>(bytes) / static_cast<double>(layout.bytes);
      hooks.progress(bytes == layout.bytes ? total : static_cast<int64_t>(share * static_cast<double>(total)), total);
    });
    if (!copied) return;
    if (weights.cache->damaged())
      throw Error(code::kCheckpointTruncated, weights.cache->path() + " was cut short while it was read");
    weights.cache = nullptr;
    return;
  }
  const std::shared_ptr<std::byte> memory = allocate(layout.bytes, format);
  packer.pack_all(plan, layout, memory.get(), nullptr);
  adopt(backend, plan, layout, memory.get(), hooks, weights, [](size_t) {});
  if (!copied) weights.memory = memory;
  if (!cache) return;
  const auto write = std::make_shared<PackedCacheWrite>(*cache, memory);
  if (hooks.write_later)
    hooks.write_later(write);
  else
    write->run();
}

}  // namespace

ModelWeights load_weights(Backend& backend, const std::string& folder, const ModelConfig& config, WeightFormat format,
                          const WeightHooks& hooks) {
  ModelWeights weights{.experts_per_token = config.shape.experts_per_token, .norm_topk_prob = config.norm_topk_prob};
  const std::vector<PlannedWeight> plan = plan_weights(config, format, weights);
  CheckpointSource source(folder, plan, [&] { check(hooks); });
  weights.passed_over = source.passed_over();
  build(backend, plan, source, format, hooks, weights);
  return weights;
}

ModelWeights random_weights(Backend& backend, const ModelConfig& config, WeightFormat format, uint64_t seed,
                            const WeightHooks& hooks) {
  ModelWeights weights{.experts_per_token = config.shape.experts_per_token, .norm_topk_prob = config.norm_topk_prob};
  const std::vector<PlannedWeight> plan = plan_weights(config, format, weights);
  RandomSource source(seed, hooks.threads > 0 ? hooks.threads : backend.threads());
  build(backend, plan, source, format, hooks, weights);
  return weights;
}

}  // namespace sdar
