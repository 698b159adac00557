// What sdar bench adapt finds out about the models that it made: each answers the held-out samples, one at a time, in turns.
import { Engine } from "../engine.js";
import type { Chart } from "../plot.js";
import type { Adapted, Models, Trained } from "./adapt-runs.js";
import { summarise, type Timed } from "./answers.js";
import { intervals, runAll, type Side } from "./compare.js";
import type { Sample } from "./prompts.js";
import { table } from "./report.js";
import { type Interval, pairedDifference } from "./statistics.js";

/** Most tokens of an answer. */
const maxTokens = 256;

type Of = ReturnType<typeof summarise> & ReturnType<typeof intervals>;

/** A model alone, or with `lossless` the parent with an adapted model as its draft. Accuracies are in percent. */
export interface Result extends Of {
  name: string;
  kind: "parent" | "adapted" | "lossless";
  /** position-passes of its training over the parent's, as asked for and as it came out; 0 for the parent */
  wanted: number;
  share: number;
  /** points of accuracy above the parent's, on the same samples */
  difference: { points: number; interval: Interval };
  /** share of the samples whose tokens are the parent's */
  sameTokensAsParent: number;
  training: Trained;
}

type Entry = Side & Pick<Result, "kind" | "wanted" | "share" | "training">;

const percent = (share: number) => `${Number((100 * share).toPrecision(3))} %`;

export async function evaluate(
  models: Models,
  samples: readonly Sample[],
  { threads, signal }: { threads?: number; signal?: AbortSignal },
): Promise<Result[]> {
  const { parent, adapted } = models;
  const load = { device: "cpu", threads } as const;
  const entries: Entry[] = [];
  const add = async (kind: Entry["kind"], path: string, training: Trained | Adapted, draft?: { path: string }) => {
    const { wanted, share } = "share" in training ? training : { wanted: 0, share: 0 };
    const name = kind === "parent" ? kind : `${kind === "adapted" ? "SDAR" : kind} ${percent(wanted)}`;
    const engine = await Engine.load(path, draft ? { ...load, draft } : load);
    entries.push({ kind, name, engine, options: { maxTokens }, wanted, share, training });
  };
  try {
    await add("parent", parent.folder, parent);
    for (const one of adapted) await add("adapted", one.folder, one);
    for (const one of adapted) await add("lossless", parent.folder, one, { path: one.folder });
    return judge(entries, await runAll(entries, samples, signal), samples);
  } finally {
    await Promise.all(entries.map(({ engine }) => engine.dispose()));
  }
}

function judge(entries: readonly Entry[], timed: readonly Timed[][], samples: readonly Sample[]): Result[] {
  const [first] = timed as [Timed[]];
  const right = (all: readonly Timed[]) => Uint8Array.from(all, ({ text }, i) => Number(text === samples[i]?.answer));
  return entries.map(({ engine: _, options: __, ...entry }, i) => {
    const mine = timed[i] as Timed[];
    const same = mine.filter(({ ids }, at) => ids.join() === first[at]?.ids.join());
    return {
      ...entry,
      ...summarise(samples, mine),
      ...intervals(samples, mine, first),
      difference: pairedDifference(right(mine), right(first)),
      sameTokensAsParent: same.length / mine.length,
    };
  });
}

export function describe({ parent }: Models, results: readonly Result[], prompts: number): string {
  const [own] = results as [Result];
  const tasks = Object.keys(own.accuracy).filter((task) => task !== "all");
  const range = (ends: readonly number[] = []) => ends.map((end) => end.toFixed(1)).join(" to ");
  const signed = (points: number) => `${points < 0 ? "" : "+"}${points.toFixed(1)}`;
  const head = ["", "compute %", "right % (95 %)", "over parent (95 %)", ...tasks.map((task) => `${task} %`)];
  const rows = results.map((r) => [
    ...[r.name, r.kind === "adapted" ? (100 * r.share).toFixed(2) : ""],
    `${r.accuracy.all?.toFixed(1)} (${range(r.accuracyInterval)})`,
    r.kind === "adapted" ? `${signed(r.difference.points)} (${range(r.difference.interval)})` : "",
    ...tasks.map((task) => r.accuracy[task]?.toFixed(1) ?? ""),
    ...[r.tokensPerForward.toFixed(2), r.tokensPerSecond.toFixed(0), r.ms.toFixed(2)],
    (100 * r.sameTokensAsParent).toFixed(1),
  ]);
  const more = ["tokens/forward", "tokens/s", "answer ms", "same tokens %"];
  const million = (n: number) => `${(n / 1e6).toPrecision(3)} million`;
  return [
    `parent: ${million(parent.rows)} position-passes in ${parent.steps} steps, ${(parent.seconds / 60).toFixed(1)} minutes; `,
    `${prompts} prompts, one at a time, in turns\n`,
    table([[...head, ...more], ...rows]),
    "compute: position-passes of the adaptation, forward and backward, over the parent's; over parent: points, same prompts;\n",
    "lossless: the parent with the SDAR model drafting for it; same tokens: as the parent writes\n",
  ].join("");
}

export function charts(results: readonly Result[]): Chart[] {
  const of = (kind: Result["kind"]) => results.filter((r) => r.kind === kind);
  const [parent] = results as [Result];
  const adapted = of("adapted").sort((a, b) => a.share - b.share);
  const point = (r: Result, x: number, label?: string) => {
    const [low, high] = r.accuracyInterval ?? [];
    return { x, y: r.accuracy.all ?? 0, low, high, ...(label && { label }) };
  };
  const most = 100 * Math.max(...adapted.map(({ share }) => share));
  const y = { label: "right answers, %" };
  const cost: Chart = {
    title: "Accuracy and compute spent on adaptation",
    x: { label: "position-passes of the adaptation, % of the parent's", from: 0, to: 1.1 * most },
    y,
    series: [
      { name: "parent", points: [point(parent, 0), point(parent, 1.1 * most)], dashed: true },
      { name: "SDAR", points: adapted.map((r) => point(r, 100 * r.share)) },
    ],
  };
  const speed: Chart = {
    title: "Accuracy and forwards",
    x: { label: "tokens per forward", from: 0 },
    y,
    series: [
      { name: "parent", points: [point(parent, parent.tokensPerForward)] },
      { name: "SDAR", points: adapted.map((r) => point(r, r.tokensPerForward, percent(r.wanted))) },
      { name: "lossless", points: of("lossless").map((r) => point(r, r.tokensPerForward, percent(r.wanted))) },
    ],
  };
  return [cost, speed];
}

export interface Bounds {
  /** points of accuracy below the parent's */
  mostLost?: number;
  leastTokensPerForward?: number;
}

/** Where the model that was adapted most falls below a bound, and where drafts changed tokens. */
export function shortfalls(results: readonly Result[], { mostLost, leastTokensPerForward }: Bounds): string[] {
  const adapted = results.filter(({ kind }) => kind === "adapted");
  const last = adapted.reduce((best, each) => (each.share > best.share ? each : best));
  const { name, difference, tokensPerForward } = last;
  const all = results
    .filter(({ kind, sameTokensAsParent }) => kind === "lossless" && sameTokensAsParent < 1)
    .map((r) => `${r.name}: ${percent(r.sameTokensAsParent)} of the answers have the parent's tokens, not all`);
  if (mostLost !== undefined && difference.points < -mostLost)
    all.push(`${name}: ${(-difference.points).toFixed(1)} points below the parent; at most ${mostLost} are allowed`);
  if (leastTokensPerForward !== undefined && tokensPerForward < leastTokensPerForward)
    all.push(
      `${name}: ${tokensPerForward.toFixed(2)} tokens per forward; at least ${leastTokensPerForward} are wanted`,
    );
  return all;
}
