// Preemption, pauses, deadlines and order: a request gets the tokens of an undisturbed run whatever happens to it on the
// way, ends exactly once, and leaves every page accounted for.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <set>
#include <thread>

#include "check.h"
#include "harness.h"

using harness::check_pages;
using harness::full_or;
using harness::prompt_of;
using harness::Result;
using harness::small_engine;
using harness::undisturbed;
using sdar::EngineOptions;
using sdar::Request;
using sdar::Strategy;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

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
  auto held = runner.hold();
  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; i++) {
    Request r = prompt_of(40, i, 150);
    r.denoise.strategy = Strategy::sequential;
    r.priority = i == 1 ? -1 : 0;
    r.rank = i;
    ids.push_back(runner.submit(r));
  }
  held.unlock();
  while (runner.pump()) {
  }
  CHECK(runner.result(ids[0]).preempted == 0);
  CHECK(runner.result(ids[1]).preempted > 0);
  CHECK(runner.result(ids[1]).preempted >= runner.result(ids[2]).preempted);
}

TEST("a paused request computes nothing, may lose its pages, and goes on with the same tokens") {
  const Request slow = prompt_of(100, 13, 200);
  const Request others = prompt_of(300, 14, 100);
  const auto expected = undisturbed({slow, others});
  harness::Runner runner(small_engine(8 * 64));
  auto held = runner.hold();
  const uint64_t id = runner.submit(slow);
  while (runner.engine().stats().running == 0) std::this_thread::yield();
  runner.engine().pause(id);
  held.unlock();
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
  // The engine stands still until it is too late, or a quick machine would be done before.
  auto held = runner.hold();
  const uint64_t running = runner.submit(r), waiting = runner.submit(r), paused = runner.submit(r);
  runner.engine().pause(paused);
  Request patient = prompt_of(20, 16, 8);
  patient.deadline = Clock::now() + std::chrono::hours(1);
  const uint64_t last = runner.submit(patient);
  while (runner.engine().stats().running == 0 && Clock::now() < r.deadline) std::this_thread::yield();
  std::this_thread::sleep_until(r.deadline + milliseconds(1));
  held.unlock();
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

TEST(
    "a tenant has its share of the slots beside one whose requests take long, and all get the tokens of an undisturbed "
    "run") {
  std::vector<Request> requests;
  for (int i = 0; i < 12; i++) {
    Request r = prompt_of(10 + i, 40 + i, i < 4 ? full_or(600, 300) : 40);
    r.denoise.strategy = Strategy::sequential;
    r.rank = i;
    r.tenant = i < 4 ? 1 : 2;
    requests.push_back(r);
  }
  const auto expected = undisturbed(requests);
  EngineOptions options = small_engine();
  options.max_concurrent = 4;
  harness::Runner runner(options);
  std::vector<uint64_t> ids;
  auto held = runner.hold();
  for (int i = 0; i < 4; i++) ids.push_back(runner.submit(requests[i]));
  while (runner.engine().stats().running == 0) std::this_thread::yield();
  for (int i = 4; i < 12; i++) ids.push_back(runner.submit(requests[i]));
  held.unlock();
  while (runner.pump()) {
  }
  // Those of the second tenant, which take a sixth of the time, one after the other, ended before any of the first's.
  const auto last = runner.ended().end() - 4;
  CHECK(std::is_permutation(last, runner.ended().end(), ids.begin()));
  for (size_t i = 0; i < ids.size(); i++) {
    CHECK(runner.result(ids[i]).same(expected[i]) && runner.result(ids[i]).ends == 1);
    CHECK(runner.result(ids[i]).preempted == 0 && runner.result(ids[i]).started == 1);
  }
  check_pages(runner.engine().stats());
}

TEST("lower ranks are admitted first") {
  EngineOptions options = small_engine();
  options.max_concurrent = 1;
  harness::Runner runner(options);
  auto held = runner.hold();
  const uint64_t first = runner.submit(prompt_of(full_or(600, 200), 17, 50));
  while (runner.engine().stats().running == 0) std::this_thread::yield();
  std::vector<uint64_t> ids;
  for (double rank : {3.0, 1.0, 2.0}) {
    Request r = prompt_of(10, 18, full_or(200, 60));
    r.denoise.strategy = Strategy::sequential;
    r.rank = rank;
    ids.push_back(runner.submit(r));
  }
  held.unlock();
  while (runner.pump()) {
  }
  CHECK((runner.ended() == std::vector<uint64_t>{first, ids[1], ids[2], ids[0]}));
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
  std::vector<Request> requests;
  for (int i = 0; i < 8; i++) requests.push_back(prompt_of(40 + i, 30 + i));
  sdar::EngineStats s;
  // Of a run in which the machine stood still between two parts, the parts are little: not of three.
  for (int tries = 0; tries < 3; tries++) {
    harness::Runner runner(small_engine());
    runner.run(requests);
    s = runner.engine().stats();
    CHECK(s.seconds.sum() <= s.step_seconds * 1.0001);
    if (s.seconds.sum() > 0.5 * s.step_seconds) break;
  }
  CHECK(s.seconds.sum() > 0.5 * s.step_seconds);
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
  CHECK(finished > count / 4 && aborts > count / 20 && stats.preemptions >= count / 50);
  CHECK(timeouts > 0 || harness::quick());
  check_pages(stats);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
