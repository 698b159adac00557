// Runs steps whose blocks are denoised on the device. The launches of a step are recorded the first time its shape
// comes up and replayed from then on; the host puts data into pinned memory, asks for its copy, the launches and the
// copy back, and waits for nothing until poll().
#pragma once
#include <map>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/launch_list.h"
#include "backend/cuda/step_input.h"

namespace sdar::cuda {

class CudaBackend;

class CudaRunner final : public StepRunner {
 public:
  /// Shapes kept; when there are more, all are recorded anew as they come up.
  static constexpr size_t kMaxShapes = 256;

  CudaRunner(CudaBackend& backend, int32_t mask_id, StepWalk walk, bool timed)
      : backend_(backend), mask_id_(mask_id), walk_(std::move(walk)), timed_(timed) {}

  Ticket submit(StepPlan& plan) override;
  std::span<const StepOutcome> poll(Ticket ticket) override;
  /// All 0 unless timed: taking the time separates launches that would follow one another at once.
  const OpSeconds& seconds() const override { return seconds_; }
  int32_t max_sequences() const override { return kMaxSlots; }

  /// Steps that ran launches recorded before.
  int64_t replayed() const { return replayed_; }
  size_t shapes() const { return recorded_.size(); }

 private:
  LaunchList& launches();
  void settle() noexcept;
  void record(LaunchList& list);
  void take_in(const StepSequence& sequence, const DenoiseOutcome& outcome, StepOutcome& to) const;

  CudaBackend& backend_;
  int32_t mask_id_;
  StepWalk walk_;
  bool timed_;
  std::map<StepShape, std::unique_ptr<LaunchList>> recorded_;
  uint64_t version_ = 0;  ///< of the input, that the recorded launches are for
  int64_t replayed_ = 0;
  StepPlan* plan_ = nullptr;
  const LaunchList* running_ = nullptr;  ///< of the plan
  Ticket ticket_ = 0;
  std::vector<StepOutcome> outcomes_;
  OpSeconds seconds_;
};

}  // namespace sdar::cuda
