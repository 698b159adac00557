// sdar bench dial: accuracy against forwards of every denoising strategy over its settings, on the half of the samples on
// which settings were chosen and on the other half.
import { Command, Option } from "commander";
import { weightFormats } from "../binding.js";
import { shippedModel } from "../checkpoint.js";
import { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import { type Chart, writeCharts } from "../plot.js";
import { presets } from "../quality.js";
import type { DenoiseOptions, LoadOptions, Strategy } from "../types.js";
import { oneOf, someOf, whole } from "./flags.js";
import { readSamples, type Sample } from "./prompts.js";
import { deliver, sum, table } from "./report.js";
import { type Comparison, compareWithCurve, type Interval, type Outcome, wilson } from "./statistics.js";

/** What each strategy is tried with. */
const dials = {
  low_confidence_dynamic: {
    option: "threshold",
    values: [0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999],
  },
  pairwise_factor: { option: "factor", values: [20, 15, 10, 7, 5, 4, 3, 2, 1.5, 1, 0.5, 0.2, 0.1, 0.05] },
  entropy_bounded: { option: "entropyBound", values: [4, 3, 2, 1.4, 1, 0.7, 0.5, 0.35, 0.2, 0.1, 0.05] },
  self_verified: { option: "threshold", values: [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1] },
  low_confidence_static: { option: "steps", values: [1, 2, 3, 4, 8] },
  sequential: { option: "steps", values: [1, 2, 3, 4, 8] },
} as const satisfies Record<Strategy, { option: keyof DenoiseOptions; values: readonly number[] }>;

const strategyNames = Object.keys(dials) as Strategy[];
/** The strategy that the others are compared with, and its default. */
const baseline = "low_confidence_dynamic";
const named: [string, DenoiseOptions][] = [
  ["default", { strategy: baseline, threshold: 0.9 }],
  ...Object.entries(presets),
];
/** Generations in flight. */
const concurrency = 64;

interface Flags {
  model: string;
  device: NonNullable<LoadOptions["device"]>;
  prompts?: string;
  limit?: number;
  strategies: Strategy[];
  weights: NonNullable<LoadOptions["weights"]>;
  threads?: number;
  isa?: string;
  blockLength?: number;
  maxTokens: number;
  svg?: string;
  json?: boolean;
  out?: string | true;
}

export function dialCommand(): Command {
  return new Command("dial")
    .description("Accuracy against forwards of the denoising strategies, on both halves of the samples")
    .option("-m, --model <model>", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel)
    .option("--prompts <file>", "JSON lines with prompt and answer (default: the repository's held-out samples)")
    .option("--limit <n>", "most prompts to run, at least 2", whole(2))
    .addOption(
      new Option("--strategies <list>", "which to run")
        .argParser(someOf(...strategyNames))
        .default(strategyNames, "all"),
    )
    .option("--weights <format>", "auto, f32, bf16, int8, int4", oneOf("auto", ...weightFormats), "auto")
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1))
    .option("--device <name>", "auto, cpu, cuda or cuda:N", "cpu")
    .option("--isa <name>", "instruction set (default: SDAR_ISA, else the best)")
    .option("--block-length <n>", "positions denoised together (default: the checkpoint's)", whole(1))
    .option("-n, --max-tokens <n>", "most tokens of an answer", whole(1), 256)
    .option("--svg <file>", "draw the curves")
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .action(measure);
}

async function measure(flags: Flags): Promise<void> {
  const { model, device, weights, threads, isa, json, out, svg, limit, prompts, strategies, ...rest } = flags;
  const samples = readSamples(prompts, limit);
  if (samples.length < 2 || samples.some(({ answer }) => answer === undefined)) {
    throw new SdarError("INVALID_OPTION", "--prompts: give at least two prompts, each with its answer");
  }
  await using engine = await Engine.load(model, { device, weights, threads, isa });
  const blockLength = flags.blockLength ?? engine.model.blockLength;
  const settings = settingsOf(strategies, blockLength);
  const measured: Measured[] = [];
  for (const setting of settings) {
    measured.push({ ...setting, ...(await answer(engine, samples, setting.denoise, flags)) });
    if (process.stderr.isTTY) process.stderr.write(`\r${measured.length} of ${settings.length} settings `);
  }
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  const results = judge(measured);
  const info = engine.model;
  const more = { model: info.path, device: info.device, weights: info.weights, isa: info.isa, threads: info.threads };
  const report = { results, settings: { ...more, ...rest, blockLength, prompts: samples.length } };
  if (!json) process.stdout.write(describe(results, samples.length));
  if (svg !== undefined) writeCharts(svg, charts(results, samples.length));
  deliver("dial", report, { json, out });
}

interface Setting {
  strategy: Strategy;
  option: keyof DenoiseOptions;
  value: number;
  /** which default or `quality` this is */
  name?: string;
  denoise: DenoiseOptions;
}

function settingsOf(strategies: readonly Strategy[], blockLength: number): Setting[] {
  return strategies.flatMap((strategy) => {
    const { option, values } = dials[strategy];
    // As many steps as positions is the most there is.
    const some = option === "steps" ? values.filter((n) => n < blockLength).concat(blockLength as 1) : values;
    return some.map((value): Setting => {
      const name = named.find(([, other]) => other.strategy === strategy && other[option] === value)?.[0];
      return { strategy, option, value, ...(name && { name }), denoise: { strategy, [option]: value } };
    });
  });
}

interface Measured extends Setting, Outcome {
  tokens: number;
}

/** All samples, many at a time. */
async function answer(engine: Engine, samples: readonly Sample[], denoise: DenoiseOptions, flags: Flags) {
  const { blockLength, maxTokens } = flags;
  const right = new Uint8Array(samples.length);
  const forwards = new Float64Array(samples.length);
  let [next, tokens] = [0, 0];
  const worker = async () => {
    for (let i = next++; i < samples.length; i = next++) {
      const { prompt, answer } = samples[i] as Sample;
      const input = engine.model.hasChatTemplate ? { messages: [{ role: "user", content: prompt }] } : { prompt };
      const { text, usage } = await engine.generate({ ...input, denoise, blockLength, maxTokens }).result();
      right[i] = text === answer ? 1 : 0;
      forwards[i] = usage.forwards;
      tokens += usage.completionTokens;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return { right, forwards, tokens };
}

/** Of one half of the samples; accuracies in percent. */
interface Half extends Partial<Comparison> {
  forwards: number;
  accuracy: number;
  accuracyInterval: Interval;
}

interface Result extends Omit<Setting, "denoise" | "option" | "value"> {
  setting: Record<string, number>;
  tokensPerForward: number;
  tuning: Half;
  other: Half;
}

/** To thousandths. */
function rounded(half: Half): Half {
  return JSON.parse(JSON.stringify(half, (_, v) => (typeof v === "number" ? Math.round(1000 * v) / 1000 : v)));
}

/** Even samples are for tuning. */
function judge(measured: readonly Measured[]): Result[] {
  const [tuning, other] = [0, 1].map((parity) => {
    const halves = measured.map((one) => {
      const mine = (_: number, index: number) => index % 2 === parity;
      return { strategy: one.strategy, right: one.right.filter(mine), forwards: one.forwards.filter(mine) };
    });
    const curve = halves.filter(({ strategy }) => strategy === baseline);
    const compared = curve.length > 1 ? compareWithCurve(halves, curve) : [];
    return halves.map(({ strategy, right, forwards }, i): Half => {
      const [hits, of] = [sum(right), right.length];
      const [low, high] = wilson(hits, of);
      return rounded({
        forwards: sum(forwards) / of,
        accuracy: (100 * hits) / of,
        accuracyInterval: [100 * low, 100 * high],
        ...(strategy === baseline ? {} : compared[i]),
      });
    });
  }) as [Half[], Half[]];
  return measured.map(({ strategy, option, value, name, tokens, forwards }, i) => ({
    strategy,
    setting: { [option]: value },
    ...(name && { name }),
    tokensPerForward: Math.round((1000 * tokens) / sum(forwards)) / 1000,
    tuning: tuning[i] as Half,
    other: other[i] as Half,
  }));
}

function describe(results: readonly Result[], prompts: number): string {
  const half = ({ forwards, accuracy, accuracyInterval, points, pointsInterval }: Half) => [
    forwards.toFixed(2),
    accuracy.toFixed(1),
    range(accuracyInterval),
    points === undefined || pointsInterval === undefined ? "" : `${signed(points)} (${range(pointsInterval)})`,
  ];
  const columns = ["forwards", "right %", "95 %", "over dynamic"];
  const head = ["strategy", "setting", "is", "tokens/forward", ...columns, ...columns];
  const rows = results.map(({ strategy, setting, name, tokensPerForward, tuning, other }) => {
    const [[option, value]] = Object.entries(setting) as [[string, number]];
    const start = [strategy, `${option} ${value}`, name ?? "", tokensPerForward.toFixed(2)];
    return [...start, ...half(tuning), ...half(other)];
  });
  return [
    `${prompts} prompts: first those of even index, on which settings were chosen, then the others\n`,
    "forwards: denoising steps an answer; over dynamic: points more than low_confidence_dynamic is right\n",
    "at as many forwards, with its interval of 95 % by paired bootstrap\n",
    table([head, ...rows]),
  ].join("");
}

const signed = (points: number) => `${points < 0 ? "" : "+"}${points.toFixed(1)}`;
const range = ([low, high]: Interval) => `${low.toFixed(1)} to ${high.toFixed(1)}`;

/** The other half's curves, and on both halves what pairwise_factor is above low_confidence_dynamic. */
function charts(results: readonly Result[], prompts: number): Chart[] {
  const strategies = [...new Set(results.map(({ strategy }) => strategy))];
  const of = (strategy: Strategy) =>
    results.filter((r) => r.strategy === strategy).sort((a, b) => a.other.forwards - b.other.forwards);
  const others = Math.floor(prompts / 2);
  const gain = (half: "tuning" | "other") =>
    of("pairwise_factor")
      .map((r) => r[half])
      .flatMap(({ forwards: x, points: y, pointsInterval: [low, high] = [0, 0] }) =>
        y === undefined ? [] : [{ x, y, low, high }],
      );
  const label = "forwards per answer";
  const adaptive = results.filter(({ setting }) => setting.steps === undefined);
  const accuracy: Chart = {
    title: `Right answers, ${others} samples not used for tuning`,
    // One position a step takes so many more that it would crowd the others.
    x: { label, log: 10, ...(adaptive.length > 0 && { to: Math.max(...adaptive.map((r) => r.other.forwards)) }) },
    y: { label: "right answers, %" },
    series: strategies.map((strategy) => ({
      name: strategy,
      points: of(strategy).map(({ other, name }) => ({
        x: other.forwards,
        y: other.accuracy,
        ...(name && { label: name, side: name === "default" ? "right" : "left" }),
      })),
    })),
  };
  const difference: Chart = {
    title: "Gain over low_confidence_dynamic at equal forwards",
    x: { label, log: 10 },
    y: { label: "points of accuracy, with 95 % intervals" },
    series: [
      { name: "pairwise_factor", points: gain("other") },
      { name: "pairwise_factor, tuning samples", points: gain("tuning"), dashed: true },
    ],
    legend: "top right",
  };
  return difference.series.some(({ points }) => points.length > 0) ? [accuracy, difference] : [accuracy];
}
