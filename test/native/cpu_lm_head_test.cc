// The head of the fast CPU backend in every instruction set: tokens and numbers against the formulas, over odd
// vocabularies; the same bits in any batch.
#include "check.h"
#include "cpu_kernels.h"
#include "limited_rows.h"

using namespace sdar;
using namespace oracle;

namespace {

/// A head whose logits are x: f32 identity as lm_head and a norm that undoes RMSNorm of rows with equal mean squares.
struct Identity {
  std::unique_ptr<HostBackend> backend;
  Held weight, norm;
  int n;

  Identity(const std::string& isa, int threads, int vocabulary) : n(vocabulary) {
    backend = fast_backend(isa, threads, n);
    Matrix identity{n, n, std::vector<float>(static_cast<size_t>(n) * n)};
    for (int i = 0; i < n; i++) identity.data[static_cast<size_t>(i) * n + i] = 1;
    weight = hold(*backend, WeightKind::linear, WeightFormat::f32, {identity});
    norm = hold_vector(*backend, std::vector<float>(n, 4.0f));
  }
  /// Logits up to rounding of the norm; the exact ones are written out.
  std::vector<SampledToken> run(const Matrix& x, std::span<const SampledRow> requests, std::vector<float>* logits) {
    std::vector<SampledToken> results(requests.size());
    if (logits) logits->assign(requests.size() * n, kNan);
    lm_head(*backend, {x.data.data(), norm, weight}, requests, results, logits ? logits->data() : nullptr);
    return results;
  }
};

bool same(const SampledToken& a, const SampledToken& b) {
  return a.token == b.token && a.confidence == b.confidence && a.logprob == b.logprob && a.entropy == b.entropy &&
         a.max == b.max && a.logsumexp == b.logsumexp && a.finite == b.finite;
}

void compare(const SampledToken& got, std::span<const float> logits, const SampledRow& request,
             const std::string& isa) {
  const Choice expected = choose(logits, request);
  CHECK(got.finite);
  CHECK_NEAR(got.max, expected.result.max, 0);
  CHECK_NEAR(got.logsumexp, expected.result.logsumexp, 2e-6 * std::max(1.0f, std::abs(expected.result.logsumexp)));
  CHECK_NEAR(got.entropy, expected.result.entropy, 2e-5);
  if (expected.margin < 1e-5) return;  // too near to another choice
  if (got.token != expected.result.token) {
    check::fail(__FILE__, __LINE__,
                isa + ": token " + std::to_string(got.token) + ", not " + std::to_string(expected.result.token));
    return;
  }
  CHECK_NEAR(got.confidence, expected.result.confidence, 2e-6 + 1e-5 * expected.result.confidence);
  CHECK_NEAR(got.logprob, expected.result.logprob, 1e-5);
}

}  // namespace

TEST("greedy and sampled tokens with their numbers, with and without the logits written out") {
  Random random(1);
  for (const std::string& isa : fast_sets()) {
    for (int vocabulary : {2, 17, 256, 333, 1030}) {
      Identity head(isa, 2, vocabulary);
      const int rows = 9;
      const Matrix x = random_matrix(random, rows, vocabulary);
      std::vector<SampledRow> requests;
      std::vector<std::vector<int32_t>> suppressed;
      suppressed.reserve(200);
      for (int i = 0; i < 150; i++) {
        SampledRow r;
        r.row = random.below(rows);
        if (i % 3) r.temperature = random.between(0.2, 2);
        if (i % 4 == 1) r.top_k = 1 + random.below(vocabulary);
        if (i % 5 < 2) r.top_p = random.between(0.05, 1);
        r.uniform = random.uniform();
        r.confidence = i % 2 ? Confidence::model : Confidence::sampled;
        suppressed.emplace_back();
        for (int j = 0; j < i % 3 && j < vocabulary - 1; j++) suppressed.back().push_back(random.below(vocabulary));
        r.suppressed = suppressed.back();
        requests.push_back(r);
      }
      std::vector<float> logits;
      const auto results = head.run(x, requests, &logits), without = head.run(x, requests, nullptr);
      for (size_t i = 0; i < requests.size(); i++) {
        CHECK(same(results[i], without[i]));
        compare(results[i], {&logits[i * vocabulary], static_cast<size_t>(vocabulary)}, requests[i], isa);
      }
    }
  }
}

TEST("limits and penalties: only allowed ids are chosen; candidates, wanted and top are those of a full sort") {
  Random random(11);
  for (const std::string& isa : fast_sets()) {
    for (int vocabulary : {2, 63, 64, 255, 256, 257, 1030}) {
      Identity head(isa, 3, vocabulary);
      Matrix x = random_matrix(random, 4, vocabulary);
      for (int i = 0; i < vocabulary; i++) x.data[vocabulary + i] = std::nearbyint(2 * x.data[vocabulary + i]);  // ties
      const auto rows = limited_rows(random, 120, 4, vocabulary);
      std::vector<SampledRow> requests, plain;
      for (const auto& row : rows) {
        requests.push_back(row->request);
        plain.push_back({.row = row->request.row});
      }
      std::vector<float> all, unpenalised;
      head.run(x, plain, &unpenalised);
      const auto results = head.run(x, requests, &all);
      for (size_t i = 0; i < requests.size(); i++) {
        const std::span<const float> logits(&all[i * vocabulary], static_cast<size_t>(vocabulary));
        const std::vector<int32_t> ids = ranked_ids(logits, requests[i]);
        CHECK(results[i].finite == !ids.empty());
        const auto first = unpenalised.begin() + static_cast<std::ptrdiff_t>(i * vocabulary);
        CHECK(std::ranges::equal(rows[i]->applied({first, first + vocabulary}), logits));
        if (ids.empty()) continue;
        compare(results[i], logits, requests[i], isa);
        CHECK(tells_all(*rows[i], logits));
      }
      const auto without = head.run(x, requests, nullptr);
      for (size_t i = 0; i < requests.size(); i++) CHECK(same(results[i], without[i]) || !results[i].finite);
    }
  }
}

TEST("allowed ids whose share of the mass vanishes are sampled by their own") {
  Random random(12);
  for (const std::string& isa : fast_sets()) {
    const int n = 700;
    Identity head(isa, 2, n);
    Matrix x{1, n, std::vector<float>(n, 0.0f)};
    for (int i = 0; i < n; i++) x.data[i] = i % 7 == 3 ? -30 + static_cast<float>(i % 5) : 90;
    std::vector<uint64_t> allowed((n + 63) / 64, 0);
    for (int i = 3; i < n; i += 7) allowed[i / 64] |= uint64_t{1} << i % 64;
    std::vector<SampledRow> requests;
    for (int i = 0; i < 200; i++)
      requests.push_back({.temperature = 0.7f, .uniform = (i + 0.5) / 200, .confidence = Confidence::sampled});
    for (SampledRow& r : requests) r.allowed = allowed.data();
    std::vector<float> logits;
    const auto results = head.run(x, requests, &logits);
    for (size_t i = 0; i < requests.size(); i++) {
      CHECK(results[i].token % 7 == 3);
      compare(results[i], {&logits[i * n], static_cast<size_t>(n)}, requests[i], isa);
    }
  }
}

TEST("a row's bits do not depend on the other requests or the threads") {
  Random random(2);
  for (const std::string& isa : fast_sets()) {
    for (WeightFormat format : kFormats) {
      const int hidden = 160, vocabulary = 700, rows = 300;  // more than pass over the weights together
      const Matrix weights = random_matrix(random, vocabulary, hidden), x = random_matrix(random, rows, hidden);
      std::vector<SampledToken> first;
      std::vector<uint64_t> allowed((vocabulary + 63) / 64);
      for (int id = 0; id < vocabulary; id += 1 + random.below(20)) allowed[id / 64] |= uint64_t{1} << id % 64;
      std::vector<std::array<RankedToken, 32>> candidates(rows), first_candidates;
      std::vector<std::array<RankedToken, 20>> top(rows), first_top;
      const auto equal = [](const auto& a, const auto& b) {
        return std::equal(a.begin(), a.end(), b.begin(), [](const RankedToken& x, const RankedToken& y) {
          return x.id == y.id && x.logit == y.logit;
        });
      };
      for (int threads : {1, 2, 3}) {
        auto backend = fast_backend(isa, threads, hidden);
        const Held weight = hold(*backend, WeightKind::table, format, {weights});
        const Held norm = hold_vector(*backend, std::vector<float>(hidden, 1.0f));
        std::vector<SampledRow> requests(rows);
        for (int i = 0; i < rows; i++) {
          requests[i].row = i;
          requests[i].temperature = i % 2 ? 0.7f : 0;
          requests[i].top_k = i % 3 ? 0 : 20;
          requests[i].uniform = (i + 0.5) / rows;
          requests[i].min_p = i % 5 ? 0 : 0.05f;
          if (i % 7 == 0) requests[i].allowed = allowed.data();
          if (i % 2 == 0) requests[i].candidates = candidates[i];
          if (i % 3 == 0) requests[i].top = top[i];
        }
        const auto run = [&](std::span<const SampledRow> some) {
          std::vector<SampledToken> results(some.size());
          lm_head(*backend, {x.data.data(), norm, weight}, some, results);
          return results;
        };
        const auto all = run(requests);
        if (first.empty()) first = all, first_candidates = candidates, first_top = top;
        for (int i = 0; i < rows; i++) {
          CHECK(same(all[i], first[i]));
          CHECK(equal(candidates[i], first_candidates[i]) && equal(top[i], first_top[i]));
          if (i % 29 == 0) CHECK(same(run({&requests[i], 1})[0], first[i]));
        }
      }
    }
  }
}

TEST("ties go to the lower id; suppressed ids keep their probability; bias comes first") {
  for (const std::string& isa : fast_sets()) {
    const int n = 600;
    Identity head(isa, 2, n);
    Matrix x{1, n, std::vector<float>(n, 0.0f)};
    for (int id : {40, 41, 255, 256, 599}) x.data[id] = 1;
    std::vector<float> logits;
    SampledRow r;
    const SampledToken plain = head.run(x, {&r, 1}, &logits)[0];
    CHECK(plain.token == 40);
    const std::vector<int32_t> suppressed{256, 40, 41, -1, 9999};
    r.suppressed = suppressed;
    const SampledToken rest = head.run(x, {&r, 1}, nullptr)[0];
    CHECK(rest.token == 255 && rest.confidence == plain.confidence && rest.logsumexp == plain.logsumexp);
    const std::vector<int32_t> ids{3, 255, 599};
    const std::vector<float> values{200, -50, -50};
    r.bias_ids = ids;
    r.bias_values = values;
    std::vector<float> biased;
    const SampledToken b = head.run(x, {&r, 1}, &biased)[0];
    CHECK(b.token == 3 && b.confidence > 0.999f);
    CHECK(biased[3] == logits[3] + 200 && biased[599] == logits[599] - 50 && biased[40] == logits[40]);
    std::vector<int32_t> every(n);
    std::iota(every.begin(), every.end(), 0);
    r.suppressed = every;
    CHECK(!head.run(x, {&r, 1}, nullptr)[0].finite);
    r.temperature = 1;
    CHECK(!head.run(x, {&r, 1}, nullptr)[0].finite);
  }
}

TEST("sampling keeps ties by id, the best token always, and reaches the last id") {
  for (const std::string& isa : fast_sets()) {
    const int n = 300;
    Identity head(isa, 1, n);
    Matrix x{1, n, std::vector<float>(n, 1.0f)};  // all equal
    SampledRow r;
    r.temperature = 0.5f;
    r.top_k = 10;
    const auto token = [&] { return head.run(x, {&r, 1}, nullptr)[0].token; };
    for (double u : {0.05, 0.55, 0.9999999}) {
      r.uniform = u;
      CHECK(token() == static_cast<int>(u * 10));
    }
    r.top_p = 0.35f;  // of ten equal ones: four
    for (double u : {0.05, 0.55, 0.9999999}) {
      r.uniform = u;
      CHECK(token() == static_cast<int>(u * 4));
    }
    r.top_k = 0;
    r.top_p = 1e-9f;
    CHECK(token() == 0);
    r.top_p = 1;
    r.uniform = 1 - 1e-16;
    CHECK(token() == n - 1);
    r.temperature = 1e-3f;  // all but the best underflow
    x.data[77] = 2;
    for (float temperature : {1e-3f, 1e-30f, 1e-45f}) {
      r.temperature = temperature;
      for (double u : {0.0, 0.5, 1 - 1e-16}) {
        r.uniform = u;
        const SampledToken result = head.run(x, {&r, 1}, nullptr)[0];
        CHECK(result.token == 77 && result.confidence == 1 && result.entropy == 0 && std::isfinite(result.logprob));
      }
    }
  }
}

TEST("a NaN or infinity among the logits is seen in its row only") {
  for (const std::string& isa : fast_sets()) {
    const int n = 333;
    for (float bad : {kNan, -kNan, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      for (int at : {0, 15, 255, 256, 332}) {
        Identity head(isa, 2, n);
        Matrix x{3, n, std::vector<float>(3 * n, 0.5f)};
        const std::vector<int32_t> ids{at};
        const std::vector<float> values{bad};
        std::vector<SampledRow> requests(3);
        for (int i = 0; i < 3; i++) requests[i].row = i, requests[i].temperature = i % 2 ? 1 : 0;
        requests[1].bias_ids = ids, requests[1].bias_values = values;
        const auto results = head.run(x, requests, nullptr);
        CHECK(results[0].finite && !results[1].finite && results[2].finite);
      }
    }
  }
}

int main(int c, char** v) { return check::run(c, v); }
