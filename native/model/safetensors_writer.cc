#include "model/safetensors_writer.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>

#include "util/error.h"
#include "util/half.h"
#include "util/machine.h"
#include "util/output_file.h"

namespace sdar {
namespace {

/// A file's tensors, in the order in which they lie: by name, as the safetensors library has them.
struct Shard {
  std::vector<const TensorSpec*> tensors;
  int64_t bytes = 0;
};

/// Length, JSON padded to 8 bytes. Source: https://github.com/huggingface/safetensors
std::string header_of(const Shard& shard, DType dtype) {
  std::string text = "{\"__metadata__\":{\"format\":\"pt\"}";
  int64_t at = 0;
  for (const TensorSpec* t : shard.tensors) {
    const int64_t end = at + t->elements() * static_cast<int64_t>(bytes_of(dtype));
    const std::string rows = t->vector ? "" : std::to_string(t->rows) + ",";
    text += ",\"" + t->name + "\":{\"dtype\":\"" + name_of(dtype) + "\",\"shape\":[" + rows + std::to_string(t->cols) +
            "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(end) + "]}";
    at = end;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

/// `count` elements from `begin` on, in the file's type.
void convert(const SourceTensor& tensor, int64_t begin, int64_t count, DType dtype, std::byte* to) {
  const std::byte* from = tensor.data + begin * static_cast<int64_t>(bytes_of(tensor.dtype));
  for (int64_t i = 0; i < count; i++) {
    if (dtype == DType::f32) {
      uint16_t half;
      std::memcpy(&half, from + 2 * i, sizeof half);
      const float value = bf16_to_f32(half);
      std::memcpy(to + 4 * i, &value, sizeof value);
    } else {
      float value;
      std::memcpy(&value, from + 4 * i, sizeof value);
      const uint16_t half = f32_to_bf16(value);
      std::memcpy(to + 2 * i, &half, sizeof half);
    }
  }
}

class Writer {
 public:
  Writer(const std::string& folder, const std::vector<TensorSpec>& tensors, TensorSource& source,
         const TensorFileOptions& options, const WeightHooks& hooks)
      : folder_(folder), source_(source), options_(options), hooks_(hooks) {
    shards_.emplace_back();
    for (const TensorSpec& tensor : tensors) {
      const int64_t bytes = bytes_in_file(tensor);
      if (shards_.back().bytes > 0 && shards_.back().bytes + bytes > options.shard_bytes) shards_.emplace_back();
      shards_.back().tensors.push_back(&tensor);
      shards_.back().bytes += bytes;
      total_.parameters += tensor.elements();
      total_.bytes += bytes;
    }
    for (Shard& shard : shards_)
      std::sort(shard.tensors.begin(), shard.tensors.end(), [](auto* a, auto* b) { return a->name < b->name; });
    total_.files = static_cast<int32_t>(shards_.size());
  }

  WrittenCheckpoint write() {
    std::map<std::string, std::string> places;
    for (size_t i = 0; i < shards_.size(); i++) {
      const std::string name = file_name(i);
      write_shard(shards_[i], (folder_ / name).string());
      for (const TensorSpec* t : shards_[i].tensors) places[t->name] = name;
    }
    source_.check();
    if (shards_.size() == 1) return total_;
    std::string index;
    for (const auto& [tensor, file] : places)
      index += (index.empty() ? "" : ",\n") + ("    \"" + tensor + "\": \"" + file + "\"");
    write_text(folder_ / "model.safetensors.index.json",
               "{\n  \"metadata\": {\"total_size\": " + std::to_string(total_.bytes) + "},\n  \"weight_map\": {\n" +
                   index + "\n  }\n}\n",
               options_.sync);
    return total_;
  }

 private:
  int64_t bytes_in_file(const TensorSpec& t) const {
    return t.elements() * static_cast<int64_t>(bytes_of(options_.dtype));
  }
  void check_cancelled() const {
    if (hooks_.cancelled && hooks_.cancelled()) throw Error(code::kAborted, "writing the checkpoint was cancelled");
  }

  std::string file_name(size_t shard) const {
    if (shards_.size() == 1) return "model.safetensors";
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards_.size());
    return name;
  }

  void write_shard(const Shard& shard, const std::string& path) {
    OutputFile file(path);
    const std::string header = header_of(shard, options_.dtype);
    file.write(header.data(), header.size());
    for (const TensorSpec* spec : shard.tensors) {
      check_cancelled();
      write_tensor(file, source_.open(*spec));
      source_.close(*spec);
      done_ += bytes_in_file(*spec);
      if (hooks_.progress) hooks_.progress(done_, total_.bytes);
    }
    file.finish(options_.sync);
  }

  void write_tensor(OutputFile& file, const SourceTensor& tensor) {
    constexpr int64_t kChunk = 4 << 20, kJob = 1 << 18;
    const int64_t elements = tensor.rows * tensor.cols;
    const auto own = static_cast<int64_t>(bytes_of(tensor.dtype)),
               wanted = static_cast<int64_t>(bytes_of(options_.dtype));
    for (int64_t begin = 0; begin < elements; begin += kChunk) {
      check_cancelled();
      const int64_t count = std::min(kChunk, elements - begin);
      const std::byte* from = tensor.data + begin * own;
      if (tensor.dtype != options_.dtype) {
        chunk_.resize(static_cast<size_t>(std::max<int64_t>(count * wanted, static_cast<int64_t>(chunk_.size()))));
        parallel_for(hooks_.threads > 0 ? hooks_.threads : 1, (count + kJob - 1) / kJob, [&](int64_t job) {
          convert(tensor, begin + job * kJob, std::min(kJob, count - job * kJob), options_.dtype,
                  chunk_.data() + job * kJob * wanted);
        });
        from = chunk_.data();
      }
      file.write(from, static_cast<size_t>(count * wanted));
    }
  }

  std::filesystem::path folder_;
  TensorSource& source_;
  const TensorFileOptions& options_;
  const WeightHooks& hooks_;
  std::vector<Shard> shards_;
  std::vector<std::byte> chunk_;
  WrittenCheckpoint total_;
  int64_t done_ = 0;
};

}  // namespace

WrittenCheckpoint write_tensors(const std::string& folder, const std::vector<TensorSpec>& tensors, TensorSource& source,
                                const TensorFileOptions& options, const WeightHooks& hooks) {
  if (options.dtype == DType::f16) throw Error(code::kInvalidOption, "dtype is f16; allowed: bf16, f32");
  return Writer(folder, tensors, source, options, hooks).write();
}

}  // namespace sdar
