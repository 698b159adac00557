// Lossless speculation: the target's own tokens, bit for bit, whatever the draft proposes and whatever runs beside.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "check.h"
#include "engine/draft_gate.h"
#include "engine/draft_policy.h"
#include "golden_cases.h"
#include "harness.h"

using namespace sdar;

namespace {

const bool kFull = std::getenv("SDAR_TEST_FULL") != nullptr;

EngineOptions options_of(WeightFormat weights, int32_t block_length = 0) {
  EngineOptions options{.path = "models/qwen3-nano", .weights = weights, .threads = 2};
  options.draft = {.path = "models/sdar-nano", .weights = weights, .block_length = block_length};
  return options;
}

EngineOptions without_draft(EngineOptions options) {
  options.draft = {};
  return options;
}

/// Requests of different lengths and ways to sample: what the models were trained on, and random ids.
std::vector<Request> mixed(int count) {
  std::vector<Request> all;
  const auto cases = golden::cases("qwen3-nano");
  for (int i = 0; i < count; i++) {
    std::mt19937 random(static_cast<uint32_t>(i % 6));
    Request r;
    const int length = i % 7 == 3 ? 128 : 1 + i * 41 % (i % 7 == 5 ? 170 : 70);
    for (int k = 0; k < length; k++) r.tokens.push_back(static_cast<int32_t>(random() % 550));
    if (i % 2 == 0) r.tokens = cases[size_t(i) % cases.size()]["tokens"].get<std::vector<int32_t>>();
    r.max_tokens = 1 + i * 13 % 50;
    r.temperature = i % 3 == 1 ? 0.3f + 0.3f * float(i % 4) : 0;
    r.top_k = i % 5 == 1 ? 3 + i : 0;
    r.top_p = i % 4 ? 0.9f : 1;
    r.min_p = i % 5 ? 0 : 0.1f;
    r.seed = 100 + uint64_t(i);
    r.completion = i % 3;
    r.ignore_eos = i % 4 != 0;
    r.min_tokens = i % 6;
    if (i % 4 == 2) r.stop_tokens = {7, 300};
    if (i % 8 == 2) r.bias_ids = {5, 77}, r.bias_values = {4.0f, -3.0f};
    all.push_back(r);
  }
  return all;
}

void check_lossless(const std::vector<harness::Result>& got, const std::vector<harness::Result>& want,
                    const std::string& where) {
  for (size_t i = 0; i < want.size(); i++) {
    if (!got[i].error.empty() || !got[i].same_tokens(want[i]))
      check::fail(__FILE__, __LINE__, where + ": request " + std::to_string(i) + " differs " + got[i].message);
    const Speculation& s = got[i].speculation;
    // Each of the target's forwards decides one token more than it accepts, and nothing is drafted past an end. Where a
    // proposal cannot be computed, a forward decides nothing.
    CHECK(s.accepted <= s.drafted && s.draft_forwards >= 0);
    const int decided = got[i].forwards - s.draft_forwards + s.accepted, tokens = int(want[i].tokens.size());
    CHECK(where == "NaN" ? decided >= tokens : decided == tokens);
  }
}

int32_t accepted(const std::vector<harness::Result>& results) {
  int32_t all = 0;
  for (const auto& r : results) all += r.speculation.accepted;
  return all;
}

}  // namespace

TEST("the target's tokens in every format, alone and among others, with every number of threads") {
  const auto requests = mixed(kFull ? 200 : harness::full_or(33, 17));
  for (WeightFormat weights : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    const EngineOptions options = options_of(weights);
    const auto want = harness::Runner(without_draft(options)).run(requests);
    for (int threads : {1, 2, 3}) {
      if (harness::quick() && threads != 1 + int(weights) % 3) continue;
      EngineOptions some = options;
      some.threads = threads;
      harness::Runner runner(some);
      const auto together = runner.run(requests);
      check_lossless(together, want, std::string(name_of(weights)) + " together");
      std::vector<harness::Result> alone;
      for (const Request& r : requests) alone.push_back(runner.run({r})[0]);
      check_lossless(alone, want, std::string(name_of(weights)) + " alone");
      CHECK(accepted(together) > 20);
      const EngineStats stats = runner.engine().stats();
      CHECK(stats.accepted_tokens == accepted(together) + accepted(alone) && stats.draft_steps > 0);
      CHECK(stats.draft_steps < stats.draft_forwards);  // requests share them
    }
  }
}

TEST("the target's tokens in every instruction set") {
  const auto requests = mixed(9);
  for (const std::string& isa : harness::instruction_sets()) {
    EngineOptions options = options_of(WeightFormat::bf16);
    options.isa = isa;
    check_lossless(harness::Runner(options).run(requests), harness::Runner(without_draft(options)).run(requests), isa);
  }
}

TEST("drafts of every block length, of random weights, of another vocabulary and a shorter context") {
  const auto requests = mixed(harness::full_or(25, 11));
  const EngineOptions options = options_of(WeightFormat::bf16);
  const auto want = harness::Runner(without_draft(options)).run(requests);
  for (int32_t block : {2, 5, 8, 33, 64}) {
    if (harness::quick() && block == 8) continue;
    check_lossless(harness::Runner(options_of(WeightFormat::bf16, block)).run(requests), want,
                   "block length " + std::to_string(block));
  }
  ModelConfig config = read_config("models/sdar-nano");
  check_lossless(harness::Runner(options, random_model(config, options, 3, {})).run(requests), want, "random weights");
  config.shape.context = 48;
  check_lossless(harness::Runner(options, random_model(config, options, 4, {})).run(requests), want, "context 48");
  EngineOptions other = options;
  other.draft.path = "test/golden/tiny-dense";  // 320 ids
  check_lossless(harness::Runner(other).run(requests), want, "another vocabulary");
}

TEST("small caches, few rows, prompts in chunks, preempted and resumed: the target's tokens") {
  auto requests = mixed(12);
  for (Request& r : requests) r.ignore_eos = true, r.stop_tokens.clear(), r.max_tokens = 90;
  const EngineOptions options = options_of(WeightFormat::int8);
  const auto want = harness::Runner(without_draft(options)).run(requests);
  for (bool cache : {false, true}) {
    EngineOptions small = options;
    small.prefix_cache = cache;
    small.kv_tokens = 9 * 64;
    harness::Runner runner(small);
    const auto results = runner.run(requests);
    check_lossless(results, want, "small cache");
    CHECK(runner.engine().stats().preemptions > 0);
    runner.engine().close();
    harness::check_pages(runner.engine().stats());
  }
  EngineOptions narrow = options;
  narrow.max_rows = 40, narrow.prefill_rows = 20;
  check_lossless(harness::Runner(narrow).run(requests), want, "few rows");
}

TEST("the completions of a prompt, aborted and paused ones leave nothing behind") {
  harness::Runner runner(options_of(WeightFormat::bf16));
  Request r = mixed(4)[3];
  r.temperature = 0.8f, r.max_tokens = 60, r.ignore_eos = true, r.group = 9;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 4; i++) r.completion = i, ids.push_back(runner.submit(r));
  runner.engine().pause(ids[1]);
  runner.engine().abort(ids[2]);
  runner.engine().resume(ids[1]);
  while (runner.pump()) {
  }
  CHECK(runner.result(ids[2]).reason == 3 && runner.result(ids[1]).tokens.size() == 60);
  CHECK(!runner.result(ids[0]).same_tokens(runner.result(ids[1])));
  runner.engine().close();
  harness::check_pages(runner.engine().stats());
}

TEST("samples have the target's distribution") {
  // The first token after a prompt, judged as part of a proposal, over many seeds against its exact probabilities.
  const EngineOptions options = options_of(WeightFormat::f32);
  Request r;
  r.tokens = {557, 84, 300, 21, 12, 40};
  r.temperature = 1.6f;
  r.max_tokens = 3, r.ignore_eos = true;
  auto model = load_model(without_draft(options), {});
  std::vector<float> logits(static_cast<size_t>(model->config.shape.vocabulary));
  const int32_t page = 0;
  Step step;
  step.add({.segment = {.rows = int(r.tokens.size()), .block_length = 1, .pages = &page},
            .ids = r.tokens.data(),
            .denoise = true,
            .window = 1,
            .ahead = 1,
            .masked = 1,
            .sampling = &r});
  step.logits = logits.data();
  model->backend->run(step);
  double total = 0, max = *std::max_element(logits.begin(), logits.end());
  for (float l : logits) total += std::exp((l - max) / r.temperature);

  const int samples = kFull ? 100000 : harness::full_or(4000, 1000);
  harness::Runner runner(options);
  std::vector<int> counts(logits.size());
  int64_t judged = 0;
  for (int done = 0; done < samples;) {
    std::vector<Request> requests;
    for (int i = 0; i < 50; i++, done++) r.seed = uint64_t(done), requests.push_back(r);
    for (const auto& result : runner.run(requests)) {
      CHECK(!result.tokens.empty());
      counts[result.tokens[0].id]++;
      judged += result.speculation.drafted > 0;
    }
  }
  CHECK(judged > samples / 4);
  // Ids that are expected less than 8 times are taken together.
  double chi = 0, rest_expected = 0;
  int rest = 0, bins = 0;
  for (size_t id = 0; id < counts.size(); id++) {
    const double expected = samples * std::exp((logits[id] - max) / r.temperature) / total;
    if (expected < 8) {
      rest_expected += expected, rest += counts[id];
      continue;
    }
    chi += (counts[id] - expected) * (counts[id] - expected) / expected;
    bins++;
  }
  if (rest_expected > 0) chi += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
  // The seeds are fixed: four standard deviations are not chance.
  std::printf("# chi-square %.1f of %d degrees of freedom\n", chi, bins);
  CHECK(bins >= 3 && chi < bins + 4 * std::sqrt(2.0 * bins));
}

TEST("a proposed token that the model cannot compute is no error, one of its own is") {
  // A copy of tiny-ar in which the embeddings of most ids are NaN: of those that the requests below never meet.
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "sdar-lossless-nan";
  std::filesystem::remove_all(folder);
  std::filesystem::copy("test/golden/tiny-ar", folder);
  EngineOptions options{.path = folder.string(), .weights = WeightFormat::f32, .threads = 1};
  std::vector<Request> requests;
  for (const auto& c : golden::cases("tiny-ar")) {
    Request r;
    r.tokens = c["tokens"].get<std::vector<int32_t>>();
    r.max_tokens = 20, r.ignore_eos = true;
    requests.push_back(r);
    if (requests.size() == 6) break;
  }
  const auto want = harness::Runner(options).run(requests);
  std::set<int32_t> met;
  for (size_t i = 0; i < requests.size(); i++) {
    met.insert(requests[i].tokens.begin(), requests[i].tokens.end());
    for (const TokenRecord& t : want[i].tokens) met.insert(t.id);
  }
  std::fstream file(folder / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
  uint64_t length = 0;
  file.read(reinterpret_cast<char*>(&length), 8);
  std::string header(length, ' ');
  file.read(header.data(), std::streamsize(length));
  const auto begin = nlohmann::json::parse(header)["model.embed_tokens.weight"]["data_offsets"][0].get<uint64_t>();
  const std::vector<float> bad(80, NAN);
  for (int32_t id = 0; id < 333; id++) {
    if (met.count(id)) continue;
    file.seekp(std::streamoff(8 + length + begin + uint64_t(id) * 320));
    file.write(reinterpret_cast<const char*>(bad.data()), 320);
  }
  file.close();
  CHECK(met.size() < 300);
  ModelConfig config = read_config("models/sdar-nano");
  config.shape.vocabulary = 333, config.mask_token_id = 332;
  // So small that drafts are thought to pay.
  config.shape.layers = 1, config.shape.hidden = 16, config.shape.intermediate = 32;
  config.shape.heads = config.shape.kv_heads = 1, config.shape.head_dim = 16, config.sparse = {false};
  harness::Runner runner(options, random_model(config, options, 5, {}));
  const auto got = runner.run(requests);
  check_lossless(got, want, "NaN");
  CHECK(runner.engine().stats().draft_steps > 0);
  Request own = requests[0];
  for (int32_t id = 0; id < 333; id++)
    if (!met.count(id)) own.tokens[0] = id;
  CHECK(runner.run({own})[0].error == "NUMERIC_ERROR");
  std::filesystem::remove_all(folder);
}

TEST("a draft must denoise blocks, its target must not") {
  EngineOptions options = options_of(WeightFormat::bf16);
  options.draft.path = options.path;
  CHECK_THROWS("INVALID_OPTION", "draft: models/qwen3-nano has model_type \"qwen3\"", load_draft(options, {}));
  options = options_of(WeightFormat::bf16);
  options.path = options.draft.path;
  CHECK_THROWS("INVALID_OPTION", "draft: models/sdar-nano has model_type \"sdar\"", load_draft(options, {}));
}

TEST("how much is drafted follows what was accepted") {
  DraftPolicy good(0.2);
  int32_t most = 0;
  for (int i = 0; i < 20; i++) {
    const int32_t steps = good.steps(16);
    CHECK(steps >= 1);
    // Every further forward doubles what is kept.
    good.observe(steps, 16, std::min(16, 4 << (steps - 1)));
    most = std::max(most, steps);
  }
  CHECK(most == DraftPolicy::kMostSteps && good.steps(16) == DraftPolicy::kMostSteps);
  CHECK(good.steps(1) <= 1);  // no room for what they bring

  DraftPolicy bad(1);
  int32_t drafts = 0;
  for (int i = 0; i < 300; i++) {
    const int32_t steps = bad.steps(16);
    if (steps > 0) bad.observe(steps, 16, 0);
    drafts += steps > 0;
  }
  CHECK(drafts >= 2 && drafts < 12);
  // They come back once they pay.
  for (int i = 0; i < 70; i++)
    if (const int32_t steps = bad.steps(16)) bad.observe(steps, 16, 9);
  CHECK(bad.steps(16) > 0);
  const float confidences[] = {0.9f, 0.5f, 0.2f, 0.1f, 1};
  CHECK(DraftPolicy::worthwhile(confidences) == 3 && DraftPolicy::worthwhile({}) == 0);
}

TEST("requests are drafted for while those that were took less time a token") {
  // Seconds a token without drafts and with them; how many of 200 requests are drafted for.
  const auto drafted = [](DraftGate& gate, double plain, double with) {
    int count = 0;
    for (int i = 0; i < 200; i++) {
      const bool draft = gate.next();
      gate.observe(draft, 1 + i % 7, (draft ? with : plain) * (1 + i % 7));
      count += draft;
    }
    return count;
  };
  DraftGate gate;
  const int slower = drafted(gate, 1, 1.2), faster = drafted(gate, 1, 0.7), again = drafted(gate, 1, 1.5);
  CHECK(slower >= DraftGate::kFirst && slower <= DraftGate::kFirst + 1 + 200 / DraftGate::kRetry);
  CHECK(faster > 200 / 4 && faster < 200);
  CHECK(again < 200 / 2 && again > 0);
  DraftGate many;  // none of them ends: they begin in turns
  int begun = 0;
  for (int i = 0; i < 20; i++) begun += many.next();
  CHECK(begun == 10);

  EngineOptions options = options_of(WeightFormat::bf16);
  const auto requests = mixed(24);
  const auto want = harness::Runner(without_draft(options)).run(requests);
  options.draft.only_if_faster = true;
  harness::Runner runner(options);
  for (int round = 0; round < 2; round++) {
    std::vector<harness::Result> got;
    for (const Request& r : requests) got.push_back(runner.run({r})[0]);
    check_lossless(got, want, "only if faster");
    const auto plain =
        std::count_if(got.begin(), got.end(), [](const auto& r) { return r.speculation.draft_forwards == 0; });
    CHECK(plain >= 1 && plain < 24);
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
