// Line charts as SVG text, for what benchmarks measure.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";

export interface Point {
  x: number;
  y: number;
  /** an interval around y, drawn as a band along the line */
  low?: number;
  high?: number;
  /** written beside the point, where it covers neither points nor other labels */
  label?: string;
  /** above to the left (default) or below to the right, if there is room */
  side?: "left" | "right";
}

export interface Series {
  name: string;
  /** in the order in which the line joins them */
  points: readonly Point[];
  dashed?: boolean;
}

export interface Axis {
  label: string;
  /** logarithmic, with ticks at powers of 2 or at 1, 2, 5 times powers of 10 */
  log?: 2 | 10;
  /** its ends; default: they enclose the values. What lies beyond is cut off. */
  from?: number;
  to?: number;
}

export interface Chart {
  title: string;
  x: Axis;
  y: Axis;
  series: readonly Series[];
  /** where the legend stands; default bottom right */
  legend?: "top left" | "top right" | "bottom left" | "bottom right";
}

const size = { width: 560, height: 400 };
const inset = { left: 64, right: 20, top: 44, bottom: 54 };
/** Okabe and Ito's, which colour-blind readers tell apart; black is kept for text. */
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const markers = [
  '<circle r="3.5"/>',
  '<rect x="-3.2" y="-3.2" width="6.4" height="6.4"/>',
  '<path d="M0-4.4 4.2 3.2H-4.2Z"/>',
  '<path d="M0-4.6 4.6 0 0 4.6-4.6 0Z"/>',
];

/** Draws charts into a file, whose folder is made. */
export function writeCharts(file: string, charts: readonly Chart[]): void {
  mkdirSync(dirname(resolve(file)), { recursive: true });
  writeFileSync(file, drawCharts(charts));
}

/** Charts side by side in one SVG document. A series of the same name has the same colour in all of them. */
export function drawCharts(charts: readonly Chart[]): string {
  const names = [...new Set(charts.flatMap(({ series }) => series.map(({ name }) => name)))];
  const width = size.width * charts.length;
  const style = 'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="12" fill="#222"';
  const panels = charts.map(
    (chart, i) => `<g transform="translate(${i * size.width} 0)">\n${draw(chart, names)}\n</g>`,
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${size.height}" width="${width}" height="${size.height}" ${style}>`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    ...panels,
    "</svg>\n",
  ].join("\n");
}

function draw(chart: Chart, names: readonly string[]): string {
  const points = chart.series.flatMap((series) => series.points);
  const x = scale(
    chart.x,
    points.map((p) => p.x),
    [inset.left, size.width - inset.right],
  );
  const y = scale(
    chart.y,
    points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]),
    [size.height - inset.bottom, inset.top],
  );
  const { left, top } = inset;
  const [right, bottom] = [size.width - inset.right, size.height - inset.bottom];
  const grid = [
    ...x.ticks.map((v) => line(x.at(v), top, x.at(v), bottom) + text(x.at(v), bottom + 18, number(v), "middle")),
    ...y.ticks.map((v) => line(left, y.at(v), right, y.at(v)) + text(left - 8, y.at(v) + 4, number(v), "end")),
  ];
  const middle = { x: (left + right) / 2, y: (top + bottom) / 2 };
  return [
    text(left, 24, chart.title, "start", 'font-size="14" font-weight="bold"'),
    `<g stroke-width="1">${grid.join("")}</g>`,
    `<path d="M${left} ${top}V${bottom}H${right}" fill="none" stroke="#555"/>`,
    text(middle.x, size.height - 14, chart.x.label, "middle"),
    text(0, 0, chart.y.label, "middle", `transform="translate(18 ${middle.y}) rotate(-90)"`),
    // Markers on the edge stay whole.
    `<svg x="${left - 5}" y="${top - 5}" width="${right - left + 10}" height="${bottom - top + 10}" viewBox="${left - 5} ${top - 5} ${right - left + 10} ${bottom - top + 10}">`,
    ...chart.series.map((series) => drawSeries(series, names.indexOf(series.name), x.at, y.at)),
    ...labels(points, x.at, y.at, { left, right, top, bottom }, legendBox(chart)),
    "</svg>",
    drawLegend(chart, names),
  ].join("\n");
}

type Place = (value: number) => number;

function drawSeries({ points, dashed }: Series, index: number, x: Place, y: Place): string {
  const path = (list: string[]) => `M${list.join("L")}`;
  const band = points.filter((p) => p.low !== undefined && p.high !== undefined);
  const edge = (list: readonly Point[], of: "low" | "high") => list.map((p) => `${at(x(p.x))} ${at(y(p[of] ?? p.y))}`);
  const parts = [
    band.length > 1
      ? `<path d="${path([...edge(band, "high"), ...edge(band.toReversed(), "low")])}Z" stroke="none" opacity="0.15"/>`
      : "",
    // The interval of a point alone is a line.
    band.length === 1
      ? `<path d="${path([...edge(band, "high"), ...edge(band, "low")])}" fill="none" stroke-width="1.5" opacity="0.5"/>`
      : "",
    `<path d="${path(points.map((p) => `${at(x(p.x))} ${at(y(p.y))}`))}" fill="none" stroke-width="2" stroke-linejoin="round"${dashed ? ' stroke-dasharray="6 4"' : ""}/>`,
    ...points.map((p) => `<g transform="translate(${at(x(p.x))} ${at(y(p.y))})">${marker(index)}</g>`),
  ];
  const colour = colours[index % colours.length];
  return points.length === 0 ? "" : `<g stroke="${colour}" fill="${colour}">${parts.join("")}</g>`;
}

export interface Box {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

const overlap = (a: Box, b: Box): number =>
  Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) *
  Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));

/** Where a label of `width` may stand around its point, the one that is asked for first, nearer ones before others. */
function places(x: number, y: number, width: number, side: Point["side"]): Box[] {
  const box = (left: number, base: number): Box => ({ left, right: left + width, top: base - 11, bottom: base + 3 });
  const around = [0, 14, 28].flatMap((far) => {
    const leftUp = box(x - 8 - width, y - 7 - far);
    const rightDown = box(x + 8, y + 15 + far);
    const others = [box(x + 8, y - 7 - far), box(x - 8 - width, y + 15 + far)];
    return side === "right" ? [rightDown, leftUp, ...others] : [leftUp, rightDown, ...others];
  });
  return [...around, box(x - width / 2, y - 12), box(x - width / 2, y + 22)];
}

/** Boxes for labels, in their order: each where it covers least of points, other labels, and what is beyond the chart. */
export function placeLabels(
  points: readonly { x: number; y: number; width: number; side?: Point["side"] }[],
  taken: readonly Box[],
  inside: Box,
): Box[] {
  const placed: Box[] = [];
  for (const { x, y, width, side } of points) {
    const covers = (box: Box) => {
      const area = width * 14 - overlap(box, inside);
      return [...taken, ...placed].reduce((sum, other) => sum + overlap(box, other), 2 * area);
    };
    const costs = places(x, y, width, side).map((box) => ({ box, cost: covers(box) }));
    // The first of equals is the nearest.
    placed.push(costs.reduce((best, each) => (each.cost < best.cost ? each : best)).box);
  }
  return placed;
}

/** With a rim, so that lines behind it do not cross the letters. */
function labels(points: readonly Point[], x: Place, y: Place, inside: Box, legend: Box): string[] {
  const rim = 'stroke="#fff" stroke-width="4" stroke-linejoin="round" paint-order="stroke" font-weight="bold"';
  const around = (p: Point): Box => ({ left: x(p.x) - 5, right: x(p.x) + 5, top: y(p.y) - 5, bottom: y(p.y) + 5 });
  const named = points.filter(({ label }) => label);
  const wanted = named.map((p) => ({
    x: x(p.x),
    y: y(p.y),
    width: 7 * (p.label?.length ?? 0),
    side: p.side ?? "left",
  }));
  const boxes = placeLabels(wanted, [...points.map(around), legend], inside);
  return named.map(({ label = "" }, i) => {
    const { left, bottom } = boxes[i] as Box;
    return text(left, bottom - 3, label, "start", rim);
  });
}

const marker = (index: number): string => markers[index % markers.length] as string;

const lineHeight = 19;

function legendBox({ series, legend = "bottom right" }: Chart): Box {
  const widest = Math.max(0, ...series.map(({ name }) => name.length));
  const box = { width: 54 + widest * 7, height: series.length * lineHeight + 10 };
  const left = legend.endsWith("left") ? inset.left + 12 : size.width - inset.right - box.width - 8;
  const top = legend.startsWith("top") ? inset.top + 8 : size.height - inset.bottom - box.height - 10;
  return { left, right: left + box.width, top, bottom: top + box.height };
}

function drawLegend(chart: Chart, names: readonly string[]): string {
  const { series } = chart;
  const { left, right, top, bottom } = legendBox(chart);
  const rows = series.map(({ name, dashed }, row) => {
    const index = names.indexOf(name);
    const colour = colours[index % colours.length];
    const dashes = dashed ? ' stroke-dasharray="6 4"' : "";
    const stroke = `<path d="M8 0H36" stroke="${colour}" stroke-width="2"${dashes}/>`;
    const sign = `<g transform="translate(22 0)" fill="${colour}">${marker(index)}</g>`;
    return `<g transform="translate(0 ${14 + row * lineHeight})">${stroke}${sign}${text(44, 4, name, "start")}</g>`;
  });
  const frame = `<rect width="${at(right - left)}" height="${bottom - top}" rx="4" fill="#fff" stroke="#ccc" opacity="0.9"/>`;
  return `<g transform="translate(${at(left)} ${top})">${frame}${rows.join("")}</g>`;
}

/** Where values lie between the two ends of an axis, and its ticks. */
function scale({ log, from, to }: Axis, values: readonly number[], [begin, end]: [number, number]) {
  const all = values.filter((v) => log === undefined || v > 0);
  let [low, high] = all.length > 0 ? [Math.min(...all), Math.max(...all)] : [1, 2];
  [low, high] = [from ?? low, to ?? high];
  // One value alone has room around it.
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 1, high + 1];
  const ticks = log ? logTicks(low, high, log) : linearTicks(low, high);
  // Ends that nobody set are ticks.
  if (!log) [low, high] = [from ?? (ticks[0] as number), to ?? (ticks.at(-1) as number)];
  const map = (value: number) => (log ? Math.log(value) : value);
  const share = (value: number) => (map(value) - map(low)) / (map(high) - map(low));
  return {
    ticks: ticks.filter((v) => v >= low && v <= high),
    at: (value: number) => begin + share(value) * (end - begin),
  };
}

/** About six multiples of 1, 2 or 5 times a power of ten; the outer ones enclose the values. */
export function linearTicks(low: number, high: number): number[] {
  const rough = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= rough) as number);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** All powers of 2, or 1, 2 and 5 times powers of 10, from low to high; where those are too few, as on other axes. */
export function logTicks(low: number, high: number, base: 2 | 10): number[] {
  const powers = (b: number) => {
    const [first, last] = [low, high].map((v) => Math.floor(Math.log(v) / Math.log(b))) as [number, number];
    return Array.from({ length: last - first + 1 }, (_, i) => b ** (first + i));
  };
  const within = (ticks: number[]) => ticks.filter((v) => v >= low * (1 - 1e-9) && v <= high * (1 + 1e-9));
  const ticks = within(base === 2 ? powers(2) : powers(10).flatMap((p) => [p, 2 * p, 5 * p]));
  return ticks.length > 3 ? ticks : within(linearTicks(low, high));
}

/** A coordinate, in hundredths. */
const at = (value: number): string => String(Math.round(value * 100) / 100);
const number = (value: number): string => String(Number(value.toPrecision(6)));

const line = (x1: number, y1: number, x2: number, y2: number): string =>
  `<path d="M${at(x1)} ${at(y1)}L${at(x2)} ${at(y2)}" stroke="#e4e4e4"/>`;

function text(x: number, y: number, words: string, anchor: "start" | "middle" | "end", more = ""): string {
  const escaped = words.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const rim = more.includes("stroke=") ? "" : ' stroke="none"';
  return `<text x="${at(x)}" y="${at(y)}" text-anchor="${anchor}" fill="#222"${rim}${more && ` ${more}`}>${escaped}</text>`;
}
