// How many threads compute a step: what was measured decides, sizes of steps apart; the pool keeps to it.
#include "backend/cpu/pool.h"
#include "backend/cpu/step_threads.h"
#include "check.h"

using sdar::cpu::Pool;
using sdar::cpu::StepThreads;

namespace {

/// Of `steps` steps of `rows` rows, how many were computed by each number of threads.
template <class Seconds>
std::vector<int> counts(StepThreads& threads, int32_t rows, int steps, Seconds&& seconds) {
  std::vector<int> count(9, 0);
  for (int i = 0; i < steps; i++) {
    const int n = threads.choose(rows);
    count[static_cast<size_t>(n)]++;
    threads.took(seconds(n));
  }
  return count;
}

}  // namespace

TEST("one thread, where more take longer") {
  StepThreads threads(2);
  const auto count = counts(threads, 8, 1000, [](int n) { return n == 1 ? 200e-6 : 300e-6; });
  CHECK(count[1] > 950);
  CHECK(count[2] >= 4);  // which was found out
}

TEST("all threads, where they are faster, and whatever is between where that is") {
  StepThreads two(2), eight(8), four(8);
  CHECK(counts(two, 8, 1000, [](int n) { return 300e-6 / n; })[2] > 950);
  CHECK(counts(eight, 8, 1000, [](int n) { return 300e-6 / n; })[8] > 900);
  CHECK(counts(four, 8, 1000, [](int n) { return n == 4 ? 100e-6 : 200e-6; })[4] > 900);
}

TEST("first steps, in which every core fills its cache, are no measure") {
  StepThreads threads(2);
  int step = 0;
  const auto count =
      counts(threads, 16, 300, [&](int n) { return (n == 1 ? 500e-6 : 400e-6) * (++step <= 3 ? 9 : 1); });
  CHECK(count[2] > 270);
}

TEST("a long step is never tried on fewer") {
  StepThreads threads(4);
  const auto count = counts(threads, 64, 1000, [](int n) { return n == 4 ? 2e-3 : 1e-6; });
  CHECK(count[4] == 1000);
}

TEST("each size of steps has its own number, and few rows are no measure of many") {
  StepThreads threads(2);
  const auto seconds = [](int32_t rows) {
    return [rows](int n) { return n == 1 ? 10e-6 * rows : 60e-6 + 5e-6 * rows; };
  };
  for (int round = 0; round < 20; round++) {
    counts(threads, 2, 20, seconds(2));
    counts(threads, 60, 20, seconds(60));
  }
  CHECK(counts(threads, 2, 100, seconds(2))[1] > 90);
  CHECK(counts(threads, 60, 100, seconds(60))[2] > 90);
}

TEST("one step that the system held up changes nothing, a machine that changed does") {
  StepThreads threads(2);
  counts(threads, 8, 100, [](int n) { return n == 1 ? 200e-6 : 300e-6; });
  threads.choose(8);
  threads.took(1.0);
  CHECK(counts(threads, 8, 25, [](int n) { return n == 1 ? 200e-6 : 300e-6; })[1] >= 24);
  const auto free = [](int n) { return n == 1 ? 200e-6 : 110e-6; };
  counts(threads, 8, 2000, free);
  CHECK(counts(threads, 8, 1000, free)[2] > 950);
}

TEST("a pool that was told to use fewer threads does, until it is told otherwise") {
  Pool pool(4);
  CHECK(pool.size() == 4 && pool.threads() == 4);
  for (int round = 0; round < 300; round++) {
    const int threads = 1 + round % 4;
    pool.use(threads);
    CHECK(pool.threads() == threads);
    std::vector<int> calls(4, 0);
    pool.run([&](int worker) { calls[worker]++; });
    for (int worker = 0; worker < 4; worker++) CHECK(calls[worker] == (worker < threads));
    std::vector<int> seen(50, 0), by(static_cast<size_t>(threads), 0);  // no room for a worker too many
    pool.for_each(50, [&](int64_t i, int worker) { seen[i]++, by[static_cast<size_t>(worker)]++; });
    for (int n : seen) CHECK(n == 1);
  }
  pool.use(0);
  CHECK(pool.threads() == 1);
  pool.use(99);
  CHECK(pool.threads() == 4);
}

int main(int c, char** v) { return check::run(c, v); }
