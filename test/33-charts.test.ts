// Charts as SVG text: ticks, lines, labels.
import t from "tap";
import { type Box, drawCharts, linearTicks, logTicks, placeLabels } from "../lib/plot.js";

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

t.test("labels of a chart cover neither each other nor points", (t) => {
  const covers = (a: Box, b: Box) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const inside = { left: 0, right: 400, top: 0, bottom: 300 };
  const points = [
    { x: 100, y: 100, width: 60 },
    { x: 104, y: 103, width: 60 },
    { x: 108, y: 99, width: 60, side: "right" as const },
    { x: 6, y: 4, width: 60 },
  ];
  const markers = points.map(({ x, y }) => ({ left: x - 5, right: x + 5, top: y - 5, bottom: y + 5 }));
  const boxes = placeLabels(points, markers, inside);
  for (const [i, box] of boxes.entries()) {
    for (const other of [...boxes.slice(0, i), ...markers]) t.notOk(covers(box, other));
    t.ok(box.left >= 0 && box.right <= 400 && box.top >= 0 && box.bottom <= 300);
  }
  t.end();
});
