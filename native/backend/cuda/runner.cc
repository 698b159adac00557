#include "backend/cuda/runner.h"

#include <bit>

#include "backend/cuda/backend.h"
#include "util/error.h"

namespace sdar::cuda {

StepRunner::Ticket CudaRunner::submit(StepPlan& plan) {
  StepInput& input = backend_.input();
  plan_ = nullptr;
  input.lay_out(plan);
  if (input.shape().sampling) backend_.prepare_sampling();
  LaunchList& list = launches();
  try {
    input.upload();
    list.run();
    input.download();
    backend_.card().mark(0);
  } catch (const Error&) {
    settle();
    throw;
  }
  plan_ = &plan, running_ = &list;
  return ++ticket_;
}

/// After a step that broke off: what it did ask for still reads the arrays that the next one fills.
void CudaRunner::settle() noexcept {
  try {
    backend_.card().mark(0);
    backend_.card().wait(0);
  } catch (const Error&) {  // the card has failed, and no step will follow
  }
}

LaunchList& CudaRunner::launches() {
  const StepInput& input = backend_.input();
  if (version_ != input.version() || recorded_.size() > kMaxShapes) recorded_.clear();
  version_ = input.version();
  const auto at = recorded_.find(input.shape());
  if (at != recorded_.end()) {
    replayed_++;
    return *at->second;
  }
  auto list = std::make_unique<LaunchList>(backend_.card(), timed_);
  record(*list);
  return *recorded_.emplace(input.shape(), std::move(list)).first->second;
}

void CudaRunner::record(LaunchList& list) {
  struct Recording {
    CudaBackend& backend;
    ~Recording() { backend.record(nullptr); }
  } recording{backend_};
  backend_.record(&list);
  const StepInput& input = backend_.input();
  const StepShape& shape = input.shape();
  list.begin_kind(&OpSeconds::choose);
  if (shape.slots > 0) backend_.emit<Kernel::gather_rows>(input.gather_rows(mask_id_));
  walk_(shape.rows, shape.requests > 0);
  list.begin_kind(&OpSeconds::choose);
  if (shape.slots > 0) backend_.emit<Kernel::select_unmask>({input.denoise_tables(mask_id_), input.results.get()});
  list.begin_kind(nullptr);
}

std::span<const StepOutcome> CudaRunner::poll(Ticket ticket) {
  if (ticket != ticket_ || !plan_) throw Error(code::kInternal, "a step was polled that is not in flight");
  const StepPlan& plan = *std::exchange(plan_, nullptr);
  backend_.card().wait(0);
  running_->add_seconds(seconds_);
  outcomes_.resize(plan.sequences.size());
  size_t slot = 0;
  for (size_t i = 0; i < outcomes_.size(); i++) {
    outcomes_[i].filled = 0;
    outcomes_[i].finite = true;
    if (plan.sequences[i].denoise) take_in(plan.sequences[i], backend_.input().outcomes[slot++], outcomes_[i]);
  }
  return outcomes_;
}

void CudaRunner::take_in(const StepSequence& sequence, const DenoiseOutcome& outcome, StepOutcome& to) const {
  to.filled = outcome.filled;
  to.finite = outcome.finite != 0;
  const DeviceSampledToken* result = backend_.input().results.host() + outcome.first;
  for (uint64_t left = sequence.masked; left; left &= left - 1) to.at[std::countr_zero(left)] = host_result(*result++);
}

}  // namespace sdar::cuda
