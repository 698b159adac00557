// The tensors of a checkpoint folder, as its safetensors files describe them. Only what the files say about themselves
// is checked here; what the model needs is checked in checkpoint.cc. Format: https://github.com/huggingface/safetensors
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/formats.h"
#include "util/mapped_file.h"

namespace sdar {

struct StoredTensor {
  const MappedFile* file = nullptr;
  size_t offset = 0;  ///< from the start of the file; need not be aligned
  size_t bytes = 0;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;

  const std::byte* data() const { return file->bytes().data() + offset; }
};

class Safetensors {
 public:
  /// Maps model.safetensors or, without it, the shards of model.safetensors.index.json. Throws Error naming file and
  /// tensor: FILE_NOT_FOUND, FILE_UNREADABLE, CHECKPOINT_INVALID, CHECKPOINT_TRUNCATED.
  explicit Safetensors(const std::string& folder);

  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  /// Stands for the contents of all files, see fingerprint() in model/packed_cache.h.
  std::string fingerprints() const;
  /// Throws CHECKPOINT_TRUNCATED when a file shrank while it was in use. Ask after reading.
  void check_whole() const;

 private:
  void add_file(const std::string& path);
  void add_shards(const std::string& folder, const std::string& index_path);

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace sdar
