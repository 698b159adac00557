// Steps whose sequences have limits, penalties and questions of all kinds, on each backend: what comes back is what a full
// sort of the step's own logits says, and the same whatever else is in the step. CUDA runs under the SIMT executor.
#include <bit>

#include "backend/cuda/backend.h"
#include "backend/cuda/library.h"
#include "check.h"
#include "denoise/philox.h"
#include "harness.h"
#include "oracle.h"
#include "simt/device.h"
#include "simt/executor.h"

using namespace sdar;
using namespace oracle;

namespace {

constexpr int kBlock = 8, kRows = 3 * kBlock, kIds = 560, kWords = (kIds + 63) / 64;

/// A sequence of three blocks, the last of them active, and what it points to.
struct Sample {
  std::vector<int32_t> ids, pages, suppressed, early;
  std::vector<RowLimits> limits;
  std::vector<PenalisedToken> penalised;
  SamplingParams sampling;
  StepSequence sequence;

  Sample(Random& random, int index, const std::vector<std::vector<uint64_t>>& masks) {
    for (int i = 0; i < kRows; i++) ids.push_back(random.below(kIds - 1));
    pages = {index};
    for (int i = index % 3 == 1 ? 40 : 1 + random.below(4); i > 0; i--) suppressed.push_back(random.below(kIds));
    early = suppressed;
    for (int i = random.below(5); i > 0; i--) early.push_back(random.below(kIds));
    sampling.temperature = index % 2 ? 0.8f : 0;
    sampling.top_k = index % 4 == 3 ? 9 : 0;
    sampling.min_p = index % 5 == 3 ? 0.02f : 0;
    sampling.seed = 5 + static_cast<uint64_t>(index);
    sampling.top_logprobs = index % 3 == 2 ? 1 + random.below(20) : 0;
    if (index % 4 > 1) {
      sampling.repetition_penalty = 1.5f;
      for (int id = random.below(9); id < kIds; id += 1 + random.below(30))
        penalised.push_back({.id = id, .less = random.between(-1, 1)});
    }
    sequence = {.segment = {.rows = kRows, .block_length = kBlock, .pages = pages.data()},
                .ids = ids.data(),
                .denoise = true,
                .step = random.below(3),
                .masked = static_cast<uint64_t>(1 + random.below(255)),
                .sampling = &sampling,
                .suppressed = suppressed,
                .suppressed_early = early,
                .free_from = 2 * kBlock + random.below(kBlock),
                .penalised = penalised,
                .candidates = index % 2 ? 0 : 1 + random.below(32)};
    for (int offset = 0; index % 4 != 3 && offset < kBlock; offset++) {
      const int mask = random.below(static_cast<int>(masks.size()) + 1);
      limits.push_back({.allowed = mask ? masks[static_cast<size_t>(mask) - 1].data() : nullptr,
                        .wanted = random.below(kIds + 1) - 1});
    }
    sequence.limits = limits;
  }
};

/// A step's results, and its logits where they are wanted.
struct Outcome {
  struct Row {
    SampledToken token;
    std::vector<RankedToken> candidates = {}, top = {};
    RankedToken wanted = {};
  };
  std::vector<Row> rows;  ///< of all sequences
  std::vector<float> logits;
};

Outcome run(Backend& backend, const std::vector<const Sample*>& samples, bool wants_logits, bool penalised = true) {
  Step step;
  size_t count = 0;
  for (const Sample* s : samples) {
    StepSequence sequence = s->sequence;
    if (!penalised) sequence.penalised = {};
    step.add(sequence);
    count += static_cast<size_t>(std::popcount(sequence.masked));
  }
  Outcome outcome;
  outcome.logits.resize(wants_logits ? count * kIds : 0);
  if (wants_logits) step.logits = outcome.logits.data();
  const auto results = backend.run(step);
  for (size_t i = 0; i < samples.size(); i++) {
    const StepSequence& s = samples[i]->sequence;
    const SequenceResult& r = results[i];
    const auto masked = static_cast<size_t>(std::popcount(s.masked)), each = static_cast<size_t>(s.candidates);
    const auto top = static_cast<size_t>(s.sampling->top_logprobs);
    CHECK(r.finite && r.candidates.size() == masked * each && r.top.size() == masked * top);
    CHECK(r.wanted.size() == (s.limits.empty() ? 0 : masked));
    size_t rank = 0;
    for (uint64_t left = s.masked; left; left &= left - 1, rank++) {
      const auto list = [&](auto all, size_t n) { return std::vector(&all[rank * n], &all[rank * n] + n); };
      outcome.rows.push_back({.token = r.at[static_cast<size_t>(std::countr_zero(left))]});
      if (each) outcome.rows.back().candidates = list(r.candidates, each);
      if (top) outcome.rows.back().top = list(r.top, top);
      if (!r.wanted.empty()) outcome.rows.back().wanted = r.wanted[rank];
    }
  }
  return outcome;
}

bool same(std::span<const RankedToken> a, std::span<const RankedToken> b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) { return x.id == y.id && x.logit == y.logit; });
}
bool same(const Outcome::Row& a, const Outcome::Row& b) {
  return a.token.token == b.token.token && a.token.confidence == b.token.confidence &&
         a.token.logprob == b.token.logprob && same(a.candidates, b.candidates) && same(a.top, b.top) &&
         same({&a.wanted, 1}, {&b.wanted, 1});
}

void check_row(const Sample& s, int offset, const Outcome::Row& row, std::span<const float> logits,
               std::span<const float> unpenalised) {
  const int position = s.sequence.active_position() + offset;
  SampledRow request{.temperature = s.sampling.temperature,
                     .top_k = s.sampling.top_k,
                     .min_p = s.sampling.min_p,
                     .uniform = philox_uniform(s.sampling.seed, position, s.sequence.step, 0),
                     .suppressed = position < s.sequence.free_from ? s.early : s.suppressed};
  const bool limited = !s.limits.empty();
  if (limited) request.allowed = s.limits[static_cast<size_t>(offset)].allowed;
  CHECK(tells_best(row.candidates, ranked_ids(logits, request), logits));
  CHECK(tells_best(row.top, ranked_ids(logits, request, true), logits));
  const int32_t wanted = limited ? s.limits[static_cast<size_t>(offset)].wanted : -1;
  CHECK(row.wanted.id == wanted && (wanted < 0 || row.wanted.logit == logits[wanted]));
  const Choice choice = choose(logits, request);
  if (choice.margin > 1e-5) CHECK(row.token.token == choice.result.token);
  CHECK_NEAR(row.token.logsumexp, choice.result.logsumexp, 1e-4);
  std::vector<float> expected(unpenalised.begin(), unpenalised.end());
  for (const PenalisedToken& p : s.penalised) {
    float& l = expected[static_cast<size_t>(p.id)];
    l = (l > 0 ? l / s.sampling.repetition_penalty : l * s.sampling.repetition_penalty) - p.less;
  }
  CHECK(std::ranges::equal(expected, logits));
}

void check_backend(const EngineOptions& options) {
  Random random(4);
  std::vector<std::vector<uint64_t>> masks;
  for (int share : {2, 9, 40}) {
    masks.emplace_back(kWords);
    for (int id = random.below(share); id < kIds; id += 1 + random.below(share))
      masks.back()[static_cast<size_t>(id) / 64] |= uint64_t{1} << id % 64;
    for (int id : {3, 77, 200, 303, 404, 450}) masks.back()[static_cast<size_t>(id) / 64] |= uint64_t{1} << id % 64;
  }
  const auto model = load_model(options, {});
  std::vector<Sample> samples;
  samples.reserve(8);
  for (int i = 0; i < 8; i++) samples.emplace_back(random, i, masks);
  std::vector<const Sample*> all;
  for (const Sample& s : samples) all.push_back(&s);
  const Outcome with = run(*model->backend, all, true), plain = run(*model->backend, all, true, false);
  const Outcome without = run(*model->backend, all, false);
  size_t row = 0;
  for (const Sample& s : samples) {
    const bool alone_too = !harness::quick() || &s == &samples[1] || &s == &samples[6];
    const Outcome alone = alone_too ? run(*model->backend, {&s}, false) : Outcome{};
    size_t own = 0;
    for (uint64_t left = s.sequence.masked; left; left &= left - 1, row++, own++) {
      const auto of = [&](const Outcome& o) { return std::span(o.logits).subspan(row * kIds, kIds); };
      check_row(s, std::countr_zero(left), with.rows[row], of(with), of(plain));
      CHECK(same(without.rows[row], with.rows[row]));
      if (alone_too) CHECK(same(alone.rows[own], with.rows[row]));
    }
  }
}

EngineOptions options_of(const char* device, const char* isa = "") {
  return {.path = "models/sdar-nano", .device = device, .weights = WeightFormat::bf16, .threads = 2, .isa = isa};
}

}  // namespace

TEST("limits, penalties and what is told of a step: the CPU") { check_backend(options_of("cpu")); }

TEST("limits, penalties and what is told of a step: plain loops") { check_backend(options_of("cpu", "portable")); }

TEST("limits, penalties and what is told of a step: CUDA") {
  cuda::use_interface(&cuda_host::device_interface());
  cuda_host::each_order([] {
    EngineOptions options = options_of("cuda");
    options.max_rows = 256, options.kv_tokens = 1024;
    check_backend(options);
  });
  cuda::use_interface(nullptr);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
