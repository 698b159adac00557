// Models known by name, and checkpoints of them with random weights.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "backend/formats.h"
#include "model/config.h"
#include "model/safetensors_writer.h"
#include "model/weights.h"

namespace sdar {

/// sdar-nano, sdar-1.7b, sdar-4b, sdar-8b, sdar-30b-a3b.
std::vector<std::string> shape_names();

/// The settings of a published model, of which the first `layers` layers are kept; 0: all.
/// Throws Error(INVALID_OPTION) that lists what is allowed.
ModelConfig shape_config(const std::string& name, int32_t layers = 0);

struct WriteOptions {
  DType dtype = DType::bf16;  ///< bf16 or f32; the values are multiples of bf16 in both
  uint64_t seed = 1;
  bool overwrite = false;               ///< replaces a checkpoint that is there; never a folder of anything else
  int64_t shard_bytes = 4'000'000'000;  ///< a larger checkpoint is split into files of about this size
};

/// config.json, generation_config.json and safetensors files with the weights that random_weights makes from the same
/// seed, but no tokenizer. The folder appears when it is complete; until then it is `folder`.partial.
/// Throws Error: INVALID_OPTION (the folder exists), FILE_UNWRITABLE, ABORTED.
WrittenCheckpoint write_checkpoint(const std::string& folder, const ModelConfig& config, const WriteOptions& options,
                                   const WeightHooks& hooks = {});

}  // namespace sdar
