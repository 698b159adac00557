// Which rows the next step computes: all that run, as far as they fit, and so much of the prompts that the others'
// tokens are not held up. How a step is put together never changes a number of a result.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "backend/step.h"
#include "engine/job.h"

namespace sdar {

/// Constants of the prefill budget. Rows and `unnoticed` are choices for people who read along; the filter's were set
/// on simulated machines (test/native/prefill_budget_test.cc) and held on the ones of docs/performance.md.
struct PrefillTuning {
  int32_t least_rows = 8;
  int32_t unknown_rows = 64;  ///< before steps of both kinds have been seen
  int32_t most_rows = 512;    ///< where GEMMs of the CPUs and GPUs measured no longer gain from more
  double stretch = 1.4;       ///< of a step's time; below the 2 that users are promised, since steps vary
  double unnoticed = 0.003;   ///< seconds; so short a step may double unseen, while everybody sees prompts wait

  double noise = 0.05;  ///< of a step's seconds
  /// Relative drift of the costs (base, decode, prompt, head) in a step. A prompt's rows cost more the further it is.
  std::array<double, 4> drift{0.02, 0.02, 0.03, 0.02};
  double small = 0.3;   ///< costs below this part of the most they can be drift as if they were it
  double outlier = 2;   ///< errors beyond so many deviations count as if they had as many
  double recent = 0.1;  ///< weight of a step in the usual one …
  double sooner = 0.4;  ///< … and of one under half of it: first steps are slow, kernels are loaded, caches cold
};
inline constexpr PrefillTuning kPrefillTuning{};

/// Learns from steps as they run what they cost: seconds = base + a rate for each kind of row.
class PrefillBudget {
 public:
  struct Rows {
    int32_t prompt = 0, decode = 0;  ///< of prompts, and of requests that generate
    int32_t head = 0;                ///< of them all, those that go through the lm_head: masked positions
  };

  /// Positions of prompts for which a step is expected to take at most `stretch` times what steps without usually take,
  /// or `unnoticed` longer: fewer beside requests that all begin a block, more in the steps between. Where more
  /// requests wait for their prompts than run, as at the start of a burst, the stretch grows with them.
  /// without: the rows of the step before prompts are added.
  int32_t rows(int64_t prompts, int64_t running, const Rows& without) const;

  /// What a step costs before it has a row, in rows of requests that generate.
  double base_rows() const;

  /// A step that took so many seconds. Recursive least squares with drifting costs (a Kalman filter): what steps do not
  /// tell, such as the base where all have the same rows, stays as it was and becomes less certain.
  void observe(const Rows& rows, double seconds);

 private:
  enum Term : size_t { kBase, kDecode, kPrompt, kHead, kTerms };
  using Vector = std::array<double, kTerms>;

  static Vector terms(const Rows& r) { return {1, double(r.decode), double(r.prompt), double(r.head)}; }
  double expected(const Rows& rows) const;

  Vector cost_{};
  std::array<Vector, kTerms> variance_{};
  double usual_ = 0;  ///< seconds of a step without prompts
  bool saw_prompt_ = false, saw_decode_ = false;
};

/// Shares steps evenly among tenants, however many requests each has running and however large their blocks are. What a
/// tenant has computed beyond the one that has computed least is its lead; one that leads by more than kMostLead rows
/// sits steps out, so that in the mean a step takes at most as many times as long as there are tenants as it would for
/// one of them alone.
class TenantShares {
 public:
  /// Rows of lead up to which a tenant takes part: some of the largest blocks, or steps would be too uneven.
  static constexpr double kMostLead = 192;

  /// Which tenants want to take part in the next step. base_rows: a step costs as much as so many rows before it has
  /// any. Each pays for its rows beyond its part of those only.
  void begin(std::span<const JobPtr> running, double base_rows);
  bool may_compute(uint64_t tenant) const { return only_one_ || leads_.at(tenant).rows <= kMostLead; }
  void computed(uint64_t tenant, int32_t rows) {
    if (!only_one_) leads_.at(tenant).rows += rows;
  }

 private:
  struct Lead {
    double rows = 0;
    bool running = false;
  };
  std::unordered_map<uint64_t, Lead> leads_;
  bool only_one_ = true;
};

class StepPlanner {
 public:
  /// prefill_rows: most rows of a step for prompts longer than a block; 0: the budget's beside running requests.
  StepPlanner(int32_t max_concurrent, int32_t max_rows, int32_t prefill_rows);

  /// Puts the next step of these jobs together, which have their pages.
  void plan(std::span<const JobPtr> running);
  /// It took so many seconds.
  void observe(double seconds) { budget_.observe(planned_, seconds); }

  Step& step() { return step_; }
  /// The job behind step().sequences()[i].
  std::span<Job* const> jobs() const { return jobs_; }
  /// Share of prompts in the step's rows, 0 to 1.
  double prefill_share() const;

 private:
  int32_t prefill_rows(std::span<const JobPtr> running) const;
  int32_t add(Job& job, int32_t max_rows);

  int32_t max_rows_, prefill_rows_;
  PrefillBudget budget_;
  TenantShares shares_;
  Step step_;
  std::vector<Job*> jobs_;
  PrefillBudget::Rows planned_;
  size_t turn_ = 0;            // where the next plan starts, so that no request starves when rows run out
  bool prompts_first_ = true;  // prompts are planned before blocks, in turns with the reverse when rows run out
};

}  // namespace sdar
