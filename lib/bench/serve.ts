// sdar bench serve: throughput against concurrency, beside what the bare forward of as many tokens allows.
import { writeFileSync } from "node:fs";
import { Command } from "commander";
import { type WeightFormat, weightFormats } from "../binding.js";
import { findCheckpoint, shippedModel } from "../checkpoint.js";
import type { Engine } from "../engine.js";
import { invalidOption } from "../errors.js";
import { drawCharts } from "../plot.js";
import { type NativeBench, openBench } from "./binding.js";
import { layersOption, oneOf, positive, whole, wholeList } from "./flags.js";
import {
  closedLoop,
  type ModelFlags,
  observe,
  randomTokens,
  sleep,
  type Window,
  withCheckpoint,
  withEngine,
} from "./load.js";
import { deliver, median, table } from "./report.js";

interface Flags extends ModelFlags {
  weights: WeightFormat;
  concurrency: number[];
  promptTokens: number;
  maxTokens: number;
  blockLength?: number;
  seconds: number;
  rounds: number;
  json?: boolean;
  out?: string | true;
  plot?: string;
}

export function serveCommand(): Command {
  return new Command("serve")
    .description("Throughput with 1 to 32 requests at a time, beside the bare forward of as many positions")
    .option("-m, --model <model>", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel)
    .option("--shape <name>", "random weights of this shape: sdar-1.7b, sdar-4b and others")
    .addOption(layersOption())
    .option("--weights <format>", weightFormats.join(", "), oneOf(...weightFormats), "int8" as const)
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1))
    .option("--concurrency <list>", "requests at a time", wholeList, [1, 2, 4, 8, 16, 32])
    .option("--prompt-tokens <n>", "tokens of each prompt, random", whole(1), 32)
    .option("-n, --max-tokens <n>", "tokens of each answer", whole(1), 128)
    .option("--block-length <n>", "positions denoised together (default: the checkpoint's)", whole(1))
    .option("--seconds <s>", "time for each concurrency in a round", positive, 4)
    .option("--rounds <n>", "rounds; each takes all concurrencies in turn", whole(1), 3)
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .option("--plot <file>", "draw tokens per second against concurrency, as SVG")
    .action(measure);
}

async function measure(flags: Flags): Promise<void> {
  const { json, out, plot, ...settings } = flags;
  await withCheckpoint(flags, async (path) => {
    const { weights, threads = 0, promptTokens, maxTokens } = flags;
    const maxConcurrent = Math.max(...flags.concurrency);
    await withEngine(path, { weights, threads: flags.threads, maxConcurrent }, async (engine) => {
      const { isa, parameters, layers, contextLength } = engine.model;
      const context = promptTokens + maxTokens;
      const tokens = Math.min(2048, contextLength - context);
      if (tokens < 1)
        throw invalidOption("max-tokens", maxTokens, `a context of at most ${contextLength - 1} with the prompt`);
      const bench = await openBench({ path: findCheckpoint(path), shape: "", weights, threads, context, tokens });
      try {
        const results = await allRounds(engine, bench, flags);
        if (!json) process.stdout.write(describe(flags, engine, results));
        if (plot) writeFileSync(plot, draw(flags, results));
        const described = { ...settings, isa, parameters, layers, threads: engine.model.threads };
        deliver("serve", { results, settings: described }, { json, out });
      } finally {
        bench.close();
      }
    });
  });
}

/** A window of a round, and what the bare forward of as many positions gives for as many tokens. */
interface Sample extends Window {
  bareMs: number;
  allowedTokensPerSecond: number;
  ofAllowed: number;
}

async function allRounds(engine: Engine, bench: NativeBench, flags: Flags) {
  const samples = new Map(flags.concurrency.map((c) => [c, [] as Sample[]]));
  for (let round = 0; round < flags.rounds; round++)
    for (const [concurrency, list] of samples) list.push(await measureOne(engine, bench, concurrency, flags));
  return [...samples].map(([concurrency, list]) => {
    const middle = (of: keyof Sample) => median(list.map((one) => one[of]));
    const rates = list.map((one) => one.tokensPerSecond);
    return {
      concurrency,
      tokensPerSecond: median(rates),
      minTokensPerSecond: Math.min(...rates),
      maxTokensPerSecond: Math.max(...rates),
      rows: middle("rows"),
      tokensPerStep: middle("tokens"),
      stepMs: middle("stepMs"),
      bareMs: middle("bareMs"),
      ofAllowed: middle("ofAllowed"),
      schedulerMicroseconds: middle("schedulerMicroseconds"),
      schedulerShare: middle("schedulerShare"),
      samples: list,
    };
  });
}

async function measureOne(engine: Engine, bench: NativeBench, concurrency: number, flags: Flags): Promise<Sample> {
  const { promptTokens, maxTokens, seconds } = flags;
  const blockLength = flags.blockLength ?? engine.model.blockLength;
  // Lengths differ, so that requests do not end all at once.
  const request = () => ({
    tokens: randomTokens(promptTokens, engine.model.vocabSize),
    maxTokens: Math.ceil(maxTokens * (0.75 + Math.random() / 2)),
    blockLength,
    ignoreEos: true,
  });
  const window = await closedLoop(engine, concurrency, request, async () => {
    await sleep(250 * seconds);
    return observe(engine, seconds);
  });
  // Behind as many positions as these requests had on average.
  const context = Math.floor((promptTokens + maxTokens / 2) / blockLength) * blockLength;
  const runs = Math.min(50, Math.max(5, Math.round((250 * seconds) / window.stepMs)));
  const bare = await bareSeconds(bench, window.rows, blockLength, context, runs);
  const allowedTokensPerSecond = window.tokens / bare;
  const ofAllowed = window.tokensPerSecond / allowedTokensPerSecond;
  return { ...window, bareMs: 1000 * bare, allowedTokensPerSecond, ofAllowed };
}

/** A forward of so many positions on average: between those of the whole blocks next to it. */
async function bareSeconds(bench: NativeBench, rows: number, block: number, context: number, runs: number) {
  const seconds = async (tokens: number) => {
    const options = { tokens, contexts: Int32Array.of(context), logits: false, limits: false, single: false };
    await bench.run({ ...options, runs: 2 });
    return median((await bench.run({ ...options, runs })).contexts[0]?.seconds ?? []);
  };
  const below = Math.max(1, Math.floor(rows / block)) * block;
  const low = await seconds(below);
  const high = await seconds(below + block);
  return low + ((high - low) * (rows - below)) / block;
}

type Result = Awaited<ReturnType<typeof allRounds>>[number];

const name = (flags: Flags) =>
  `${flags.shape ?? flags.model}${flags.layers > 0 ? `, ${flags.layers} layers` : ""}, ${flags.weights}`;

function describe(flags: Flags, engine: Engine, results: Result[]): string {
  const { isa, threads } = engine.model;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const head = [
    "concurrency",
    "tokens/s",
    "min",
    "max",
    "rows",
    "step ms",
    "bare ms",
    "of allowed",
    "scheduler µs",
    "of step",
  ];
  const rows = results.map((r) => [
    r.concurrency,
    r.tokensPerSecond.toFixed(1),
    r.minTokensPerSecond.toFixed(1),
    r.maxTokensPerSecond.toFixed(1),
    r.rows.toFixed(1),
    r.stepMs.toFixed(3),
    r.bareMs.toFixed(3),
    percent(r.ofAllowed),
    r.schedulerMicroseconds.toFixed(0),
    percent(r.schedulerShare),
  ]);
  return `${name(flags)}; ${isa}, ${threads} threads; prompts of ${flags.promptTokens} tokens, answers of about ${flags.maxTokens}
rows: positions in a step; bare: a forward of so many by itself, measured in turns; of allowed: tokens per second over
tokens per step / bare; medians of ${flags.rounds} rounds
${table([head, ...rows])}`;
}

function draw(flags: Flags, results: Result[]): string {
  const line = (rate: (result: Result) => number) => results.map((r) => ({ x: r.concurrency, y: rate(r) }));
  const engine = results.map((r) => ({
    x: r.concurrency,
    y: r.tokensPerSecond,
    low: r.minTokensPerSecond,
    high: r.maxTokensPerSecond,
  }));
  return drawCharts([
    {
      title: `${name(flags)}: throughput`,
      x: { label: "requests at a time", log: 2 },
      y: { label: "tokens per second", from: 0 },
      series: [
        { name: "engine", points: engine },
        { name: "bare forward", dashed: true, points: line((r) => r.tokensPerSecond / r.ofAllowed) },
      ],
    },
  ]);
}
