// The share of a step that prompts get, learnt from simulated machines whose costs are known.
#include <random>

#include "check.h"
#include "engine/planner.h"

using sdar::kPrefillTuning;
using sdar::PrefillBudget;

namespace {

using Rows = PrefillBudget::Rows;

/// Of requests that generate, in blocks half masked.
Rows beside(int32_t prompt, int32_t decode) { return {prompt, decode, decode / 2}; }
Rows without(int32_t decode) { return beside(0, decode); }

/// Milliseconds of a step: base and of each row.
struct Machine {
  double base, decode, prompt, head = 0;

  double milliseconds(const Rows& r) const {
    return (r.decode > 0 ? base : base / 2) + decode * r.decode + prompt * r.prompt + head * r.head;
  }
  /// What the budget is to become.
  double wanted(int32_t decode) const { return (kPrefillTuning.stretch - 1) * milliseconds(without(decode)) / prompt; }
};

/// 30 ms without prompts beside 32 rows, half of it the base.
constexpr Machine kOrdinary{.base = 15, .decode = 0.25, .prompt = 0.25, .head = 0.5};

bool near(double value, double wanted, double tolerance = 0.2) {
  return value >= (1 - tolerance) * wanted && value <= (1 + tolerance) * wanted;
}

/// Steps as a load makes them, most with as many rows of prompts as the budget allows.
class Load {
 public:
  explicit Load(Machine machine, double noise = 0.05) : machine(machine), noise_(noise) {}

  /// The rows of running requests vary by a fifth; of ten steps, `idle` have no prompts.
  void run(int steps, int32_t decode, int idle = 0) {
    for (int i = 0; i < steps; i++) {
      const auto now = static_cast<int32_t>(decode * std::uniform_real_distribution(0.8, 1.2)(random_));
      Rows rows = without(now);
      rows.head = static_cast<int32_t>(rows.head * std::uniform_real_distribution(0.8, 1.2)(random_));
      const int32_t allowed = budget.rows(1, 16, rows);
      rows.prompt = i % 10 < idle ? 0 : std::uniform_int_distribution(allowed - allowed / 4, allowed)(random_);
      step(rows);
    }
  }
  void step(const Rows& rows, double slower = 1) {
    const double noise = noise_ * std::uniform_real_distribution(-1.0, 1.0)(random_);
    budget.observe(rows, 1e-3 * slower * (1 + noise) * machine.milliseconds(rows));
  }
  bool learnt(int32_t decode, double tolerance = 0.25) const {
    return near(budget.rows(1, 16, without(decode)), machine.wanted(decode), tolerance);
  }

  Machine machine;
  PrefillBudget budget;

 private:
  double noise_;
  std::mt19937 random_{1};
};

}  // namespace

TEST("the budget is fixed until steps of prompts and of running requests have been seen") {
  PrefillBudget budget;
  CHECK(budget.rows(1, 16, without(64)) == kPrefillTuning.unknown_rows);
  budget.observe({512}, 0.3);
  CHECK(budget.rows(1, 16, without(64)) == kPrefillTuning.unknown_rows);
  budget.observe(without(64), 0.1);
  CHECK(budget.rows(1, 16, without(64)) != kPrefillTuning.unknown_rows);
}

TEST("prompts take as much of a step as running requests can bear, and more where more wait than run") {
  PrefillBudget budget;
  for (int i = 0; i < 50; i++) {
    budget.observe(without(64), 0.100);
    budget.observe(beside(64, 64), 0.164);  // 1 ms a position
  }
  CHECK(near(budget.rows(1, 16, without(64)), 40, 0.1));
  CHECK(near(budget.rows(16, 16, without(64)), 40, 0.1));
  CHECK(near(budget.rows(32, 16, without(64)), 80, 0.1));
  CHECK(budget.rows(127, 1, without(64)) == kPrefillTuning.most_rows);
  CHECK(budget.rows(1, 0, without(64)) >= 36);
}

TEST("the budget is learnt from steps that all have prompts, for as many running requests as there are") {
  Load load(kOrdinary);
  load.step(without(4));  // the only one without, of a time when little ran
  load.run(60, 32);
  CHECK(load.learnt(32));
  load.run(60, 128);  // and follows them
  CHECK(load.learnt(128));
  load.run(60, 32);
  CHECK(load.learnt(32));
}

TEST("the base and the rows of running requests are told from each other") {
  for (const Machine machine : {Machine{1, 1, 0.5}, Machine{50, 0.05, 0.5}}) {
    Load load(machine);
    load.run(100, 64, 2);
    CHECK(load.learnt(64));
  }
}

TEST("prompts by themselves teach what a row costs") {
  Load load(kOrdinary);
  for (int i = 0; i < 4; i++) load.step({512});
  for (int i = 0; i < 10; i++) load.step(without(64));
  CHECK(load.learnt(64, 0.35));
}

TEST("a machine that becomes slower or faster is learnt again") {
  Load load(kOrdinary);
  load.run(60, 64, 2);
  load.machine = {.base = 30, .decode = 0.5, .prompt = 0.5, .head = 1};  // all of it: the budget stays
  load.run(60, 64, 2);
  CHECK(load.learnt(64, 0.3));
  load.machine = {.base = 15, .decode = 0.25, .prompt = 0.75, .head = 0.5};
  load.run(100, 64, 2);
  CHECK(load.learnt(64, 0.3));
  load.machine = kOrdinary;
  load.run(100, 64, 2);
  CHECK(load.learnt(64, 0.3));
}

TEST("steps that are all alike change nothing but the scale") {
  Load load(kOrdinary, 0.02);
  load.run(60, 64, 2);
  const int32_t rows = load.budget.rows(1, 16, without(64));
  for (int i = 0; i < 2000; i++) load.step(beside(rows, 64));
  CHECK(near(load.budget.rows(1, 16, without(64)), rows, 0.15));
  load.run(30, 64);
  CHECK(load.learnt(64));

  PrefillBudget other;  // and nothing else was ever seen
  for (int i = 0; i < 2000; i++) other.observe(beside(64, 64), 0.1);
  CHECK(other.rows(1, 16, without(64)) >= kPrefillTuning.least_rows &&
        other.rows(1, 16, without(64)) < kPrefillTuning.most_rows);
}

TEST("a step that was held up hardly changes the budget") {
  Load load(kOrdinary);
  load.run(60, 64, 2);
  for (const bool prompts : {false, true}) {
    const int32_t before = load.budget.rows(1, 16, without(64));
    load.step(beside(prompts ? before : 0, 64), 30);
    CHECK(near(load.budget.rows(1, 16, without(64)), before, 0.35));
    load.run(20, 64, 2);
    CHECK(load.learnt(64));
  }
}

TEST("costs that are no straight line leave the budget within its bounds") {
  Load load(kOrdinary, 0);
  for (int i = 0; i < 200; i++) load.budget.observe(beside(16 + i % 64, 64), 1e-3 * (40 - 0.1 * (i % 64)));  // falling
  CHECK(load.budget.rows(1, 16, without(64)) == kPrefillTuning.most_rows);
  for (int i = 0; i < 200; i++)
    load.budget.observe(beside(16, 64 + i % 64), 1e-3 * (1 + 0.01 * (i % 64) * (i % 64)));  // no base
  CHECK(load.budget.rows(1, 16, without(1)) >= kPrefillTuning.least_rows);
  for (const double seconds : {0.0, -1.0}) load.budget.observe(beside(8, 8), seconds);
  load.budget.observe({}, 1);
  CHECK(load.budget.rows(1, 16, without(64)) >= kPrefillTuning.least_rows);
  CHECK(load.budget.rows(1, 16, without(64)) <= kPrefillTuning.most_rows);
}

TEST("steps that take longer by themselves get fewer rows of prompts, the others more") {
  Load load(kOrdinary, 0.02);
  const Rows phases[] = {{0, 128, 64}, {0, 64, 48}, {0, 64, 32}, {0, 64, 16}};  // all begin their blocks at once
  double usual = 0;
  for (const Rows& phase : phases) usual += kOrdinary.milliseconds(phase) / 4;
  for (int i = 0; i < 100; i++) {
    for (Rows rows : phases) {
      if (i % 2) rows.prompt = load.budget.rows(1, 16, rows);
      load.step(rows);
    }
  }
  for (Rows rows : phases) {
    const double alone = kOrdinary.milliseconds(rows), aimed = kPrefillTuning.stretch * usual;
    rows.prompt = load.budget.rows(1, 16, rows);
    CHECK(near(kOrdinary.milliseconds(rows), std::max(aimed, 1.05 * alone), 0.1));
  }
}

TEST("small steps may take longer by what nobody sees") {
  Load load({.base = 0.1, .decode = 0.002, .prompt = 0.02});
  load.run(60, 16, 2);
  CHECK(near(load.budget.rows(1, 16, without(16)), 1e3 * kPrefillTuning.unnoticed / 0.02, 0.2));
}

int main(int c, char** v) { return check::run(c, v); }
