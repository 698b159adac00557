// sdar bench compare: an SDAR model beside its autoregressive parent, and beside the parent with SDAR drafting for it: the
// same prompts, one at a time, in turns.
import { Command } from "commander";
import { type Decoding, weightFormats } from "../binding.js";
import { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import { type Chart, writeCharts } from "../plot.js";
import { strategyOf } from "../quality.js";
import { isAborted } from "../signals.js";
import type { DenoiseOptions, LoadOptions, Strategy } from "../types.js";
import { type AnswerOptions, summarise, type Timed, timeAnswer } from "./answers.js";
import { oneOf, positive, type StrategyName, strategyName, strategyNames, whole } from "./flags.js";
import { readSamples, type Sample } from "./prompts.js";
import { deliver, sum, table } from "./report.js";
import { type Interval, middle, resamples, wilson } from "./statistics.js";

interface Flags {
  sdar: string;
  ar: string;
  lossless?: boolean;
  onlyIfFaster?: boolean;
  device: NonNullable<LoadOptions["device"]>;
  prompts?: string;
  limit?: number;
  weights: NonNullable<LoadOptions["weights"]>;
  threads?: number;
  isa?: string;
  strategy: StrategyName;
  threshold?: number;
  blockLength?: number;
  maxTokens: number;
  svg?: string;
  json?: boolean;
  out?: string | true;
}

export function compareCommand(): Command {
  return new Command("compare")
    .description("Compares an SDAR model with its autoregressive parent: accuracy, times, tokens per second, forwards")
    .requiredOption("--sdar <model>", "checkpoint of the model that denoises blocks")
    .requiredOption("--ar <model>", "checkpoint of its autoregressive parent")
    .option(
      "--lossless",
      "also the parent with the SDAR model drafting for it: the parent's own tokens in fewer forwards",
    )
    .option(
      "--only-if-faster",
      "with --lossless: draft only while requests that are drafted for take less time a token",
    )
    .option("--prompts <file>", "JSON lines with prompt and answer (default: the repository's held-out samples)")
    .option("--limit <n>", "most prompts to run", whole(1))
    .option("--weights <format>", "auto, f32, bf16, int8, int4", oneOf("auto", ...weightFormats), "auto")
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1))
    .option("--device <name>", "auto, cpu, cuda or cuda:N", "cpu")
    .option("--isa <name>", "instruction set (default: SDAR_ISA, else the best)")
    .option("--strategy <name>", `the SDAR model's: ${strategyNames.join(", ")}`, strategyName, "dynamic")
    .option("--threshold <p>", "confidence above which dynamic fills (default: 0.9)", positive)
    .option("--block-length <n>", "positions denoised together (default: the checkpoint's)", whole(1))
    .option("-n, --max-tokens <n>", "most tokens of an answer", whole(1), 256)
    .option("--svg <file>", "draw accuracy against tokens per second and against forwards")
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .action(measure);
}

export interface Side {
  name: string;
  engine: Engine;
  options: AnswerOptions;
}

async function measure(flags: Flags): Promise<void> {
  const { json, out, svg, limit, prompts, sdar, ar, device, weights, threads, isa, ...rest } = flags;
  const samples = readSamples(prompts, limit);
  const load = { device, weights, threads, isa };
  await using parent = await Engine.load(ar, load);
  await using child = await Engine.load(sdar, load);
  const draft = { path: sdar, weights, onlyIfFaster: flags.onlyIfFaster };
  await using both = flags.lossless ? await Engine.load(ar, { ...load, draft }) : undefined;
  expect("--ar", parent, "autoregressive");
  expect("--sdar", child, "block_diffusion");
  const { threshold, blockLength, maxTokens } = flags;
  const denoise: DenoiseOptions = { strategy: strategyOf(flags.strategy) as Strategy, threshold };
  const sides: Side[] = [
    { name: "parent", engine: parent, options: { maxTokens } },
    { name: "SDAR", engine: child, options: { maxTokens, denoise, blockLength } },
    ...(both ? [{ name: "lossless", engine: both, options: { maxTokens } }] : []),
  ];
  const timed = await runAll(sides, samples);
  const results = sides.map(({ name }, i) => ({
    name,
    ...summarise(samples, timed[i] as Timed[]),
    ...intervals(samples, timed[i] as Timed[], timed[0] as Timed[]),
  }));
  const info = ({ model }: Engine) => ({ path: model.path, parameters: model.parameters, weights: model.weights });
  const settings = {
    ...{ parent: info(parent), sdar: info(child), device: parent.model.device, isa: parent.model.isa },
    ...{ threads: parent.model.threads, prompts: samples.length, ...rest },
  };
  if (!json) process.stdout.write(describe(results, settings));
  if (svg !== undefined) writeCharts(svg, charts(results));
  deliver("compare", { results, settings }, { json, out });
}

function expect(option: string, { model }: Engine, decoding: Decoding): void {
  if (model.decoding === decoding) return;
  const message = `${option}: ${model.path} is ${model.decoding}; give a checkpoint that is ${decoding}`;
  throw new SdarError("INVALID_OPTION", message, { option, allowed: `a checkpoint that is ${decoding}` });
}

/** Each sample on each side, in turns; whose turn comes first changes from prompt to prompt. Rejects with ABORTED. */
export async function runAll(
  sides: readonly Side[],
  samples: readonly Sample[],
  signal?: AbortSignal,
): Promise<Timed[][]> {
  for (const { engine, options } of sides) await timeAnswer(engine, samples[0] as Sample, options);
  const timed: Timed[][] = sides.map(() => []);
  for (const [index, sample] of samples.entries()) {
    for (let turn = 0; turn < sides.length; turn++) {
      const at = (index + turn) % sides.length;
      const { engine, options } = sides[at] as Side;
      if (isAborted(signal))
        throw new SdarError("ABORTED", "aborted while prompts were answered; the same call answers them again");
      timed[at]?.push(await timeAnswer(engine, sample, options));
    }
  }
  return timed;
}

/**
 * Of 95 %: accuracy by Wilson's, and by resampled prompts, the same ones for both sides, what a side has of the parent's
 * tokens per second, time per answer and accuracy.
 */
export function intervals(samples: readonly Sample[], own: readonly Timed[], parent: readonly Timed[]) {
  const right = (timed: readonly Timed[]) =>
    timed.map(({ text }, i) => (samples[i]?.answer === undefined ? Number.NaN : Number(text === samples[i]?.answer)));
  const judged = right(own).filter((one) => !Number.isNaN(one));
  const draws = [new Uint16Array(samples.length).fill(1), ...resamples(samples.length, 1000)];
  const ratio = (
    of: (timed: readonly Timed[], times: Uint16Array) => number,
  ): { value: number; interval: Interval } => {
    const values = draws.map((times) => of(own, times) / of(parent, times));
    return { value: values[0] as number, interval: middle(values.slice(1)) };
  };
  const total = (values: readonly number[], times: Uint16Array) =>
    sum(values.map((value, i) => (Number.isNaN(value) ? 0 : value * (times[i] as number))));
  const column = (timed: readonly Timed[], of: "tokens" | "seconds") => timed.map((one) => one[of]);
  return {
    accuracyInterval: judged.length > 0 ? wilson(sum(judged), judged.length).map((share) => 100 * share) : undefined,
    ofParent: {
      tokensPerSecond: ratio(
        (timed, times) => total(column(timed, "tokens"), times) / total(column(timed, "seconds"), times),
      ),
      secondsPerAnswer: ratio((timed, times) => total(column(timed, "seconds"), times)),
      accuracy: judged.length > 0 ? ratio((timed, times) => total(right(timed), times)) : undefined,
    },
    sameTextAsParent: own.filter(({ text }, i) => text === parent[i]?.text).length / own.length,
  };
}

type Result = { name: string } & ReturnType<typeof summarise> & ReturnType<typeof intervals>;

function describe(
  results: readonly Result[],
  settings: {
    parent: { path: string; weights: string };
    sdar: { path: string };
    isa: string;
    threads: number;
    prompts: number;
  },
): string {
  const percent = (of: { value: number; interval: Interval } | undefined) =>
    of ? `${(100 * of.value).toFixed(1)} (${of.interval.map((end) => (100 * end).toFixed(1)).join("-")})` : "";
  const times = ({ value, interval }: { value: number; interval: Interval }) =>
    `${value.toFixed(2)} (${interval.map((end) => end.toFixed(2)).join("-")})`;
  const head = ["", "right %", "of parent's %", "tokens/s", "x parent's", "answer ms", "first token ms"];
  const rows = results.map((r) => [
    ...[r.name, accuracyOf(r), percent(r.ofParent.accuracy), r.tokensPerSecond.toFixed(1)],
    ...[times(r.ofParent.tokensPerSecond), r.ms.toFixed(2), r.firstTokenMs.toFixed(2)],
    ...[`${r.forwards}`, r.tokensPerForward.toFixed(2), (100 * r.sameTextAsParent).toFixed(1)],
  ]);
  const { parent, sdar, isa, threads, prompts } = settings;
  return [
    `parent ${parent.path}, SDAR ${sdar.path}: ${parent.weights}, ${isa}, ${threads} threads; ${prompts} prompts, one at a time, in turns\n`,
    table([[...head, "forwards", "tokens/forward", "same text %"], ...rows]),
    "in brackets 95 % intervals\n",
  ].join("");
}

function accuracyOf({ accuracy, accuracyInterval }: Result): string {
  const ends = accuracyInterval?.map((end) => end.toFixed(1)).join("-");
  return ends === undefined ? "" : `${accuracy.all?.toFixed(1)} (${ends})`;
}

function charts(results: readonly Result[]): Chart[] {
  const of = (title: string, label: string, x: (r: Result) => number): Chart => ({
    title,
    x: { label, from: 0 },
    y: { label: "right answers, %" },
    series: results.map((r) => {
      const [low, high] = r.accuracyInterval ?? [];
      return { name: r.name, points: [{ x: x(r), y: r.accuracy.all ?? 0, low, high, label: r.name }] };
    }),
  });
  return [
    of("Accuracy and speed", "tokens per second, one request at a time", (r) => r.tokensPerSecond),
    of("Accuracy and forwards", "tokens per forward", (r) => r.tokensPerForward),
  ];
}
