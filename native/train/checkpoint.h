// Trained weights as a checkpoint in the Hugging Face layout.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "model/safetensors_writer.h"
#include "train/lora.h"
#include "train/parameters.h"

namespace sdar::train {

/// A file beside the tensors, such as config.json.
struct CheckpointText {
  std::string name;  ///< without a folder
  std::string text;
};

struct CheckpointOptions {
  DType dtype = DType::bf16;            ///< bf16 (to nearest even) or f32
  int64_t shard_bytes = 4'000'000'000;  ///< more is split into files of about this size
  std::vector<CheckpointText> texts;    ///< what else the folder holds; config.json must be among them for it to load
};

/// A new folder with the texts and `weights` [layout.size()] as safetensors files; a tied head is not written twice. The
/// folder appears, whole and on the disk, when this returns: until then it is `folder`.partial-… Throws Error:
/// INVALID_OPTION (the folder exists, dtype, a text's name), FILE_UNWRITABLE, ABORTED.
WrittenCheckpoint write_checkpoint(const std::string& folder, const Layout& layout, std::span<const float> weights,
                                   const CheckpointOptions& options = {}, const WeightHooks& hooks = {});

/// The same of a network with adapters, which are merged: `trained` are [adaptation.layout().size()].
WrittenCheckpoint write_checkpoint(const std::string& folder, const Adaptation& adaptation, Compute& compute,
                                   std::span<const float> trained, const CheckpointOptions& options = {},
                                   const WeightHooks& hooks = {});

}  // namespace sdar::train
