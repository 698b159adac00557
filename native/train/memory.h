// What training takes in memory, before anything is allocated.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "train/network.h"
#include "train/trainer.h"
#include "util/machine.h"

namespace sdar::train {

/// Bytes.
struct TrainingMemory {
  Activations activations = Activations::recompute;
  int64_t weights = 0;  ///< that are trained
  int64_t frozen = 0;   ///< the others, of a network with adapters
  int64_t gradients = 0;
  int64_t moments = 0;
  int64_t average = 0;
  int64_t kept = 0;       ///< of the forward pass, and gradients of it
  int64_t temporary = 0;  ///< the largest of a tile of logits with its rows, a mixture's gradients, Muon's matrices
  int64_t scratch = 0;    ///< packed operands, attention, adapters

  int64_t total() const { return weights + frozen + gradients + moments + average + kept + temporary + scratch; }
  /// Its parts as a line, in MiB.
  std::string text() const;
};

struct BatchSize {
  int64_t rows = 0;     ///< of a batch
  int64_t longest = 0;  ///< rows of a sample
};

/// Of a Trainer on a Network, at its largest. `lora`: of an adapted one, else null.
TrainingMemory estimate(const ModelConfig& config, const TrainSettings& settings, const Compute& compute,
                        Activations activations, const BatchSize& batch, const LoraSettings* lora = nullptr);

/// The same, with activations kept where that fits, unless it is said which are wanted. Throws Error(OUT_OF_MEMORY) that
/// says what it takes where that is more than `available`.
TrainingMemory fit(const ModelConfig& config, const TrainSettings& settings, const Compute& compute,
                   std::optional<Activations> wanted, const BatchSize& batch, const LoraSettings* lora = nullptr,
                   int64_t available = available_memory());

}  // namespace sdar::train
