#include "engine/planner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <limits>

namespace sdar {
namespace {

/// Of a step in which nothing but prompts runs.
constexpr int32_t kPromptRows = 512;
constexpr const PrefillTuning& kTuning = kPrefillTuning;

}  // namespace

int32_t PrefillBudget::rows(int64_t prompts, int64_t running, const Rows& without) const {
  if (!saw_prompt_ || !saw_decode_) return kTuning.unknown_rows;
  const double many = std::max(1.0, static_cast<double>(prompts) / static_cast<double>(std::max<int64_t>(running, 1)));
  const double stretch = (kTuning.stretch - 1) * many, now = expected({0, without.decode, without.head});
  const double seconds = std::max({(1 + stretch) * usual_ - now, stretch / 8 * now, kTuning.unnoticed});
  if (cost_[kPrompt] * kTuning.most_rows <= seconds) return kTuning.most_rows;
  return std::max(static_cast<int32_t>(seconds / cost_[kPrompt]), kTuning.least_rows);
}

void PrefillBudget::observe(const Rows& rows, double seconds) {
  const Vector x = terms(rows);
  const double all = x[kDecode] + x[kPrompt];
  if (all <= 0 || seconds <= 0) return;
  const Vector most{seconds, seconds / all, seconds / all, seconds / all};  // each cost's, had it to explain all
  if (!saw_prompt_ && !saw_decode_) {
    for (size_t i = 0; i < kTerms; i++) {
      cost_[i] = i == kHead ? 0 : most[i] / 2;
      variance_[i][i] = most[i] / 2 * most[i] / 2;
    }
  }
  saw_prompt_ |= rows.prompt > 0;
  saw_decode_ |= rows.decode > 0;

  for (size_t i = 0; i < kTerms; i++) {
    const double size = std::max(cost_[i], kTuning.small * most[i]);
    variance_[i][i] += kTuning.drift[i] * size * kTuning.drift[i] * size;
    if (variance_[i][i] <= size * size) continue;
    const double less = size / std::sqrt(variance_[i][i]);  // at least its size is known
    for (size_t j = 0; j < kTerms; j++) variance_[i][j] *= less, variance_[j][i] *= less;
  }
  const double error = seconds - expected(rows);
  double noise = kTuning.noise * std::max(expected(rows), seconds);
  if (rows.decode == 0) noise += cost_[kBase] / 2;  // where no lm_head runs, the base is another
  double variance = noise * noise;
  Vector gain{};
  for (size_t i = 0; i < kTerms; i++) {
    for (size_t j = 0; j < kTerms; j++) gain[i] += variance_[i][j] * x[j];
    variance += gain[i] * x[i];
  }
  variance = std::max(variance, std::abs(error) * std::sqrt(variance) / kTuning.outlier);
  for (size_t i = 0; i < kTerms; i++) {
    cost_[i] = std::max(cost_[i] + gain[i] * error / variance, 0.0);
    for (size_t j = 0; j < kTerms; j++) variance_[i][j] -= gain[i] * gain[j] / variance;
  }
  if (rows.decode == 0) return;
  const double without = expected({0, rows.decode, rows.head});
  const double weight = 2 * without < usual_ ? kTuning.sooner : kTuning.recent;
  usual_ = usual_ > 0 ? usual_ + weight * (without - usual_) : without;
}

double PrefillBudget::expected(const Rows& rows) const {
  const Vector x = terms(rows);
  double sum = 0;
  for (size_t i = 0; i < kTerms; i++) sum += cost_[i] * x[i];
  return sum;
}

double PrefillBudget::base_rows() const {
  const double most = kTuning.most_rows;
  return saw_decode_ && cost_[kDecode] * most > cost_[kBase] ? cost_[kBase] / cost_[kDecode] : saw_decode_ ? most : 0;
}

void TenantShares::begin(std::span<const JobPtr> running, double base_rows) {
  const uint64_t first = running.empty() ? 0 : running.front()->request().tenant;
  only_one_ =
      std::all_of(running.begin(), running.end(), [&](const JobPtr& j) { return j->request().tenant == first; });
  if (only_one_) return;
  for (auto& [tenant, lead] : leads_) lead.running = false;
  for (const JobPtr& job : running) leads_[job->request().tenant].running = true;
  double tenants = 0, least = std::numeric_limits<double>::max();
  for (const auto& [tenant, lead] : leads_) {
    if (!lead.running) continue;
    tenants++;
    least = std::min(least, lead.rows);
  }
  // Leads are counted from the least; who comes back begins there, unless it left with one.
  const double free_rows = base_rows * (tenants - 1) / tenants;
  for (auto it = leads_.begin(); it != leads_.end();) {
    Lead& lead = it->second;
    lead.rows = std::max(lead.rows - least - free_rows, 0.0);
    it = lead.running || lead.rows > 0 ? std::next(it) : leads_.erase(it);
  }
}

StepPlanner::StepPlanner(int32_t max_concurrent, int32_t max_rows, int32_t prefill_rows)
    : max_rows_(max_rows), prefill_rows_(prefill_rows) {
  step_.reserve(static_cast<size_t>(max_concurrent));
  jobs_.reserve(static_cast<size_t>(max_concurrent));
}

/// Most rows of prompts, whatever else fits; at least a block, or nothing would move.
int32_t StepPlanner::prefill_rows(std::span<const JobPtr> running) const {
  int64_t prefilling = 0, decoding = 0;
  int32_t longest_block = 1;
  PrefillBudget::Rows without;
  for (const JobPtr& job : running) {
    if (!shares_.may_compute(job->request().tenant)) continue;
    if (job->sequence.prefilling()) {
      prefilling++;
      longest_block = std::max(longest_block, job->request().block_length);
    } else {
      decoding++;
      without.decode += job->sequence.rows_left();
      without.head += job->sequence.masked();
    }
  }
  int32_t rows = prefill_rows_;
  if (rows == 0) rows = decoding == 0 ? kPromptRows : budget_.rows(prefilling, decoding, without);
  return std::max(rows, longest_block);
}

int32_t StepPlanner::add(Job& job, int32_t max_rows) {
  const StepSequence sequence = job.sequence.plan(max_rows);
  jobs_.push_back(&job);
  step_.add(sequence);
  shares_.computed(job.request().tenant, sequence.segment.rows);
  planned_.head += sequence.denoise ? std::popcount(sequence.masked) : 0;
  return sequence.segment.rows;
}

void StepPlanner::plan(std::span<const JobPtr> running) {
  step_.clear();
  jobs_.clear();
  planned_ = {};
  const size_t n = running.size();
  shares_.begin(running, budget_.base_rows());
  const auto may_compute = [&](const Job& job) {
    return shares_.may_compute(job.request().tenant) && !(job.draft && job.draft->underway());
  };
  int32_t prefill_left = prefill_rows(running), rows_left = max_rows_;

  const auto prompts = [&] {
    for (const JobPtr& job : running) {
      const int32_t allowed = std::min(rows_left, prefill_left);
      if (!job->sequence.prefilling() || allowed < job->request().block_length || !may_compute(*job)) continue;
      const int32_t rows = add(*job, allowed);
      rows_left -= rows, prefill_left -= rows, planned_.prompt += rows;
    }
  };
  bool skipped = false;
  const auto blocks = [&] {
    for (size_t i = 0; i < n; i++) {
      Job& job = *running[(turn_ + i) % n];
      if (job.sequence.prefilling() || !may_compute(job)) continue;
      if (rows_left < 2 * job.request().block_length) {
        skipped = true;
        continue;
      }
      rows_left -= add(job, rows_left);
    }
  };
  if (prompts_first_) {
    prompts(), blocks();
  } else {
    blocks(), prompts();
  }
  planned_.decode = step_.rows() - planned_.prompt;
  prompts_first_ = !(prompts_first_ && skipped);
  turn_ = n ? (turn_ + 1) % n : 0;
}

double StepPlanner::prefill_share() const {
  return step_.rows() > 0 ? static_cast<double>(planned_.prompt) / step_.rows() : 0;
}

}  // namespace sdar
