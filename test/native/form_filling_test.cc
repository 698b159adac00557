// Generations of a given form: whatever the model wants, the text is of the form and within its budget.
#include <cstdio>
#include <cstdlib>

#include "check.h"
#include "formed.h"

using namespace sdar;
using namespace formed;

namespace {

/// Mixed, in a cache that is too small for all.
void check_valid(const char* model, const EngineOptions& options, int count, uint32_t seed) {
  Formed formed(options);
  const bool autoregressive = formed.runner.engine().model().config.decoding == Decoding::autoregressive;
  std::mt19937 random(seed);
  std::vector<Request> requests;
  for (int i = 0; i < count; i++) requests.push_back(random_request(formed, random, i, autoregressive));
  const auto results = formed.runner.run(requests);
  int ended = 0, full = 0, preempted = 0;
  int64_t tokens = 0, forwards = 0;
  for (size_t i = 0; i < results.size(); i++) {
    const auto& result = results[i];
    const std::string at =
        std::string(model) + ", request " + std::to_string(i) + ", " + kForms[formed.form_of(requests[i])];
    if (!result.error.empty()) check::fail(__FILE__, __LINE__, at + ": " + result.message);
    if (static_cast<int>(result.tokens.size()) > requests[i].max_tokens)
      check::fail(__FILE__, __LINE__, at + ": too long");
    if (!formed.valid(requests[i], result)) check::fail(__FILE__, __LINE__, at + ": not of the form");
    ended += result.reason == static_cast<int>(FinishReason::end);
    full += result.reason == static_cast<int>(FinishReason::length);
    preempted += result.preempted;
    tokens += static_cast<int64_t>(result.tokens.size()), forwards += result.forwards;
  }
  CHECK(ended > 0 && full > 0 && ended + full == count);
  CHECK(preempted > 0 || count < 1000);  // how many there are depends on when the requests come
  std::printf("# %s: %d texts, %d ended by themselves, %d preemptions, %.2f tokens per forward\n", model, count, ended,
              preempted, double(tokens) / double(forwards));
}

int count_of(int full, int usual, int quick) {
  return std::getenv("SDAR_TEST_FULL") ? full : harness::full_or(usual, quick);
}

}  // namespace

TEST("texts are of their form and within their budget: blocks") {
  check_valid("models/sdar-nano", {.path = "models/sdar-nano", .weights = WeightFormat::bf16, .kv_tokens = 448},
              count_of(8000, 600, 60), 11);
}

TEST("texts are of their form and within their budget: autoregressive") {
  check_valid("models/qwen3-nano", {.path = "models/qwen3-nano", .weights = WeightFormat::bf16, .kv_tokens = 448},
              count_of(2000, 300, 40), 12);
}

TEST("texts are of their form and within their budget: lossless speculation, with the target's own tokens") {
  const EngineOptions plain{.path = "models/qwen3-nano", .weights = WeightFormat::bf16};
  EngineOptions drafted = plain;
  drafted.draft.path = "models/sdar-nano";
  EngineOptions small = drafted;
  small.kv_tokens = 448;
  check_valid("with a draft", small, count_of(1000, 120, 30), 13);
  Formed alone(plain), with_draft(drafted);
  std::mt19937 one(14), other(14);
  std::vector<Request> a, b;
  for (int i = 0; i < harness::full_or(60, 20); i++) {
    a.push_back(random_request(alone, one, i, true));
    b.push_back(random_request(with_draft, other, i, true));
  }
  const auto results = alone.runner.run(a), drafts = with_draft.runner.run(b);
  for (size_t i = 0; i < a.size(); i++) CHECK(results[i].same_tokens(drafts[i]));
}

TEST("a request with a form gives the same bits alone and among others, with 1, 2 and 3 threads") {
  for (const char* path : {"models/sdar-nano", "models/qwen3-nano"}) {
    std::vector<harness::Result> alone;
    for (int threads : {1, 2, 3}) {
      Formed formed({.path = path, .weights = WeightFormat::bf16, .threads = threads});
      std::mt19937 random(15);
      std::vector<Request> requests;
      for (int i = 0; i < harness::full_or(48, 16); i++)
        requests.push_back(random_request(formed, random, i, path[7] == 'q'));
      if (alone.empty())
        for (const Request& r : requests) alone.push_back(formed.runner.run({r})[0]);
      const auto together = formed.runner.run(requests);
      for (size_t i = 0; i < requests.size(); i++) CHECK(together[i].same(alone[i]));
    }
  }
}

TEST("what leaves no choice takes no forward") {
  Formed formed({.path = "models/sdar-nano", .weights = WeightFormat::f32});
  Request r;
  r.tokens = {1, 2, 3};
  r.max_tokens = 40;
  r.block_length = 4;
  r.form = formed.runner.engine().forms()->compile(R"({"type":"regex","pattern":"abcdefghijklmnopqrstuvwxyz"})",
                                                   [] { return false; });
  const auto result = formed.runner.run({r})[0];
  CHECK(result.reason == static_cast<int>(FinishReason::end));
  CHECK(result.forwards == 1 && result.tokens.size() >= 20);
}

TEST("a verified draft keeps its form, also behind what was written without a forward") {
  Formed formed({.path = "models/sdar-nano", .weights = WeightFormat::bf16});
  int32_t a = 0;
  while (formed.table.of(a) != "a") a++;
  std::vector<Request> requests;
  for (const char* pattern : {"xyz[a-f]{50}", "[a-f]{3}xy[a-z]*z", "x(a|b|c[a-f]){9}"}) {
    for (int32_t block : {4, 8, 16}) {
      Request r;
      r.tokens = {1, 2, 3, 4, 5};
      r.max_tokens = 60;
      r.block_length = block;
      r.denoise = {.strategy = Strategy::self_verified, .threshold = 1};
      r.bias_ids = {a}, r.bias_values = {60.0f};  // sure of it everywhere
      r.form = formed.runner.engine().forms()->compile(
          std::string(R"({"type":"regex","pattern":")") + pattern + R"("})", [] { return false; });
      requests.push_back(r);
    }
  }
  const auto results = formed.runner.run(requests);
  for (size_t i = 0; i < results.size(); i++) {
    CHECK(results[i].error.empty());
    form::State state = requests[i].form->start();
    for (const TokenRecord& t : results[i].tokens) state = requests[i].form->advance(state, t.id);
    CHECK(requests[i].form->fits(state, 0));
    // A block of sixteen in one draft and one verification.
    if (i == 2) CHECK(results[i].forwards * 4 < static_cast<int>(results[i].tokens.size()));
  }
}

TEST("the score of a text is what each of its tokens had when it was written from left to right") {
  for (const char* path : {"models/sdar-nano", "models/qwen3-nano"}) {
    Formed formed({.path = path, .weights = WeightFormat::bf16});
    std::mt19937 random(16);
    std::vector<Request> requests, scores;
    for (int i = 0; i < 12; i++) {
      Request r = random_request(formed, random, i, path[7] == 'q');
      r.form = nullptr;
      r.bias_ids.clear(), r.bias_values.clear();
      r.temperature = i % 2 ? 1.0f : 0;
      r.top_k = 0, r.top_p = 1;
      r.ignore_eos = true;
      r.max_tokens = 1 + i * 13;
      r.denoise = {.strategy = Strategy::sequential};
      requests.push_back(r);
    }
    const auto written = formed.runner.run(requests);
    for (size_t i = 0; i < written.size(); i++) {
      Request r = requests[i];
      r.temperature = 0;
      for (const TokenRecord& t : written[i].tokens) r.given.push_back(t.id);
      scores.push_back(r);
    }
    const auto scored = formed.runner.run(scores);
    for (size_t i = 0; i < scored.size(); i++) {
      CHECK(scored[i].tokens.size() == written[i].tokens.size());
      CHECK(scored[i].reason == static_cast<int>(FinishReason::length));
      for (size_t k = 0; k < scored[i].tokens.size(); k++) {
        CHECK(scored[i].tokens[k].id == written[i].tokens[k].id);
        CHECK_NEAR(scored[i].tokens[k].logprob, written[i].tokens[k].logprob, 1e-5);
      }
      if (path[7] == 'q') CHECK(scored[i].forwards * 4 <= requests[i].max_tokens + 16);
    }
  }
}

TEST("forms that cannot be are refused") {
  Formed formed({.path = "models/sdar-nano", .weights = WeightFormat::f32});
  Formed other({.path = "models/sdar-nano", .weights = WeightFormat::f32});
  const auto refused = [&](Request r) {
    r.tokens = {1};
    try {
      formed.runner.engine().submit(r);
      return std::string();
    } catch (const Error& e) {
      return e.code() + ": " + e.what();
    }
  };
  Request r;
  r.max_tokens = 2;
  r.form = formed.forms[6];
  CHECK(refused(r).find("format needs at least " + std::to_string(r.form->least_tokens()) +
                        " tokens; maxTokens and the context leave 2") != std::string::npos);
  r.max_tokens = 50;
  r.min_tokens = 1;
  CHECK(refused(r).find("minTokens") != std::string::npos);
  r.min_tokens = 0, r.ignore_eos = true;
  CHECK(refused(r).find("ignoreEos") != std::string::npos);
  r.ignore_eos = false, r.form = other.forms[6];
  CHECK(refused(r).find("format") != std::string::npos);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
