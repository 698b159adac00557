// Optimiser steps over batches that the caller makes, and a state on disk from which they go on with the same bits.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/network.h"
#include "train/optimizer.h"

namespace sdar::train {

struct TrainSettings {
  OptimizerKind optimizer = OptimizerKind::adamw;
  AdamW adamw;
  Muon muon;
  Schedule schedule;
  double clip = 1;      ///< largest norm of the gradients; more is scaled down
  double ema = 0;       ///< decay of the weights' average, per step; 0: none is kept
  int32_t batches = 1;  ///< whose gradients are averaged for a step
  uint64_t seed = 0;    ///< of whatever the batches draw

  /// Throws Error(INVALID_OPTION) naming the field, its value and what is allowed.
  void check() const;
  /// All of it as a line; a state goes on only under the settings that it was made with.
  std::string text() const;
};

struct StepReport {
  int64_t step = 0;  ///< from 0
  double loss = 0;   ///< mean of the step's batches
  double norm = 0;   ///< of the gradients, before clipping
  double rate = 0;
};

class Trainer {
 public:
  /// Starts at step 0 with `weights` [network.layout().size()]. `network` and `compute` must outlive it.
  Trainer(Network& network, Compute& compute, const TrainSettings& settings, std::vector<float> weights);

  /// `rows(i)` makes batch i of the run: a function of i and the settings' seed alone, or a run that is resumed would not
  /// end with the same bits. A loss or gradient that is not finite throws Error(NUMERIC_ERROR) naming step and batch;
  /// weights and moments are then those before the step.
  StepReport step(const std::function<TrainingRows(uint64_t)>& rows);

  int64_t steps_done() const { return step_; }
  bool finished() const { return step_ >= settings_.schedule.steps; }
  const std::vector<float>& weights() const { return weights_; }
  /// The mean of the weights after each step, those `ema` times less that are a step older; without `ema`, or a step, the
  /// weights.
  const std::vector<float>& averaged() const { return averaged_.empty() ? weights_ : averaged_; }

  /// Writes `folder`/state: weights, moments, average, step. It replaces an older one whole or not at all. Throws
  /// Error(FILE_UNWRITABLE).
  void save(const std::string& folder) const;
  /// Goes on from there. Throws Error: FILE_NOT_FOUND, FILE_UNREADABLE, CHECKPOINT_INVALID (damaged, or of another
  /// network), INVALID_OPTION (other settings); the trainer is then as it was, unless the file was
  /// written to meanwhile. `check` is called before anything changes; what it throws comes out.
  void resume(const std::string& folder, const std::function<void()>& check = never_stops);

 private:
  std::string description() const;
  void average();

  Network& network_;
  Compute& compute_;
  TrainSettings settings_;
  int64_t step_ = 0;
  std::vector<float> weights_, gradients_, averaged_;
  Moments moments_;
};

}  // namespace sdar::train
