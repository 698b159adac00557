#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "bench/shapes.h"
#include "model/checkpoint.h"
#include "util/error.h"
#include "util/half.h"
#include "util/machine.h"

namespace sdar {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& path, const std::string& why) {
  throw Error(code::kFileUnwritable, path + ": cannot be written: " + why);
}

/// A new file; write errors are exceptions.
class OutputFile {
 public:
  explicit OutputFile(std::string path)
      : path_(std::move(path)), file_(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (file_ < 0) fail(path_, std::strerror(errno));
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() {
    if (file_ >= 0) close(file_);
  }

  void write(const void* data, size_t bytes) {
    for (const char* at = static_cast<const char*>(data); bytes > 0;) {
      const ssize_t n = ::write(file_, at, std::min<size_t>(bytes, size_t{1} << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(path_, std::strerror(errno));
      at += n;
      bytes -= static_cast<size_t>(n);
    }
  }
  void finish() {
    if (close(std::exchange(file_, -1)) != 0) fail(path_, std::strerror(errno));
  }

 private:
  std::string path_;
  int file_;
};

void write_text(const fs::path& path, const std::string& text) {
  OutputFile file(path.string());
  file.write(text.data(), text.size());
  file.finish();
}

std::string list(const std::vector<int32_t>& ids) {
  std::string text = "[";
  for (size_t i = 0; i < ids.size(); i++) text += (i ? ", " : "") + std::to_string(ids[i]);
  return text + "]";
}

/// Settings as read_config takes them.
std::string config_json(const ModelConfig& config, DType dtype) {
  const ModelShape& s = config.shape;
  std::string text;
  const auto add = [&](const char* name, const std::string& value) {
    text += (text.empty() ? "{\n  \"" : ",\n  \"") + std::string(name) + "\": " + value;
  };
  const auto integer = [&](const char* name, int64_t value) { add(name, std::to_string(value)); };
  const auto real = [&](const char* name, double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.6g", value);
    add(name, digits);
  };
  const bool sparse = s.experts > 0;
  add("architectures", sparse ? "[\"SDARMoeForCausalLM\"]" : "[\"SDARForCausalLM\"]");
  add("model_type", "\"" + config.model_type + "\"");
  add("attention_bias", s.attention_bias ? "true" : "false");
  add("hidden_act", "\"silu\"");
  add("eos_token_id", list(config.end_token_ids));
  integer("max_position_embeddings", s.context);
  add("torch_dtype", dtype == DType::f32 ? "\"float32\"" : "\"bfloat16\"");
  integer("vocab_size", s.vocabulary);
  integer("hidden_size", s.hidden);
  if (s.intermediate > 0) integer("intermediate_size", s.intermediate);
  integer("num_hidden_layers", s.layers);
  integer("num_attention_heads", s.heads);
  integer("num_key_value_heads", s.kv_heads);
  integer("head_dim", s.head_dim);
  if (sparse) {
    integer("num_experts", s.experts);
    integer("num_experts_per_tok", s.experts_per_token);
    integer("moe_intermediate_size", s.moe_intermediate);
    add("norm_topk_prob", config.norm_topk_prob ? "true" : "false");
    integer("decoder_sparse_step", 1);
  }
  real("rms_norm_eps", s.rms_eps);
  real("rope_theta", s.rope_theta);
  add("tie_word_embeddings", config.tied ? "true" : "false");
  integer("block_size", config.block_size);
  integer("mask_token_id", config.mask_token_id);
  return text + "\n}\n";
}

/// A file's tensors, in the order in which they lie.
struct Shard {
  std::vector<const TensorSpec*> tensors;
  int64_t bytes = 0;
};

/// Length, JSON padded to 8 bytes. Source: https://github.com/huggingface/safetensors
std::string safetensors_header(const Shard& shard, DType dtype) {
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

/// Elements in the file's type, one chunk after the other; `check` is called before each.
void write_tensor(OutputFile& file, const SourceTensor& tensor, DType dtype, int threads,
                  const std::function<void()>& check) {
  const int64_t elements = tensor.rows * tensor.cols;
  constexpr int64_t kChunk = 4 << 20, kJob = 1 << 18;
  if (dtype == tensor.dtype) {
    const auto* at = tensor.data;
    for (int64_t begin = 0; begin < elements; begin += kChunk) {
      check();
      file.write(at + begin * static_cast<int64_t>(bytes_of(dtype)),
                 static_cast<size_t>(std::min(kChunk, elements - begin)) * bytes_of(dtype));
    }
    return;
  }
  const auto* bits = reinterpret_cast<const uint16_t*>(tensor.data);
  std::vector<float> chunk(static_cast<size_t>(std::min(elements, kChunk)));
  for (int64_t begin = 0; begin < elements; begin += kChunk) {
    check();
    const int64_t count = std::min(kChunk, elements - begin);
    parallel_for(threads, (count + kJob - 1) / kJob, [&](int64_t job) {
      for (int64_t i = job * kJob; i < std::min(count, (job + 1) * kJob); i++) chunk[i] = bf16_to_f32(bits[begin + i]);
    });
    file.write(chunk.data(), static_cast<size_t>(count) * sizeof(float));
  }
}

class Writer {
 public:
  Writer(const fs::path& folder, const ModelConfig& config, const WriteOptions& options, const WeightHooks& hooks)
      : folder_(folder), config_(config), options_(options), hooks_(hooks), source_(options.seed, threads()) {
    plan_ = plan_weights(config, WeightFormat::bf16, weights_);
    shards_.emplace_back();
    for (const PlannedWeight& weight : plan_) {
      for (const TensorSpec& part : weight.parts) {
        const int64_t bytes = part.elements() * static_cast<int64_t>(bytes_of(options.dtype));
        if (shards_.back().bytes > 0 && shards_.back().bytes + bytes > options.shard_bytes) shards_.emplace_back();
        shards_.back().tensors.push_back(&part);
        shards_.back().bytes += bytes;
        total_.parameters += part.elements();
        total_.bytes += bytes;
      }
    }
    total_.files = static_cast<int32_t>(shards_.size());
  }

  WrittenCheckpoint write() {
    std::string index;
    for (size_t i = 0; i < shards_.size(); i++) {
      const std::string name = file_name(i);
      write_shard(shards_[i], (folder_ / name).string());
      for (const TensorSpec* t : shards_[i].tensors)
        index += (index.empty() ? "" : ",\n") + ("    \"" + t->name + "\": \"" + name + "\"");
    }
    if (shards_.size() > 1) {
      write_text(folder_ / "model.safetensors.index.json",
                 "{\n  \"metadata\": {\"total_size\": " + std::to_string(total_.bytes) + "},\n  \"weight_map\": {\n" +
                     index + "\n  }\n}\n");
    }
    write_text(folder_ / "generation_config.json", "{\n  \"eos_token_id\": " + list(config_.end_token_ids) + "\n}\n");
    write_text(folder_ / "config.json", config_json(config_, options_.dtype));
    return total_;
  }

 private:
  void check_cancelled() const {
    if (hooks_.cancelled && hooks_.cancelled()) throw Error(code::kAborted, "writing the checkpoint was cancelled");
  }
  int threads() const { return hooks_.threads > 0 ? hooks_.threads : 1; }

  std::string file_name(size_t shard) const {
    if (shards_.size() == 1) return "model.safetensors";
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards_.size());
    return name;
  }

  void write_shard(const Shard& shard, const std::string& path) {
    OutputFile file(path);
    const std::string header = safetensors_header(shard, options_.dtype);
    file.write(header.data(), header.size());
    for (const TensorSpec* spec : shard.tensors) {
      check_cancelled();
      const SourceTensor tensor = source_.open(*spec);
      write_tensor(file, tensor, options_.dtype, threads(), [this] { check_cancelled(); });
      source_.close(*spec);
      done_ += spec->elements() * static_cast<int64_t>(bytes_of(options_.dtype));
      if (hooks_.progress) hooks_.progress(done_, total_.bytes);
    }
    file.finish();
  }

  fs::path folder_;
  const ModelConfig& config_;
  const WriteOptions& options_;
  const WeightHooks& hooks_;
  ModelWeights weights_;
  std::vector<PlannedWeight> plan_;
  RandomSource source_;
  std::vector<Shard> shards_;
  WrittenCheckpoint total_;
  int64_t done_ = 0;
};

/// What may be there already: nothing, an empty folder or, if it is to be replaced, a checkpoint.
void check_target(const fs::path& folder, bool overwrite) {
  if (!fs::exists(fs::symlink_status(folder))) return;
  if (!fs::is_directory(folder)) throw Error(code::kInvalidOption, folder.string() + ": exists and is no folder");
  if (fs::is_empty(folder)) return;
  if (!fs::exists(folder / "config.json"))
    throw Error(code::kInvalidOption,
                folder.string() + ": exists and holds something else than a checkpoint; give another folder");
  if (!overwrite)
    throw Error(code::kInvalidOption,
                folder.string() + ": holds a checkpoint already; give another folder, or overwrite it (--force)");
}

/// A new folder beside `target`, gone with all that is in it when this is or the process ends, and with what had to be made
/// above it where nothing else came there.
class FolderBeside {
 public:
  explicit FolderBeside(const fs::path& target) {
    for (fs::path above = target.parent_path(); !fs::exists(above); above = above.parent_path())
      parents_.push_back(above);
    fs::create_directories(target.parent_path());
    std::string name = target.string() + ".partial-XXXXXX";
    if (!mkdtemp(name.data())) fail(name, std::strerror(errno));
    path_ = name;
    const std::lock_guard lock(all().mutex);
    all().folders.insert(this);
  }
  FolderBeside(const FolderBeside&) = delete;
  FolderBeside& operator=(const FolderBeside&) = delete;
  ~FolderBeside() {
    const std::lock_guard lock(all().mutex);
    all().folders.erase(this);
    remove();
  }
  const fs::path& path() const { return path_; }

 private:
  struct All {
    std::mutex mutex;
    std::set<const FolderBeside*> folders;
  };
  /// Whose end a process that exits does not wait for, such as that of a thread whose slow disk holds it up.
  static All& all() {
    static auto* folders = new All;  // lives as long as threads may
    static const int registered = std::atexit([] {
      const std::lock_guard lock(folders->mutex);
      for (const FolderBeside* folder : folders->folders) folder->remove();
    });
    (void)registered;
    return *folders;
  }
  void remove() const {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
    for (const fs::path& parent : parents_) fs::remove(parent, ignored);  // refused where it is not empty
  }

  fs::path path_;
  std::vector<fs::path> parents_;  // innermost first
};

/// Whether the loader would take the file for a part of a checkpoint's model.
bool is_of_model(const std::string& name) {
  return name == "model.safetensors.index.json" || (name.starts_with("model") && name.ends_with(".safetensors"));
}

/// Puts what `made` holds into `target`, config.json last; other files that are there stay as they are.
void move_into(const fs::path& made, const fs::path& target) {
  constexpr char kLast[] = "config.json";
  fs::create_directory(target);
  std::vector<fs::path> stale, names;
  for (const auto& entry : fs::directory_iterator(target))
    if (entry.path().filename() == kLast || is_of_model(entry.path().filename().string()))
      stale.push_back(entry.path());
  for (const auto& entry : fs::directory_iterator(made)) names.push_back(entry.path().filename());
  for (const fs::path& file : stale) fs::remove(file);
  for (const fs::path& name : names)
    if (name != kLast) fs::rename(made / name, target / name);
  fs::rename(made / kLast, target / kLast);
}

}  // namespace

WrittenCheckpoint write_checkpoint(const std::string& folder, const ModelConfig& config, const WriteOptions& options,
                                   const WeightHooks& hooks) {
  if (options.dtype == DType::f16) throw Error(code::kInvalidOption, "dtype is f16; allowed: bf16, f32");
  fs::path target = fs::absolute(folder).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // a slash at the end
  try {
    check_target(target, options.overwrite);
    const FolderBeside made(target);
    const WrittenCheckpoint written = Writer(made.path(), config, options, hooks).write();
    move_into(made.path(), target);
    return written;
  } catch (const fs::filesystem_error& e) {
    fail(target.string(), e.code().message());
  }
}

}  // namespace sdar
