import t from "tap";
import { accuracy } from "../lib/bench/prompts.js";
import { median, table } from "../lib/bench/report.js";
import { accuracyAt, compareWithCurve, forwardsFor, middle, resamples, wilson } from "../lib/bench/statistics.js";

t.test("medians, tables, right answers", async (t) => {
  t.equal(median([3, 1, 2]), 2);
  t.equal(median([4, 1, 2, 3]), 2.5);
  t.ok(Number.isNaN(median([])));
  t.equal(
    table([
      ["a", "bc"],
      [10, 2],
    ]),
    "a   bc\n10   2\n",
  );
  const samples = [
    { prompt: "", answer: "1", task: "x" },
    { prompt: "", answer: "2", task: "x" },
    { prompt: "", answer: "3", task: "y" },
    { prompt: "" },
  ];
  t.same(accuracy(samples, ["1", "2 ", "3", ""]), { all: 66.667, x: 50, y: 100 });
});

t.test("intervals, and curves compared on the same samples", async (t) => {
  const [low, high] = wilson(8, 10);
  t.ok(Math.abs(low - 0.4902) < 1e-4 && Math.abs(high - 0.9433) < 1e-4, `${low} to ${high}`);
  t.ok(wilson(0, 10)[0] > -1e-9 && wilson(10, 10)[1] < 1 + 1e-9);
  t.same(middle(Array.from({ length: 201 }, (_, i) => 200 - i)), [5, 195]);
  for (const times of resamples(7, 20))
    t.equal(
      times.reduce((a, b) => a + b),
      7,
    );
  const curve = [
    { forwards: 2, accuracy: 0.5 },
    { forwards: 4, accuracy: 0.7 },
    { forwards: 6, accuracy: 0.6 },
  ];
  const near = (found: number, wanted: number) => t.ok(Math.abs(found - wanted) < 1e-9, `${found}, not ${wanted}`);
  for (const [x, y] of [
    [1, 0.5],
    [2, 0.5],
    [3, 0.6],
    [5, 0.65],
    [9, 0.6],
  ] as const)
    near(accuracyAt(curve, x), y);
  for (const [y, x] of [
    [0.4, 2],
    [0.6, 3],
    [0.7, 4],
    [0.9, 6],
  ] as const)
    near(forwardsFor(curve, y), x);
  const outcome = (right: number, forwards: number) => ({
    right: Uint8Array.from({ length: 100 }, (_, i) => (i < right ? 1 : 0)),
    forwards: new Float64Array(100).fill(forwards),
  });
  const [better, beyond] = compareWithCurve([outcome(70, 3), outcome(80, 7)], [outcome(50, 2), outcome(70, 4)], 200);
  near(better?.points ?? 0, 10);
  near(better?.forwardsRatio ?? 0, 0.75);
  const [from, to] = better?.pointsInterval ?? [0, 0];
  t.ok(from > 2 && from < 10 && to > 10 && to < 18, `10 points, ${from} to ${to}`);
  t.equal(beyond?.points, undefined, "nothing is said beyond the curve");
});
