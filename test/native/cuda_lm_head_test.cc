// The lm_head of the CUDA backend under the SIMT executor: tokens and numbers against the formulas, over odd vocabularies;
// the same bits in any batch.
#include "backend/cuda/kernels/lm_head.h"
#include "cuda_tensors.h"
#include "limited_rows.h"

using namespace sdar;
using namespace oracle;

namespace {

struct Outcome {
  std::vector<cuda::DeviceSampledToken> results;
  Matrix logits;  ///< of those that asked for them
};

/// Runs the three kernels for some rows of x and sampled rows; `spare` ones beyond the count must change nothing.
Outcome run(const DeviceWeight& weight, const Matrix& x, std::span<const SampledRow> sampled, bool all_logits,
            int spare = 0) {
  const int vocabulary = weight.view.rows, count = static_cast<int>(sampled.size()), most = count + spare;
  std::vector<cuda::DeviceSampledRow> device(static_cast<size_t>(most));
  std::vector<int32_t> suppressed{-7}, bias_ids{-7};
  std::vector<float> bias_values{0};
  std::vector<uint64_t> masks;
  std::vector<PenalisedToken> penalised{{.id = -7}};
  int places = 0;
  Matrix input{most, x.cols, std::vector<float>(static_cast<size_t>(most * x.cols), kNan)};
  int rows = 0;
  for (int i = 0; i < count; i++) {
    const SampledRow& r = sampled[i];
    cuda::DeviceSampledRow& d = device[i];
    d.uniform = r.uniform, d.temperature = r.temperature, d.top_p = r.top_p, d.top_k = r.top_k;
    d.min_p_range = min_p_range(r.min_p, r.temperature);
    d.sampled_confidence = r.confidence == Confidence::sampled;
    d.suppressed = static_cast<int32_t>(suppressed.size()),
    d.suppressed_count = static_cast<int32_t>(r.suppressed.size());
    suppressed.insert(suppressed.end(), r.suppressed.begin(), r.suppressed.end());
    d.bias = static_cast<int32_t>(bias_ids.size()), d.bias_count = static_cast<int32_t>(r.bias_ids.size());
    bias_ids.insert(bias_ids.end(), r.bias_ids.begin(), r.bias_ids.end());
    bias_values.insert(bias_values.end(), r.bias_values.begin(), r.bias_values.end());
    const bool ranks = !r.candidates.empty() || !r.top.empty() || r.wanted_logit;
    d.logits = all_logits || ranks || r.temperature > 0 ? rows++ : -1;
    const auto words = static_cast<size_t>(cuda::mask_words(vocabulary));
    if (r.allowed) {
      d.mask = static_cast<int32_t>(masks.size() / words);
      masks.insert(masks.end(), r.allowed, r.allowed + words);
    }
    d.wanted = r.wanted, d.wanted_at = r.wanted_logit ? places++ : -1;
    const auto place = [&](size_t n) { return std::exchange(places, places + static_cast<int>(n)); };
    d.candidates = static_cast<int32_t>(r.candidates.size()), d.candidates_at = place(r.candidates.size());
    d.top = static_cast<int32_t>(r.top.size()), d.top_at = place(r.top.size());
    d.penalised = static_cast<int32_t>(penalised.size());
    d.penalised_count = static_cast<int32_t>(r.penalised.size());
    penalised.insert(penalised.end(), r.penalised.begin(), r.penalised.end());
    d.offset = r.offset, d.repetition = r.repetition;
    std::copy_n(x.row(r.row), x.cols, &input.data[static_cast<size_t>(i * x.cols)]);
  }
  for (int i = count; i < most; i++) device[i].temperature = 1;
  const Buffer<cuda::DeviceSampledRow> device_sampled(device, "sampled rows");
  const Buffer<int32_t> device_count(std::vector<int32_t>{count}, "count"), device_suppressed(suppressed, "suppressed"),
      device_bias_ids(bias_ids, "bias ids");
  const Buffer<float> device_bias(bias_values, "bias values");
  const Buffer<uint64_t> device_masks(masks, "masks");
  const Buffer<PenalisedToken> device_penalised(penalised, "penalised");
  const Buffer<RankedToken> ranked(std::vector<RankedToken>(static_cast<size_t>(places)), "ranked");
  const size_t tiles = static_cast<size_t>(cuda::lm_head_tiles(vocabulary));
  const Buffer<float> numbers(most * tiles * 4, "numbers"), logits(static_cast<size_t>(rows * vocabulary), "logits");
  const Buffer<int32_t> best_ids(most * tiles, "best ids");
  const Buffer<cuda::DeviceSampledToken> results(static_cast<size_t>(most), "results");
  const auto activations = put_tiles(input, "activations");
  const cuda::SampledRows lists{device_sampled.get(),    device_count.get(),    most,
                                device_suppressed.get(), device_bias_ids.get(), device_bias.get(),
                                device_masks.get(),      device_penalised.get()};
  const cuda::LmHeadBuffers buffers{numbers.get(), best_ids.get(), logits.get(), results.get(), ranked.get()};
  cuda::lm_head(nullptr, {weight.view, activations->get(), lists, buffers});
  cuda::lm_head_merge(nullptr, {vocabulary, lists, buffers});
  cuda::rank_ids(nullptr, {vocabulary, lists, buffers});
  if (places > 0) CHECK(claimed("rank_ids.cu", "rank_ids"));
  cuda::sample(nullptr, {vocabulary, lists, buffers});
  Outcome outcome;
  const std::vector<RankedToken> told = ranked.values();
  for (int i = 0; i < count; i++) {
    const auto take = [&](int32_t at, std::span<RankedToken> to) {
      std::copy_n(told.begin() + at, to.size(), to.begin());
    };
    take(device[i].candidates_at, sampled[i].candidates);
    take(device[i].top_at, sampled[i].top);
    if (sampled[i].wanted_logit) *sampled[i].wanted_logit = told[static_cast<size_t>(device[i].wanted_at)];
  }
  outcome.results.resize(static_cast<size_t>(count));
  cuda_host::download(outcome.results.data(), results.get(), outcome.results.size() * sizeof(cuda::DeviceSampledToken));
  if (rows > 0) outcome.logits = {rows, vocabulary, logits.values()};
  return outcome;
}

bool same(const cuda::DeviceSampledToken& a, const cuda::DeviceSampledToken& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

void compare(const cuda::DeviceSampledToken& got, std::span<const float> logits, const SampledRow& row) {
  const Choice expected = choose(logits, row);
  CHECK(got.finite == 1);
  CHECK_NEAR(got.max, expected.result.max, 0);
  CHECK_NEAR(got.logsumexp, expected.result.logsumexp, 2e-6 * std::max(1.0f, std::abs(expected.result.logsumexp)));
  CHECK_NEAR(got.entropy, expected.result.entropy, 3e-5);
  if (expected.margin < 1e-5) return;  // too near to another choice
  CHECK(got.token == expected.result.token);
  if (got.token != expected.result.token) return;
  CHECK_NEAR(got.confidence, expected.result.confidence, 2e-6 + 1e-5 * expected.result.confidence);
  CHECK_NEAR(got.logprob, expected.result.logprob, 1e-5);
}

/// Sampled rows of all kinds; `suppressed` and biases live as long as this.
struct Samples {
  std::vector<SampledRow> all;
  std::vector<std::vector<int32_t>> suppressed, bias_ids;
  std::vector<std::vector<float>> bias_values;

  Samples(Random& random, int count, int rows, int vocabulary)
      : suppressed(count), bias_ids(count), bias_values(count) {
    for (int i = 0; i < count; i++) {
      SampledRow r;
      r.row = random.below(rows);
      if (i % 3) r.temperature = random.between(0.1, 2);
      if (i % 4 == 1) r.top_k = 1 + random.below(vocabulary);
      if (i % 5 < 2) r.top_p = random.between(0.05, 1);
      if (i % 7 < 2) r.min_p = random.between(0.01, 1);
      r.uniform = random.uniform();
      r.confidence = i % 2 ? Confidence::model : Confidence::sampled;
      for (int j = 0; j < i % 3 && j < vocabulary - 1; j++) suppressed[i].push_back(random.below(vocabulary));
      for (int id = random.below(9); i % 6 == 1 && id < vocabulary; id += 1 + random.below(60)) {
        bias_ids[i].push_back(id);
        bias_values[i].push_back(random.between(-2, 2));
      }
      r.suppressed = suppressed[i];
      r.bias_ids = bias_ids[i];
      r.bias_values = bias_values[i];
      all.push_back(r);
    }
  }
};

}  // namespace

TEST("lm_head: greedy and sampled tokens with their numbers, over odd vocabularies and all kinds of sampled rows") {
  cuda_host::each_order([] {
    Random random(1);
    for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8}) {
      for (int vocabulary : {2, 64, 129, 333, 1030}) {
        const int rows = 7, hidden = vocabulary == 333 ? 700 : 128;  // more k-tiles than stages, too
        const DeviceWeight weight(WeightKind::table, format, {random_matrix(random, vocabulary, hidden, 0.5)});
        const Matrix x = rounded(random_matrix(random, rows, hidden), WeightFormat::bf16);
        const Samples samples(random, vocabulary > 500 ? 40 : 18, rows, vocabulary);
        const Outcome with = run(weight, x, samples.all, true, 3), without = run(weight, x, samples.all, false);
        Matrix want = product(x, weight.values);
        for (size_t i = 0; i < samples.all.size(); i++) {
          const SampledRow& r = samples.all[i];
          CHECK(same(with.results[i], without.results[i]));
          std::vector<float> biased(want.row(r.row), want.row(r.row + 1));
          for (size_t j = 0; j < r.bias_ids.size(); j++) biased[r.bias_ids[j]] += r.bias_values[j];
          const std::span<const float> logits(with.logits.row(static_cast<int64_t>(i)), biased.size());
          CHECK(relative_error(logits, biased) < 1e-5);
          compare(with.results[i], logits, r);
        }
      }
    }
  });
}

TEST("lm_head: limits and penalties: only allowed ids are chosen; candidates, wanted and top of a full sort") {
  cuda_host::each_order([] {
    Random random(8);
    for (int vocabulary : {2, 64, 129, 1030, 4500}) {
      const int rows = 3, hidden = 128;
      Matrix m = random_matrix(random, vocabulary, hidden, 0.5);
      for (int id = 0; id < vocabulary; id += 3) std::fill_n(&m.data[static_cast<size_t>(id) * hidden], hidden, 0.25f);
      const DeviceWeight weight(WeightKind::table, WeightFormat::bf16, {m});  // a third of the ids tie
      const Matrix x = rounded(random_matrix(random, rows, hidden), WeightFormat::bf16);
      const auto limited = limited_rows(random, vocabulary > 2000 ? 9 : 30, rows, vocabulary);
      std::vector<SampledRow> requests, plain;
      for (const auto& row : limited) {
        requests.push_back(row->request);
        plain.push_back({.row = row->request.row});
      }
      const Outcome unpenalised = run(weight, x, plain, true), got = run(weight, x, requests, true, 2);
      for (size_t i = 0; i < requests.size(); i++) {
        const auto row_of = [&](const Outcome& o) {
          return std::span(o.logits.row(static_cast<int64_t>(i)), static_cast<size_t>(vocabulary));
        };
        const auto logits = row_of(got), before = row_of(unpenalised);
        CHECK(std::ranges::equal(limited[i]->applied({before.begin(), before.end()}), logits));
        CHECK(got.results[i].finite == !ranked_ids(logits, requests[i]).empty());
        if (!got.results[i].finite) continue;
        compare(got.results[i], logits, requests[i]);
        CHECK(tells_all(*limited[i], logits));
      }
    }
  });
}

TEST("lm_head: a row's bits do not depend on the others") {
  Random random(2);
  for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    const DeviceWeight weight(WeightKind::linear, format, {random_matrix(random, 500, 256)});
    const Matrix x = random_matrix(random, 9, 256);
    const Samples samples(random, 100, 9, 500);
    const Outcome all = run(weight, x, samples.all, false, 20);
    for (size_t few : {1, 20, 50}) {
      const Outcome some = run(weight, x, std::span(samples.all).last(few), false, 1);
      for (size_t i = 0; i < few; i++) CHECK(same(some.results[i], all.results[100 - few + i]));
    }
  }
}

TEST("lm_head: ties go to the lower id, in the argmax and in top-k; suppressed ids keep their probability") {
  Random random(3);
  const int n = 600, hidden = 128;
  Matrix m{n, hidden, std::vector<float>(static_cast<size_t>(n * hidden))};
  for (int id : {40, 41, 255, 256, 599}) m.data[static_cast<size_t>(id * hidden)] = 1;
  const DeviceWeight weight(WeightKind::table, WeightFormat::bf16, {m});
  Matrix x{1, hidden, std::vector<float>(hidden)};
  x.data[0] = 6;
  SampledRow r;
  const auto one = [&] { return run(weight, x, {&r, 1}, false).results[0]; };
  const cuda::DeviceSampledToken plain = one();
  CHECK(plain.token == 40);
  const std::vector<int32_t> suppressed{256, 40, 41, -1, 9999};
  r.suppressed = suppressed;
  const cuda::DeviceSampledToken rest = one();
  CHECK(rest.token == 255 && rest.confidence == plain.confidence && rest.logsumexp == plain.logsumexp);
  r.suppressed = {};
  r.temperature = 1, r.top_k = 3, r.uniform = 0.99;
  CHECK(one().token == 255);
  r.uniform = 0.5;
  CHECK(one().token == 41);
  r.top_k = 7, r.uniform = 0.9999;  // the five, then 0 and 1
  CHECK(one().token == 599);
  r.top_k = 0, r.top_p = 0.1, r.uniform = 0.99;
  CHECK(one().token == 40);
}

TEST("lm_head: extreme temperatures, uniforms and logits") {
  Random random(4);
  const int n = 300, hidden = 128;
  const DeviceWeight weight(WeightKind::table, WeightFormat::bf16, {random_matrix(random, n, hidden, 20)});
  const Matrix x = rounded(random_matrix(random, 3, hidden, 20), WeightFormat::bf16);
  std::vector<SampledRow> sampled;
  for (float temperature : {1e-30f, 0.01f, 1.0f, 1e6f}) {
    for (double uniform : {0.0, 0.5, 1 - 0x1p-53}) {
      SampledRow r;
      r.row = static_cast<int32_t>(sampled.size() % 3);
      r.temperature = temperature, r.uniform = uniform;
      sampled.push_back(r);
    }
  }
  const Outcome got = run(weight, x, sampled, true);
  for (size_t i = 0; i < sampled.size(); i++) {
    const std::span<const float> logits(got.logits.row(static_cast<int64_t>(i)), n);
    CHECK(got.results[i].finite == 1 && std::isfinite(got.results[i].confidence) && got.results[i].entropy >= 0);
    if (sampled[i].temperature > 1e5f && sampled[i].uniform == 0) CHECK(got.results[i].token == 0);
    if (sampled[i].temperature > 1e5f && sampled[i].uniform > 0.9) CHECK(got.results[i].token == n - 1);
    if (sampled[i].temperature < 0.1f) {
      CHECK(got.results[i].token == std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
  }
}

TEST("lm_head: NaN and infinity among the logits, or no id allowed, spoil their row alone") {
  Random random(5);
  const int n = 200, hidden = 128;
  const DeviceWeight weight(WeightKind::table, WeightFormat::bf16, {random_matrix(random, n, hidden)});
  Matrix x = random_matrix(random, 3, hidden);
  x.data[hidden + 3] = kNan;
  std::vector<int32_t> every(n);
  std::iota(every.begin(), every.end(), 0);
  for (float temperature : {0.0f, 0.8f}) {
    std::vector<SampledRow> sampled(4);
    for (int i = 0; i < 4; i++) sampled[i].temperature = temperature, sampled[i].row = i % 3;
    sampled[2].suppressed = every;
    const std::vector<int32_t> ids{7};
    const std::vector<float> infinity{INFINITY};
    sampled[3].bias_ids = ids, sampled[3].bias_values = infinity;
    const Outcome got = run(weight, x, sampled, false);
    CHECK(got.results[0].finite == 1);
    CHECK(claimed("sample.cu", "sample"));
    for (int i = 1; i < 4; i++) CHECK(got.results[i].finite == 0 && got.results[i].token == 0);
  }
}

TEST("lm_head: blocks of rows past the count end before they read weights") {
  Random random(7);
  const DeviceWeight weight(WeightKind::table, WeightFormat::bf16, {random_matrix(random, 64, 128)});
  const Buffer<cuda::DeviceSampledRow> sampled(std::vector<cuda::DeviceSampledRow>(100), "sampled");
  const Buffer<int32_t> ids(100, "ids");
  const Buffer<float> numbers(400, "numbers");
  const auto activations = put_tiles(random_matrix(random, 100, 128), "activations");
  for (int32_t count : {3, 64}) {
    const Buffer<int32_t> device_count(std::vector<int32_t>{count}, "count");
    cuda::lm_head(nullptr, {weight.view,
                            activations->get(),
                            {sampled.get(), device_count.get(), 100, nullptr, nullptr, nullptr},
                            {numbers.get(), ids.get(), nullptr, nullptr}});
    CHECK(cuda_host::last_launch().tensor("weights").loaded == 64 * 128 * 2);
  }
}

TEST("lm_head: bytes and mma as cost.h tells, loads of 16 bytes, no bank conflicts") {
  Random random(6);
  struct Shape {
    int vocabulary, hidden, most, count, logits;
  };
  for (const Shape& s : {Shape{512, 256, 8, 8, 0}, Shape{512, 256, 32, 32, 0}, Shape{512, 256, 64, 64, 64},
                         Shape{333, 200, 150, 67, 5}, Shape{1030, 136, 20, 17, 0}}) {
    for (WeightFormat format : {WeightFormat::bf16, WeightFormat::int8}) {
      const DeviceWeight weight(WeightKind::table, format, {random_matrix(random, s.vocabulary, s.hidden)});
      const size_t most = static_cast<size_t>(s.most), tiles = static_cast<size_t>(cuda::lm_head_tiles(s.vocabulary));
      const auto activations = put_tiles(random_matrix(random, s.most, s.hidden), "activations");
      std::vector<cuda::DeviceSampledRow> sampled(most);
      for (int i = 0; i < s.logits; i++) sampled[i].logits = i;
      const Buffer<cuda::DeviceSampledRow> device(sampled, "sampled");
      const Buffer<int32_t> count(std::vector<int32_t>{s.count}, "count"), ids(most * tiles, "ids");
      const Buffer<float> numbers(most * tiles * 4, "numbers"), logits(most * s.vocabulary, "logits");
      const Buffer<cuda::DeviceSampledToken> results(most, "results");
      const cuda::SampledRows lists{device.get(), count.get(), s.most, nullptr, nullptr, nullptr};
      const cuda::LmHeadBuffers buffers{numbers.get(), ids.get(), logits.get(), results.get()};
      cuda::lm_head(nullptr, {weight.view, activations->get(), lists, buffers});
      const auto& report = cuda_host::last_launch();
      check_cost(cuda::lm_head_cost(weight.view, s.most, s.count, s.logits));
      CHECK(report.bank_conflicts() == 0);
      CHECK(report.tensor("weights").narrow == 0 && report.tensor("activations").narrow == 0);
      const std::string tokens = s.most <= 8 ? "1" : s.most <= 32 ? "4" : "8";
      CHECK(claimed("lm_head.cu", std::string("lm_head<") + name_of(format) + ", " + tokens + ">"));
      cuda::lm_head_merge(nullptr, {s.vocabulary, lists, buffers});
      check_cost(cuda::lm_head_merge_cost(s.vocabulary, s.most, s.count));
      CHECK(claimed("lm_head_merge.cu", "lm_head_merge"));
      CHECK(report.bank_conflicts() == 0);
    }
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
