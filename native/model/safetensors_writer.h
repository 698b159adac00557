// Safetensors files of a checkpoint, as Hugging Face's tools name and order them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/checkpoint.h"

namespace sdar {

struct TensorFileOptions {
  DType dtype = DType::bf16;            ///< bf16 or f32
  int64_t shard_bytes = 4'000'000'000;  ///< more is split into files of about this size
  bool sync = false;                    ///< the files are on the disk when they are done
};

struct WrittenCheckpoint {
  int64_t parameters = 0;
  int64_t bytes = 0;  ///< of the tensors
  int32_t files = 0;  ///< of safetensors
};

/// Writes model.safetensors into `folder`, or shards with model.safetensors.index.json. `source` gives tensors of f32,
/// rounded to nearest even where the file has bf16, or of bf16. Of `hooks` progress (bytes of the file), cancelled and
/// threads are used. Throws Error: INVALID_OPTION (dtype), FILE_UNWRITABLE, ABORTED, and what `source` does.
WrittenCheckpoint write_tensors(const std::string& folder, const std::vector<TensorSpec>& tensors, TensorSource& source,
                                const TensorFileOptions& options, const WeightHooks& hooks = {});

}  // namespace sdar
