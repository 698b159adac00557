// Runs planned steps: lays the sequences' rows side by side, walks the forward pass, then chooses and fills.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "engine/step.h"
#include "model/forward.h"

namespace sdar {

class Runner {
 public:
  using Ticket = uint64_t;

  explicit Runner(Forward& forward) : forward_(forward) {}

  /// Takes a plan of at most forward.max_rows() rows. One step is in flight at a time; what the plan points to stays as
  /// it is until poll().
  Ticket submit(StepPlan& plan);
  /// Outcomes of that step, in the order of the plan's sequences; valid until the next submit().
  std::span<const StepOutcome> poll(Ticket ticket);

  const OpSeconds& op_seconds() const { return forward_.seconds(); }
  /// Seconds that choosing took in the last step.
  double choose_seconds() const { return choose_seconds_; }

 private:
  void add_head_requests(const StepSequence& sequence);
  void choose(const StepSequence& sequence, const HeadResult* results, StepOutcome& outcome) const;

  Forward& forward_;
  StepPlan* plan_ = nullptr;
  Ticket ticket_ = 0;
  std::vector<Segment> segments_;
  std::vector<int32_t> ids_;
  std::vector<HeadRequest> requests_;
  std::vector<HeadResult> results_;
  std::vector<StepOutcome> outcomes_;
  double choose_seconds_ = 0;
};

}  // namespace sdar
