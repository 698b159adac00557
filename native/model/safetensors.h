// The tensors of a checkpoint folder, as its safetensors files describe them. Only what the files say about themselves
// is checked here; what the model needs is checked in checkpoint.cc. Format: https://github.com/huggingface/safetensors
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/formats.h"
#include "util/mapped_file.h"

namespace sdar {

struct StoredTensor {
  const MappedFile* file = nullptr;
  size_t offset = 0;  ///< from the start of the file; need not be aligned
  size_t bytes = 0;
  std::optional<DType> dtype;  ///< none: a type that no weight can have
  std::string dtype_name;      ///< as the file says it
  std::vector<int64_t> shape;

  const std::byte* data() const { return file->bytes().data() + offset; }
};

class Safetensors {
 public:
  /// Maps model.safetensors or, without it, the shards of model.safetensors.index.json. Throws Error naming file and
  /// tensor: FILE_NOT_FOUND, FILE_UNREADABLE, CHECKPOINT_INVALID, CHECKPOINT_TRUNCATED. `check` is called before each
  /// file; what it throws comes out.
  explicit Safetensors(const std::string& folder, const std::function<void()>& check = {});

  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  const std::vector<std::shared_ptr<const MappedFile>>& files() const { return files_; }
  /// Throws when a file shrank (CHECKPOINT_TRUNCATED) or was written to (CHECKPOINT_INVALID) while it was in use. Ask
  /// after reading.
  void check_whole() const;

 private:
  void add_file(const std::string& path);
  void add_shards(const std::string& folder, const std::string& index_path, const std::function<void()>& check);

  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::map<std::string, StoredTensor> tensors_;
  uint64_t header_bytes_ = 0;
};

/// A tensor's name as messages show it: of bounded length, without control characters.
std::string shown(const std::string& name);

}  // namespace sdar
