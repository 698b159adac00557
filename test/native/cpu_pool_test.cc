// The thread pool: every index once, workers that slept wake up, an idle pool uses no CPU, pools side by side.
#include <chrono>
#include <ctime>
#include <numeric>

#include "backend/cpu/pool.h"
#include "check.h"
#include "util/machine.h"

using sdar::cpu::Pool;

namespace {

double process_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

}  // namespace

TEST("run calls every worker once, for_each every index once") {
  for (int threads : {1, 2, 3, 5}) {
    Pool pool(threads);
    CHECK(pool.threads() == threads);
    for (int round = 0; round < 200; round++) {
      std::vector<int> calls(threads, 0);  // plain memory: the sanitizer sees a missing barrier
      pool.run([&](int worker) { calls[worker]++; });
      for (int n : calls) CHECK(n == 1);
      const int64_t count = round % 37;
      std::vector<int> seen(count + 1, 0);
      std::vector<int64_t> sums(threads, 0);
      pool.for_each(count, [&](int64_t i, int worker) {
        seen[i]++;
        sums[worker] += i;
      });
      for (int64_t i = 0; i < count; i++) CHECK(seen[i] == 1);
      CHECK(std::accumulate(sums.begin(), sums.end(), int64_t{0}) == count * (count - 1) / 2);
    }
  }
}

TEST("workers that have gone to sleep take the next job, and an idle pool uses no CPU") {
  Pool pool(3);
  std::vector<int> calls(3, 0);
  const double before = process_seconds();
  for (int round = 0; round < 20; round++) {
    pool.run([&](int worker) { calls[worker]++; });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (int n : calls) CHECK(n == 20);
  CHECK(process_seconds() - before < 0.3);  // two workers that spun would take 0.8 s
}

TEST("a worker that is held up does not hold up the others' indices") {
  Pool pool(2);
  std::atomic<int> done{0};
  pool.for_each(64, [&](int64_t i, int) {
    if (i == 0) {  // the first index of worker 0 waits until all others have been taken by worker 1
      while (done.load() < 63) std::this_thread::yield();
    } else {
      done++;
    }
  });
  CHECK(done == 63);
}

TEST("more threads than cores: jobs follow each other at once, and nobody enters a job that is over") {
  Pool pool(8);
  std::atomic<int64_t> next{0};
  for (int round = 0; round < 3000; round++) {
    const int64_t count = 1 + round % 19;
    std::vector<int> seen(count, 0);  // gone after the round: a late worker would write into what was freed
    next = 0;
    pool.offer([&](int) {
      for (int64_t i; (i = next.fetch_add(1)) < count;) seen[i]++;
    });
    for (int n : seen) CHECK(n == 1);
    if (round % 500 == 0) {
      std::vector<int> calls(8, 0);
      pool.run([&](int worker) { calls[worker]++; });
      for (int n : calls) CHECK(n == 1);
    }
  }
}

TEST("an interrupt leaves out what was not begun, and is an error of this job and every later one") {
  for (int threads : {1, 3}) {
    Pool pool(threads);
    std::atomic<int64_t> calls{0};
    const auto interrupted = [&](int64_t count) {
      pool.for_each(count, [&](int64_t, int) {
        if (++calls == 5) pool.interrupt();
      });
    };
    interrupted(4);  // before it
    CHECK(calls == 4);
    CHECK_THROWS("DISPOSED", "disposed of while", interrupted(1'000'000));
    CHECK(calls >= 5 && calls < 500'000);
    const int64_t before = calls;
    CHECK_THROWS("DISPOSED", "disposed of while", interrupted(1000));
    CHECK(calls == before);
  }
}

TEST("pools side by side, made and ended without a job") {
  Pool a(2), b(3);
  { Pool unused(4); }
  std::atomic<int64_t> sum{0};
  std::thread other([&] {
    for (int i = 0; i < 100; i++) b.for_each(10, [&](int64_t j, int) { sum += j; });
  });
  for (int i = 0; i < 100; i++) a.for_each(10, [&](int64_t j, int) { sum += j; });
  other.join();
  CHECK(sum == 2 * 100 * 45);
}

TEST("usable cores") {
  const int cores = sdar::usable_cores();
  CHECK(cores >= 1 && cores <= 4096);
}

int main(int c, char** v) { return check::run(c, v); }
