// The portable backend's lm_head: sampled rows against hand-checked cases and the full sort (oracle.h).
#include <numeric>

#include "check.h"
#include "denoise/philox.h"
#include "reference_backend.h"

using namespace sdar;
using namespace oracle;

namespace {

/// The head alone: with hidden = vocabulary, the identity as lm_head and a norm that undoes itself, x becomes the
/// logits.
SampledToken head_of(const std::vector<float>& logits, SampledRow request, std::vector<float>* written = nullptr) {
  const int n = static_cast<int>(logits.size());
  auto backend = backend_for(shape_of(n));
  double squares = 0;
  for (float v : logits) squares += static_cast<double>(v) * v;
  const float norm = std::sqrt(static_cast<float>(squares / n) + 1e-6f);
  Matrix identity{n, n, std::vector<float>(static_cast<size_t>(n) * n)};
  for (int i = 0; i < n; i++) identity.data[static_cast<size_t>(i) * n + i] = 1;
  const Held weight = hold(*backend, WeightKind::linear, WeightFormat::f32, {identity});
  const Held norms = hold_vector(*backend, std::vector<float>(n, norm));
  SampledToken result;
  if (written) written->assign(n, kNan);
  lm_head(*backend, {.x = logits.data(), .norm = norms, .weight = weight}, {&request, 1}, {&result, 1},
          written ? written->data() : nullptr);
  return result;
}

}  // namespace

TEST("lm_head: greedy by hand") {
  const std::vector<float> logits{1, 3, 3, -2};
  const double z = std::exp(1 - 3.0) + 2 + std::exp(-2 - 3.0);
  SampledToken r = head_of(logits, {});
  CHECK(r.token == 1 && r.finite);  // the lower of two equal ones
  CHECK_NEAR(r.confidence, 1 / z, 1e-6);
  CHECK_NEAR(r.logprob, -std::log(z), 1e-6);
  CHECK_NEAR(r.max, 3, 1e-6);
  CHECK_NEAR(r.logsumexp, 3 + std::log(z), 1e-6);

  const int32_t suppressed[] = {1, 2};  // they keep their probability
  r = head_of(logits, {.suppressed = suppressed});
  CHECK(r.token == 0);
  CHECK_NEAR(r.confidence, std::exp(-2.0) / z, 1e-6);
  CHECK_NEAR(r.logprob, -2 - std::log(z), 1e-6);

  const int32_t bias_ids[] = {0, 3};
  const float bias[] = {-1, 7};
  std::vector<float> written;
  r = head_of(logits, {.bias_ids = bias_ids, .bias_values = bias}, &written);
  CHECK(r.token == 3);
  CHECK_NEAR(r.max, 5, 1e-5);
  CHECK_NEAR(r.confidence, 1 / (1 + 2 * std::exp(-2.0) + std::exp(-5.0)), 1e-6);
  CHECK_NEAR(relative_error(written, std::vector<float>{0, 3, 3, 5}), 0, 1e-6);
}

TEST("lm_head: entropy") {
  CHECK_NEAR(head_of({1, 1, 1, 1}, {}).entropy, std::log(4.0), 1e-6);
  CHECK_NEAR(head_of({0, 100}, {}).entropy, 0, 1e-6);
  CHECK_NEAR(head_of({0, 100}, {.temperature = 100}).entropy,
             oracle::choose(std::vector<float>{0, 100}, {.temperature = 100}).result.entropy, 1e-6);
}

TEST("lm_head: sampling by hand") {
  const std::vector<float> logits{std::log(4.0f), std::log(1.0f), std::log(2.0f), std::log(3.0f)};  // p = .4 .1 .2 .3
  const auto at = [&](double uniform, SampledRow request = {}) {
    request.temperature = 1;
    request.uniform = uniform;
    return head_of(logits, request);
  };
  CHECK(at(0).token == 0 && at(0.399).token == 0 && at(0.401).token == 1 && at(0.499).token == 1);
  CHECK(at(0.501).token == 2 && at(0.699).token == 2 && at(0.701).token == 3 && at(1 - 0x1p-53).token == 3);
  CHECK_NEAR(at(0.45).confidence, 0.1, 1e-6);
  CHECK(head_of({1, 1}, {.temperature = 1, .uniform = 0.5}).token == 1);  // on the boundary: the next one
  // top-k 2 leaves 0 and 3: 4/7, 3/7
  CHECK(at(0.57, {.top_k = 2}).token == 0 && at(0.572, {.top_k = 2}).token == 3);
  CHECK_NEAR(at(0.6, {.top_k = 2}).confidence, 0.3, 1e-6);
  CHECK_NEAR(at(0.6, {.top_k = 2, .confidence = Confidence::sampled}).confidence, 3.0 / 7, 1e-6);
  CHECK_NEAR(at(0.6, {.top_k = 2}).logprob, std::log(0.3), 1e-5);
  // top-p 0.65 needs 0 and 3; after top-k 3 (4/9, 3/9, 2/9) it still does; 0.4 after top-k 3 needs 0 alone
  CHECK(at(0.99, {.top_p = 0.65f}).token == 3 && at(0.99, {.top_p = 0.75f}).token == 3);
  CHECK(at(0.5, {.top_p = 0.75f}).token == 2);
  CHECK(at(0.99, {.top_k = 3, .top_p = 0.41f}).token == 0 && at(0.99, {.top_p = 0.41f}).token == 3);
  CHECK(at(0.99, {.top_p = 1e-9f}).token == 0);  // the best one is always in
  // a suppressed id is out, its mass goes to the others
  const int32_t suppressed[] = {0};
  CHECK(at(0, {.suppressed = suppressed}).token == 1 && at(0.99, {.top_k = 1, .suppressed = suppressed}).token == 3);
  CHECK_NEAR(at(0, {.suppressed = suppressed}).confidence, 0.1, 1e-6);
  CHECK_NEAR(at(0, {.confidence = Confidence::sampled, .suppressed = suppressed}).confidence, 1.0 / 6, 1e-6);
}

TEST("lm_head: ties of top-k and top-p go to the lower ids") {
  const std::vector<float> logits{0, 2, 2, 2, 2};
  for (double uniform : {0.0, 0.3, 0.6, 0.9}) {
    CHECK(head_of(logits, {.temperature = 1, .top_k = 2, .uniform = uniform}).token == (uniform < 0.5 ? 1 : 2));
    CHECK(head_of(logits, {.temperature = 1, .top_k = 4, .top_p = 0.5f, .uniform = uniform}).token ==
          (uniform < 0.5 ? 1 : 2));
  }
}

TEST("lm_head: extreme temperatures, and a suppressed id that outweighs all others") {
  const std::vector<float> logits{0, 900, 1, 3};
  const int32_t suppressed[] = {1};
  for (float temperature : {1e-3f, 1e-30f, 1e-45f}) {
    const SampledToken r = head_of(logits, {.temperature = temperature, .uniform = 0.999, .suppressed = suppressed});
    CHECK(r.finite && r.token == 3 && r.confidence == 0);
    CHECK_NEAR(r.logprob, -897, 1e-3);
    CHECK_NEAR(r.entropy, 0, 1e-6);
  }
  const SampledToken hot = head_of(logits, {.temperature = 1e30f, .uniform = 0.7, .suppressed = suppressed});
  CHECK(hot.token == 3);
  CHECK_NEAR(hot.entropy, std::log(4.0), 1e-6);
}

TEST("lm_head: what is not finite is reported") {
  auto backend = backend_for(shape_of(3));
  const Held norm = hold_vector(*backend, {1, 1, 1});
  for (float bad : {kNan, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    const Held weight = hold(*backend, WeightKind::table, WeightFormat::f32, {{2, 3, {1, 2, 3, 1, 1, bad}}});
    const std::vector<float> x{1, 1, 1};
    SampledRow requests[2] = {{}, {.temperature = 1}};
    SampledToken results[2];
    lm_head(*backend, {.x = x.data(), .norm = norm, .weight = weight}, requests, results);
    CHECK(!results[0].finite && !results[1].finite);
  }
  const int32_t all[] = {0, 1};
  CHECK(!head_of({1, 2}, {.suppressed = all}).finite);
}

TEST("lm_head: many requests, rows in any order, every format; same bits as alone") {
  Random random(6);
  const int hidden = 50, vocabulary = 131, rows = 40;
  for (WeightFormat format : kFormats) {
    auto backend = backend_for(shape_of(hidden));
    const std::vector<float> norm = random.floats(hidden, 0.5, 2);
    const Held held_norm = hold_vector(*backend, norm);
    const Matrix w = random_matrix(random, vocabulary, hidden), x = random_matrix(random, rows, hidden);
    const Held weight = hold(*backend, WeightKind::table, format, {w});
    std::vector<SampledRow> requests;
    for (int i = 0; i < rows; i += 2)
      requests.push_back({.row = rows - 1 - i, .temperature = i % 4 ? 0.5f : 0.0f, .uniform = random.uniform()});
    std::vector<SampledToken> results(requests.size());
    std::vector<float> logits(requests.size() * vocabulary, kNan);
    const LmHeadArgs args{.x = x.data.data(), .norm = held_norm, .weight = weight};
    lm_head(*backend, args, requests, results, logits.data());
    for (size_t i = 0; i < requests.size(); i++) {
      SampledToken alone;
      lm_head(*backend, args, {&requests[i], 1}, {&alone, 1});
      CHECK(alone.token == results[i].token && alone.confidence == results[i].confidence &&
            alone.entropy == results[i].entropy && alone.logsumexp == results[i].logsumexp &&
            alone.logprob == results[i].logprob);
      const std::span<const float> row(&logits[i * vocabulary], vocabulary);
      CHECK(oracle::choose(row, requests[i]).result.token == results[i].token);
      const Matrix h{1, hidden, {x.row(requests[i].row), x.row(requests[i].row) + hidden}};
      const WeightFormat held = format == WeightFormat::int4 ? WeightFormat::int8 : format;  // tables stay at 8 bits
      const Matrix expected = product(rounded(rms_norm(h, norm, 1e-6f), held, true), rounded(w, held));
      CHECK_NEAR(relative_error(row, expected.data), 0, format == WeightFormat::f32 ? 1e-6 : 2e-3);
    }
  }
}

TEST("lm_head: random requests against the full sort, with ties") {
  Random random(8);
  int near = 0;
  for (int round = 0; round < 3000; round++) {
    const int vocabulary = 2 + random.below(40);
    std::vector<float> logits = random.floats(vocabulary, -6, 6);
    if (random.below(2)) {
      for (float& v : logits) v = std::nearbyint(v);
    }
    std::vector<int32_t> suppressed;
    for (int i = random.below(3); i > 0 && vocabulary > 4; i--) suppressed.push_back(random.below(vocabulary));
    SampledRow request{.temperature = random.below(4) ? random.between(0.1, 3) : 0.0f,
                       .top_k = random.below(2) ? random.below(vocabulary + 5) : 0,
                       .top_p = random.below(2) ? random.between(0.01, 1) : 1.0f,
                       .min_p = random.below(3) ? 0.0f : random.between(0.01, 1),
                       .uniform = random.uniform(),
                       .confidence = random.below(2) ? Confidence::model : Confidence::sampled,
                       .suppressed = suppressed};
    std::vector<RankedToken> candidates(static_cast<size_t>(random.below(2) * random.below(33)));
    std::vector<RankedToken> top(static_cast<size_t>(random.below(2) * random.below(21)));
    RankedToken wanted;
    uint64_t allowed = 0;
    request.candidates = candidates, request.top = top, request.wanted_logit = &wanted;
    if (random.below(2)) {
      for (int id = 0; id < vocabulary; id++) allowed |= static_cast<uint64_t>(random.below(3) == 0) << id;
      request.allowed = &allowed;
      request.wanted = random.below(vocabulary);
    }
    std::vector<float> written;
    const SampledToken got = head_of(logits, request, &written);
    if (ranked_ids(written, request).empty()) {
      CHECK(!got.finite);
      continue;
    }
    CHECK(tells_best(candidates, ranked_ids(written, request), written));
    CHECK(tells_best(top, ranked_ids(written, request, true), written));
    CHECK(wanted.id == request.wanted && (wanted.id < 0 || wanted.logit == written[wanted.id]));
    const Choice want = oracle::choose(written, request);
    if (want.margin < 1e-12) {  // at a boundary rounding decides
      near++;
      continue;
    }
    CHECK(got.token == want.result.token && got.finite);
    CHECK_NEAR(got.confidence, want.result.confidence, 1e-6);
    CHECK_NEAR(got.logprob, want.result.logprob, 1e-5);
    CHECK_NEAR(got.entropy, want.result.entropy, 1e-5);
    CHECK_NEAR(got.logsumexp, want.result.logsumexp, 1e-5);
    CHECK(got.max == want.result.max);
  }
  CHECK(near < 30);
}

TEST("lm_head: min-p by hand") {
  const std::vector<float> logits{std::log(4.0f), std::log(1.0f), std::log(2.0f), std::log(3.0f)};  // p = .4 .1 .2 .3
  const auto at = [&](double uniform, SampledRow request) {
    request.uniform = uniform;
    return head_of(logits, request);
  };
  // 0.6 · 0.4 leaves 0 and 3; at half the temperature their squares count: 9/16 is less than 0.6
  CHECK(at(0.57, {.temperature = 1, .min_p = 0.6f}).token == 0);
  CHECK(at(0.572, {.temperature = 1, .min_p = 0.6f}).token == 3);
  CHECK(at(0.99, {.temperature = 0.5f, .min_p = 0.6f}).token == 0);
  CHECK(at(0.99, {.temperature = 1, .min_p = 1}).token == 0);
  CHECK_NEAR(at(0.99, {.temperature = 1, .min_p = 0.6f}).confidence, 0.3, 1e-6);
  CHECK_NEAR(at(0.99, {.temperature = 1, .min_p = 0.6f, .confidence = Confidence::sampled}).confidence, 3.0 / 7, 1e-6);
  // the best that may be chosen is what the others are measured by
  const int32_t suppressed[] = {0};
  CHECK(at(0.99, {.temperature = 1, .min_p = 0.6f, .suppressed = suppressed}).token == 3);
  CHECK(at(0.3, {.temperature = 1, .min_p = 0.6f, .suppressed = suppressed}).token == 2);
  // it is no part of an argmax
  CHECK(at(0, {.min_p = 1}).token == 0);
}

TEST("lm_head: penalties by hand, after the bias") {
  const std::vector<float> logits{4, -2, 1, 3};
  const PenalisedToken penalised[] = {{0, 0, 0.5f}, {1, 0, 0}, {2, 2, 1}, {3, 0, 1}, {3, 1, 2}, {3, 3, 9}};
  const int32_t bias_ids[] = {1};
  const float bias[] = {1};
  std::vector<float> written;
  SampledRow row{.bias_ids = bias_ids, .bias_values = bias, .penalised = penalised, .repetition = 2, .offset = 1};
  CHECK(head_of(logits, row, &written).token == 0);
  CHECK_NEAR(relative_error(written, std::vector<float>{1.5, -2, 1, -0.5}), 0, 1e-6);
  row.offset = 3;
  head_of(logits, row, &written);
  CHECK_NEAR(relative_error(written, std::vector<float>{1.5, -2, -0.5, -7.5}), 0, 1e-6);
}

TEST("lm_head: only allowed ids are chosen, and the best ones told") {
  const std::vector<float> logits{5, 1, 4, 4, -2, 3};
  const uint64_t allowed[] = {0b111010};  // all but 0 and 2
  const int32_t suppressed[] = {5};
  RankedToken candidates[4], top[3], wanted;
  SampledRow request{.suppressed = suppressed, .allowed = allowed, .wanted = 2, .wanted_logit = &wanted};
  request.candidates = candidates, request.top = top;
  std::vector<float> written;
  const SampledToken plain = head_of(logits, {}, &written), r = head_of(logits, request);
  CHECK(r.token == 3 && r.max == plain.max && r.logsumexp == plain.logsumexp);
  CHECK_NEAR(r.logprob, 4 - plain.logsumexp, 1e-5);
  CHECK(tells_best(candidates, std::vector<int32_t>{3, 1, 4}, written));
  CHECK(tells_best(top, std::vector<int32_t>{0, 2, 3}, written));
  CHECK(wanted.id == 2 && wanted.logit == written[2]);
  const uint64_t none[] = {0b100000};  // what is suppressed
  CHECK(!head_of(logits, {.suppressed = suppressed, .allowed = none}).finite);
}

TEST("lm_head: samples are distributed as the probabilities after truncation") {
  const std::vector<float> logits{0.3f, -1, 2, 1.1f, 0.9f, -0.2f, 1.7f, 0};
  const int32_t suppressed[] = {6};
  for (SampledRow request : {SampledRow{.temperature = 1.3f, .suppressed = suppressed},
                             SampledRow{.temperature = 0.8f, .top_k = 5, .top_p = 0.9f, .suppressed = suppressed}}) {
    const int samples = 20000;
    std::vector<int> count(logits.size());
    for (int i = 0; i < samples; i++) {
      request.uniform = philox_uniform(42, i, 0, 0);
      count[head_of(logits, request).token]++;
    }
    double chi_square = 0;
    const auto support = oracle::choose(logits, request).support;
    int counted = 0;
    for (const auto& [id, p] : support) {
      chi_square += std::pow(count[id] - samples * p, 2) / (samples * p);
      counted += count[id];
    }
    CHECK(counted == samples);
    CHECK(support.size() == (request.top_k ? 4 : 7));
    CHECK(chi_square < 22.5);  // 0.1 % of the distribution of 6 degrees of freedom lies beyond
  }
}

int main(int c, char** v) { return check::run(c, v); }
