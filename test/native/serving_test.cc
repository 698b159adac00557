// Preemption, prefix cache, groups, pauses and deadlines: a request gets the tokens of an undisturbed run whatever
// happens to it on the way, ends exactly once, and leaves every page accounted for.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "check.h"
#include "harness.h"

using harness::Result;
using sdar::EngineOptions;
using sdar::Request;
using sdar::Strategy;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

EngineOptions small_engine(int64_t kv_tokens = 0) {
  EngineOptions options{.path = harness::small_model().path, .weights = sdar::WeightFormat::int8, .threads = 2};
  options.kv_tokens = kv_tokens;
  return options;
}

Request prompt_of(int length, uint32_t seed = 1, int max_tokens = 24) {
  std::mt19937 random(seed);
  Request r;
  for (int i = 0; i < length; i++) r.tokens.push_back(int32_t(random() % harness::small_model().ids));
  r.block_length = 8;
  r.max_tokens = max_tokens;
  r.ignore_eos = true;
  return r;
}

/// What every request gives when nothing disturbs it.
std::vector<Result> undisturbed(const std::vector<Request>& requests) {
  EngineOptions options = small_engine();
  options.prefix_cache = false;
  std::vector<Request> plain = requests;
  for (Request& r : plain) {
    r.group = 0;
    r.deadline = Clock::time_point::max();
  }
  return harness::Runner(options).run(plain);
}

/// As many, or under sanitizers and emulation, which are slow, a few.
int full_or(int many, int few) { return harness::quick() ? few : many; }

/// Nothing is left behind.
void check_pages(const sdar::EngineStats& stats) {
  CHECK(stats.pages_free + stats.pages_cached == stats.pages_total);
  CHECK(stats.running == 0 && stats.waiting == 0 && stats.paused == 0);
}

}  // namespace

TEST("requests that are preempted and resumed give the tokens of an undisturbed run") {
  std::vector<Request> requests;
  for (int i = 0; i < full_or(24, 12); i++) {
    Request r = prompt_of(5 + i * 29 % 90, 50 + i, 100 + i * 7 % 60);
    const int blocks[] = {8, 4, 16, 5, 32, 1};
    r.block_length = blocks[i % 6];
    r.denoise.strategy = static_cast<Strategy>(i % 3);
    r.denoise.threshold = 0.7f;
    if (i % 2) r.temperature = 0.8f, r.seed = i;
    r.rank = i;
    requests.push_back(r);
  }
  const auto expected = undisturbed(requests);
  for (const bool cache : {false, true}) {
    EngineOptions options = small_engine(9 * 64);
    options.prefix_cache = cache;
    harness::Runner runner(options);
    const auto results = runner.run(requests);
    int preempted = 0;
    for (size_t i = 0; i < requests.size(); i++) {
      CHECK(results[i].same(expected[i]) && results[i].ends == 1 && results[i].started == 1);
      preempted += results[i].preempted;
    }
    const auto stats = runner.engine().stats();
    std::printf("# %d preemptions, %lld tokens computed again, prefix cache %s\n", preempted,
                static_cast<long long>(stats.recomputed_tokens), cache ? "on" : "off");
    CHECK(preempted >= 3 && stats.preemptions == preempted);
    CHECK(cache || stats.recomputed_tokens > 0);
    check_pages(stats);
  }
}

TEST("the least important, then the newest request is preempted") {
  EngineOptions options = small_engine(4 * 64);
  harness::Runner runner(options);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; i++) {
    Request r = prompt_of(40, i, 150);
    r.denoise.strategy = Strategy::sequential;
    r.priority = i == 1 ? -1 : 0;
    r.rank = i;
    ids.push_back(runner.submit(r));
  }
  while (runner.pump()) {
  }
  CHECK(runner.result(ids[0]).preempted == 0);
  CHECK(runner.result(ids[1]).preempted > 0);
  CHECK(runner.result(ids[1]).preempted >= runner.result(ids[2]).preempted);
}

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

TEST("a paused request computes nothing, may lose its pages, and goes on with the same tokens") {
  const Request slow = prompt_of(100, 13, 200);
  const Request others = prompt_of(300, 14, 100);
  const auto expected = undisturbed({slow, others});
  harness::Runner runner(small_engine(8 * 64));
  const uint64_t id = runner.submit(slow);
  while (runner.result(id).tokens.size() < 20) runner.pump();
  runner.engine().pause(id);
  while (runner.engine().stats().paused == 0) std::this_thread::yield();
  runner.take();
  const size_t before = runner.result(id).tokens.size();
  const uint64_t other = runner.submit(others);
  while (runner.result(other).ends == 0) runner.pump();
  CHECK(runner.result(other).same(expected[1]));
  CHECK(runner.result(id).tokens.size() == before && runner.result(id).ends == 0);
  CHECK(runner.engine().stats().recomputed_tokens == 0);
  runner.engine().resume(id);
  while (runner.pump()) {
  }
  CHECK(runner.result(id).same(expected[0]) && runner.result(id).ends == 1);
  CHECK(runner.engine().stats().recomputed_tokens > 0);
  check_pages(runner.engine().stats());
}

TEST("deadlines end waiting, running and paused requests with DEADLINE_EXCEEDED") {
  EngineOptions options = small_engine();
  options.max_concurrent = 1;
  harness::Runner runner(options);
  Request r = prompt_of(20, 15, 900);
  r.denoise.strategy = Strategy::sequential;
  r.deadline = Clock::now() + milliseconds(60);
  const uint64_t running = runner.submit(r), waiting = runner.submit(r), paused = runner.submit(r);
  runner.engine().pause(paused);
  Request patient = prompt_of(20, 16, 8);
  patient.deadline = Clock::now() + std::chrono::hours(1);
  const uint64_t last = runner.submit(patient);
  while (runner.pump()) {
  }
  for (uint64_t id : {running, waiting, paused}) {
    CHECK(runner.result(id).ends == 1 && runner.result(id).error == sdar::code::kDeadlineExceeded);
    CHECK(runner.result(id).message.find("deadline") != std::string::npos);
  }
  CHECK(runner.result(running).tokens.size() < 900);
  CHECK(runner.result(last).reason == 2);
  CHECK(runner.engine().stats().timed_out == 3 && runner.engine().stats().failed == 0);
  check_pages(runner.engine().stats());
}

TEST("lower ranks are admitted first") {
  EngineOptions options = small_engine();
  options.max_concurrent = 1;
  harness::Runner runner(options);
  Request block = prompt_of(full_or(600, 200), 17, 50);  // keeps the engine busy while the others arrive
  block.denoise.strategy = Strategy::sequential;
  const uint64_t first = runner.submit(block);
  std::vector<uint64_t> ids;
  for (double rank : {3.0, 1.0, 2.0}) {
    Request r = prompt_of(10, 18, full_or(200, 60));
    r.denoise.strategy = Strategy::sequential;
    r.rank = rank;
    ids.push_back(runner.submit(r));
  }
  while (runner.result(first).ends == 0) runner.pump();
  while (runner.result(ids[1]).ends == 0) runner.pump();
  CHECK(runner.result(ids[0]).ends == 0 && runner.result(ids[2]).ends == 0);
  while (runner.result(ids[2]).ends == 0) runner.pump();
  CHECK(runner.result(ids[0]).ends == 0);
  while (runner.pump()) {
  }
}

TEST("a long prompt enters beside running requests in pieces, and every one of their steps fills tokens") {
  const Request large = prompt_of(full_or(900, 400), 19, 8);
  std::vector<Request> small;
  for (int i = 0; i < 4; i++) {
    small.push_back(prompt_of(10, 20 + i, full_or(300, 100)));
    small.back().denoise.strategy = Strategy::sequential;
  }
  std::vector<Request> all = small;
  all.push_back(large);
  const auto expected = undisturbed(all);
  harness::Runner runner(small_engine());
  std::vector<uint64_t> ids;
  for (const Request& r : small) ids.push_back(runner.submit(r));
  while (runner.result(ids[0]).tokens.size() < 30) runner.pump();
  const auto before = runner.engine().stats();
  const uint64_t id = runner.submit(large);
  while (runner.result(id).tokens.empty()) runner.pump();
  const auto after = runner.engine().stats();
  CHECK(after.steps - before.steps > 3);
  CHECK(after.forwards - before.forwards >= 4 * (after.steps - before.steps - 1));
  while (runner.pump()) {
  }
  for (size_t i = 0; i < ids.size(); i++) CHECK(runner.result(ids[i]).same(expected[i]));
  CHECK(runner.result(id).same(expected.back()));
}

TEST("the counters of a step add up") {
  harness::Runner runner(small_engine());
  std::vector<Request> requests;
  for (int i = 0; i < 8; i++) requests.push_back(prompt_of(40 + i, 30 + i));
  runner.run(requests);
  const auto s = runner.engine().stats();
  const double parts = s.seconds.prefill + s.seconds.attention + s.seconds.gemm + s.seconds.lm_head + s.seconds.denoise;
  CHECK(parts > 0.5 * s.step_seconds && parts <= s.step_seconds * 1.0001);
  CHECK(s.seconds.prefill > 0 && s.seconds.attention > 0 && s.seconds.gemm > 0 && s.seconds.lm_head > 0);
  int64_t forwards = 0, filled = 0;
  for (size_t k = 0; k < s.tokens_per_forward.size(); k++) {
    forwards += s.tokens_per_forward[k];
    filled += int64_t(k) * s.tokens_per_forward[k];
  }
  CHECK(forwards == s.forwards && filled == s.filled_tokens);
  CHECK(s.prompt_tokens == 8 * 40 + 28 && s.cached_tokens == 0);
}

TEST(
    "requests with random lengths, options, aborts, pauses and deadlines on a pool far too small end each exactly "
    "once") {
  const int count = full_or(800, 60);
  std::mt19937 random(99);
  std::vector<Request> requests;
  for (int i = 0; i < count; i++) {
    Request r = prompt_of(1 + random() % (random() % 4 ? 60 : 250), random() % 300, 1 + random() % 60);
    const int blocks[] = {8, 8, 4, 16, 5, 1};
    r.block_length = blocks[random() % 6];
    r.denoise.strategy = static_cast<Strategy>(random() % 4);
    r.denoise.threshold = 0.6f;
    if (random() % 3 == 0) r.temperature = 0.9f, r.seed = random();
    r.priority = int(random() % 5) - 2;
    r.rank = double(random() % 1000);
    if (random() % 4 == 0) r.salt = "s";
    r.pin = random() % 20 == 0;
    requests.push_back(r);
  }
  const auto expected = undisturbed(requests);
  EngineOptions options = small_engine(7 * 64);
  options.max_concurrent = 12;
  harness::Runner runner(options);
  enum Fate { none, aborted, paused, late };
  std::vector<Fate> fates;
  std::vector<uint64_t> ids;
  std::set<uint64_t> sleeping;
  for (int i = 0; i < count; i++) {
    Request r = requests[i];
    const Fate fate = static_cast<Fate>(std::max(0, int(random() % 8) - 4));
    if (fate == late) r.deadline = Clock::now() + std::chrono::microseconds(random() % 20000);
    fates.push_back(fate);
    ids.push_back(runner.submit(r));
    if (fate == aborted && random() % 2) runner.engine().abort(ids.back());
    if (fate == paused) runner.engine().pause(ids.back()), sleeping.insert(ids.back());
    if (i % 16 == 0) runner.pump();
    if (fate == aborted) runner.engine().abort(ids[random() % ids.size()]), runner.engine().abort(ids.back());
    if (!sleeping.empty() && random() % 2) {
      const auto it = std::next(sleeping.begin(), random() % sleeping.size());
      runner.engine().resume(*it);
      sleeping.erase(it);
    }
  }
  for (uint64_t id : sleeping) runner.engine().resume(id);
  while (runner.pump()) {
  }
  int finished = 0, aborts = 0, timeouts = 0;
  for (int i = 0; i < count; i++) {
    const Result& result = runner.result(ids[i]);
    CHECK(result.ends == 1);
    if (result.reason == 3) {
      aborts++;
    } else if (!result.error.empty()) {
      timeouts++;
      CHECK(result.error == sdar::code::kDeadlineExceeded && fates[i] == late);
    } else {
      finished++;
      if (!result.same(expected[i])) check::fail(__FILE__, __LINE__, "request " + std::to_string(i) + " differs");
    }
  }
  const auto stats = runner.engine().stats();
  std::printf(
      "# %d finished, %d aborted, %d too late, %lld preemptions, %lld evictions, %lld of %lld prompt tokens cached\n",
      finished, aborts, timeouts, static_cast<long long>(stats.preemptions), static_cast<long long>(stats.evictions),
      static_cast<long long>(stats.cached_tokens), static_cast<long long>(stats.prompt_tokens));
  CHECK(finished + aborts + timeouts == count);
  CHECK(finished > count / 4 && aborts > count / 20 && stats.preemptions > count / 50);
  CHECK(timeouts > 0 || harness::quick());
  check_pages(stats);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
