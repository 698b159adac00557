import t from "tap";
import { drawCharts, linearTicks, logTicks } from "../lib/bench/plot.js";
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

t.test("charts", async (t) => {
  t.same(linearTicks(70.2, 74.4), [70, 71, 72, 73, 74, 75]);
  t.same(linearTicks(-0.12, 0.31), [-0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.4]);
  t.same(logTicks(1, 32, 2), [1, 2, 4, 8, 16, 32]);
  t.same(logTicks(3, 400, 10), [5, 10, 20, 50, 100, 200]);
  t.same(logTicks(3, 5.1, 10), [3, 3.5, 4, 4.5, 5], "too few powers");
  const points = [1, 2, 4].map((x) => ({ x, y: 10 * x, low: 9 * x, high: 11 * x }));
  const axes = { x: { label: "a < b", log: 2 as const, to: 8 }, y: { label: "y" } };
  const series = [
    { name: "first", points: [...points, { x: 8, y: 90, label: "here" }] },
    { name: "none", points: [] },
  ];
  const svg = drawCharts([
    { title: "One", ...axes, series },
    { title: "Two", ...axes, series },
  ]);
  t.match(svg, /^<svg [^>]*viewBox="0 0 1120 400"/);
  t.match(svg, /a &lt; b<.*>here</s);
  t.notMatch(svg, /NaN|undefined|Infinity/);
  const line = "M64 315.8L222.67 285.6L381.33 225.2L540 74.2";
  t.equal(svg.split(line).length, 3, "the line through the points, in both charts");
  for (const tag of ["svg", "g", "text"]) {
    t.equal(svg.match(new RegExp(`<${tag}[ >]`, "g"))?.length, svg.match(new RegExp(`</${tag}>`, "g"))?.length, tag);
  }
  const alone = drawCharts([
    { title: "", x: { label: "" }, y: { label: "" }, series: [{ name: "", points: [{ x: 3, y: 3 }] }] },
  ]);
  t.notMatch(alone + drawCharts([{ title: "", x: { label: "" }, y: { label: "" }, series: [] }]), /NaN|Infinity/);
});
