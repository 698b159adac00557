// The prefix cache in a whole engine: what requests share, what they must not, and what is evicted; the answers of one
// prompt, which share its pages.
#include "check.h"
#include "harness.h"

using harness::check_pages;
using harness::prompt_of;
using harness::small_engine;
using harness::undisturbed;
using sdar::EngineOptions;
using sdar::Request;

TEST("a prompt seen before is found in the cache, and gives the same tokens as without one") {
  const Request first = prompt_of(300, 1), other = prompt_of(300, 2);
  Request longer = first;
  const auto more = prompt_of(90, 3).tokens;
  longer.tokens.resize(200);
  longer.tokens.insert(longer.tokens.end(), more.begin(), more.end());
  const auto expected = undisturbed({first, other, longer});
  harness::Runner runner(small_engine());
  const auto cold = runner.run({first})[0];
  CHECK(cold.same(expected[0]) && cold.cached_tokens == 0);
  const auto warm = runner.run({first})[0];
  CHECK(warm.same(expected[0]) && warm.cached_tokens == 256);
  const auto unrelated = runner.run({other})[0];
  CHECK(unrelated.same(expected[1]) && unrelated.cached_tokens == 0);
  const auto extended = runner.run({longer})[0];
  CHECK(extended.same(expected[2]) && extended.cached_tokens == 192);
  const auto stats = runner.engine().stats();
  CHECK(stats.cached_tokens == 256 + 192 && stats.prompt_tokens == 300 + 300 + 300 + 290);
  check_pages(stats);
}

TEST("the next turn of a conversation finds what was generated in the one before") {
  Request first = prompt_of(100, 4, 120);
  harness::Runner runner(small_engine());
  const auto answer = runner.run({first})[0];
  Request second = first;
  for (const auto& t : answer.tokens) second.tokens.push_back(t.id);
  const auto more = prompt_of(30, 5).tokens;
  second.tokens.insert(second.tokens.end(), more.begin(), more.end());
  const auto expected = undisturbed({second})[0];
  const auto result = runner.run({second})[0];
  CHECK(result.same(expected));
  CHECK(result.cached_tokens == 192);  // pages of 64 among the 220 - 8 tokens that were committed
}

TEST("salts and block lengths do not share, a literal mask id never enters") {
  Request plain = prompt_of(200, 6);
  Request salted = plain, blocks = plain, literal = plain, late = plain;
  salted.salt = "tenant";
  blocks.block_length = 4;
  literal.tokens[3] = harness::small_model().mask_id;
  late.tokens[130] = harness::small_model().mask_id;
  const auto expected = undisturbed({plain, salted, blocks, literal, late});
  harness::Runner runner(small_engine());
  for (int round = 0; round < 2; round++) {
    const std::vector<Request> all = {plain, salted, blocks, literal, late};
    const int cached[2][5] = {{0, 0, 0, 0, 128}, {192, 192, 192, 0, 128}};
    for (size_t i = 0; i < all.size(); i++) {
      const auto result = runner.run({all[i]})[0];
      CHECK(result.same(expected[i]));
      CHECK(result.cached_tokens == cached[round][i]);
    }
  }
  EngineOptions off = small_engine();
  off.prefix_cache = false;
  harness::Runner uncached(off);
  for (int round = 0; round < 2; round++) CHECK(uncached.run({plain})[0].cached_tokens == 0);
  CHECK(uncached.engine().stats().pages_free == uncached.engine().stats().pages_total);
}

TEST("a pinned prompt stays when others are evicted") {
  for (const bool pin : {true, false}) {
    harness::Runner runner(small_engine(10 * 64));
    Request precious = prompt_of(130, 7);
    precious.pin = pin;
    runner.run({precious});
    for (int i = 0; i < 8; i++) runner.run({prompt_of(400, 100 + i)});
    CHECK(runner.engine().stats().evictions > 0);
    CHECK(runner.engine().stats().pages_pinned == (pin ? 2 : 0));
    CHECK(runner.run({precious})[0].cached_tokens == (pin ? 128 : 0));
    // … but never stands in the way of a request.
    CHECK(runner.run({prompt_of(600, 9)})[0].reason == 2);
    CHECK(runner.engine().stats().pages_pinned == 0);
  }
}

TEST("answers of one prompt share its pages and differ by their index alone") {
  std::vector<Request> answers;
  for (int i = 0; i < 6; i++) {
    Request r = prompt_of(270, 11, 30);
    r.temperature = 1.2f;
    r.seed = 5;
    r.completion = i;
    r.group = 77;
    answers.push_back(r);
  }
  const auto expected = undisturbed(answers);
  CHECK(!expected[0].same(expected[1]) && !expected[1].same(expected[2]));
  for (const bool cache : {true, false}) {
    EngineOptions options = small_engine();
    options.prefix_cache = cache;
    harness::Runner runner(options);
    const auto results = runner.run(answers);
    for (size_t i = 0; i < results.size(); i++) {
      CHECK(results[i].same(expected[i]));
      CHECK(results[i].cached_tokens == (i == 0 ? 0 : 256));
    }
    CHECK(runner.engine().stats().prefill_tokens == 264 + 5 * 8);
    check_pages(runner.engine().stats());
  }
}

TEST("answers go on when the first one is aborted or paused before its prompt is there") {
  for (const bool abort : {true, false}) {
    EngineOptions options = small_engine();
    options.prefill_rows = 64;
    harness::Runner runner(options);
    std::vector<uint64_t> ids;
    for (int i = 0; i < 3; i++) {
      Request r = prompt_of(800, 12, 10);
      r.group = 5, r.completion = i;
      ids.push_back(runner.submit(r));
    }
    if (abort) {
      runner.engine().abort(ids[0]);
    } else {
      runner.engine().pause(ids[0]);
    }
    while (runner.result(ids[1]).ends == 0 || runner.result(ids[2]).ends == 0) runner.pump();
    CHECK(runner.result(ids[1]).same(runner.result(ids[2])));
    runner.engine().resume(ids[0]);
    while (runner.pump()) {
    }
    CHECK(runner.result(ids[0]).reason == (abort ? 3 : 2));
  }
}

int main(int argc, char** argv) { return check::run(argc, argv); }
