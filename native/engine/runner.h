// Runs steps op by op on a backend, and chooses and fills on the host.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/step.h"
#include "model/forward.h"

namespace sdar {

class Runner final : public StepRunner {
 public:
  explicit Runner(Forward& forward) : forward_(forward) {}

  Ticket submit(StepPlan& plan) override;
  std::span<const StepOutcome> poll(Ticket ticket) override;
  const OpSeconds& seconds() const override { return forward_.seconds(); }

 private:
  void add_head_requests(const StepSequence& sequence);
  void choose(const StepSequence& sequence, const SampledToken* results, StepOutcome& outcome) const;

  Forward& forward_;
  StepPlan* plan_ = nullptr;
  Ticket ticket_ = 0;
  std::vector<Segment> segments_;
  std::vector<int32_t> ids_;
  std::vector<SampledRow> requests_;
  std::vector<SampledToken> results_;
  std::vector<StepOutcome> outcomes_;
};

}  // namespace sdar
