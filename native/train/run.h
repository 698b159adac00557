// A training run: data, recipe, network and trainer, and the folder that they go on from.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "train/checkpoint.h"
#include "train/dataset.h"
#include "train/memory.h"
#include "train/recipe.h"
#include "train/trainer.h"

namespace sdar::train {

struct RunOptions {
  std::string model;                 ///< folder with the config.json of the network that is trained
  std::string parent;                ///< folder of the tensors that it begins with; empty: initial_weights()
  std::string samples;               ///< file of a Dataset
  std::string folder;                ///< where its state is kept
  Recipe recipe;                     ///< its mask_id is the model's
  TrainSettings settings;            ///< the schedule's steps follow from the data, its warm-up from `warmup`
  PlanOptions plan;                  ///< seed and batches are the settings'
  double warmup = 0;                 ///< share of the steps, in [0, 1)
  std::optional<LoraSettings> lora;  ///< of a parent's weights; its seed is the settings', the mask's row is trained
  std::optional<Activations> activations;  ///< none: kept where there is the memory
  Format format = Format::f32;             ///< of the operands of products
  int threads = 0;                         ///< 0: the cores this process may use
};

struct RunReport {
  StepReport step;
  int64_t rows = 0;           ///< that were computed
  int64_t tokens = 0;         ///< of samples
  int64_t answer_tokens = 0;  ///< of them
  double seconds = 0;
};

class Run {
 public:
  /// Begins, or goes on where `folder` has a state. Holds a lock on the folder: another Run on it throws. Throws Error:
  /// INVALID_OPTION, OUT_OF_MEMORY, and what Dataset, read_config, read_parameters and Trainer::resume do. `cancelled` is
  /// asked meanwhile and ends with Error(ABORTED).
  explicit Run(const RunOptions& options, const std::function<bool()>& cancelled = {});

  RunReport step();
  /// Mean loss of the samples that are held out, at most kMostEvaluated of them, with the average of the weights where one is
  /// kept and noise that is always the same; as in a step each answer's token counts alike. NaN without any. `cancelled` is
  /// asked between batches and ends with Error(ABORTED).
  double evaluate(const std::function<bool()>& cancelled = {});
  void save() const { trainer_->save(options_.folder); }
  /// The model as it is now (its average, where one is kept) as a new checkpoint, with all files of `options.model`: see
  /// write_checkpoint().
  void write(const std::string& folder, DType dtype, const WeightHooks& hooks = {});

  const Dataset& data() const { return data_; }
  const BatchPlan& plan() const { return plan_; }
  const Trainer& trainer() const { return *trainer_; }
  const Compute& compute() const { return compute_; }
  /// What it takes, as it was computed before it was allocated.
  const TrainingMemory& memory() const { return memory_; }
  /// Of the model, and those of them, or of its adapters, that are trained.
  int64_t parameters() const { return Layout(config_).size(); }
  int64_t trained() const { return network_->layout().size(); }
  int64_t steps() const { return options_.settings.schedule.steps; }

 private:
  class Lock;
  std::vector<Sample> samples(std::span<const int64_t> numbers) const;

  RunOptions options_;
  std::unique_ptr<Lock, void (*)(Lock*)> lock_;
  ModelConfig config_;
  Dataset data_;
  BatchPlan plan_;
  Compute compute_;
  TrainingMemory memory_;
  std::unique_ptr<Adaptation> adaptation_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Trainer> trainer_;
};

inline constexpr int64_t kMostEvaluated = 1000;

}  // namespace sdar::train
