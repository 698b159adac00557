// sdar bench latency: what a prompt seen before saves, what a long prompt costs the others, what a blocked event loop costs.
import { Command } from "commander";
import { type WeightFormat, weightFormats } from "../binding.js";
import { shippedModel } from "../checkpoint.js";
import type { Engine } from "../engine.js";
import { layersOption, oneOf, positive, whole } from "./flags.js";
import { closedLoop, type ModelFlags, observe, randomTokens, sleep, withCheckpoint, withEngine } from "./load.js";
import { deliver, median } from "./report.js";

interface Flags extends ModelFlags {
  weights: WeightFormat;
  prefixTokens: number;
  longPrompt: number;
  concurrency: number;
  rounds: number;
  seconds: number;
  json?: boolean;
  out?: string | true;
}

export function latencyCommand(): Command {
  return new Command("latency")
    .description("What a known prompt saves, what a long prompt costs others, what a blocked event loop costs")
    .option("-m, --model <model>", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel)
    .option("--shape <name>", "random weights of this shape: sdar-1.7b, sdar-4b and others")
    .addOption(layersOption())
    .option("--weights <format>", weightFormats.join(", "), oneOf(...weightFormats), "int8" as const)
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1))
    .option(
      "--prefix-tokens <n>",
      "tokens of the prompt that is seen twice, as far as the context has room",
      whole(1),
      2000,
    )
    .option("--long-prompt <n>", "tokens of the prompt that enters beside running requests, the same", whole(1), 4000)
    .option("--concurrency <n>", "running requests", whole(1), 16)
    .option("--rounds <n>", "times each is measured", whole(1), 5)
    .option("--seconds <s>", "time of each window of throughput", positive, 4)
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .action(measure);
}

async function measure(flags: Flags): Promise<void> {
  const { json, out, ...settings } = flags;
  await withCheckpoint(flags, async (path) => {
    const { weights, threads, concurrency } = flags;
    const results = await withEngine(path, { weights, threads, maxConcurrent: concurrency + 1 }, async (engine) => [
      { name: "prefix", ...(await knownPrefix(engine, path, flags)) },
      { name: "prompt", ...(await longPrompt(engine, flags)) },
      { name: "blocked", ...(await blockedLoop(engine, flags)) },
    ]);
    if (!json) process.stdout.write(results.map(describe).join(""));
    deliver("latency", { results, settings }, { json, out });
  });
}

type Value = number | boolean | number[];

function describe({ name, ...numbers }: { name: string; [more: string]: Value | string }): string {
  const shown = (value: Value | string) =>
    Array.isArray(value)
      ? value.map((v) => v.toFixed(2)).join(", ")
      : typeof value === "number"
        ? value.toFixed(2)
        : value;
  return `${name}\n${Object.entries(numbers)
    .map(([key, value]) => `  ${key.padEnd(28)} ${shown(value)}\n`)
    .join("")}`;
}

const answerTokens = 16;

/** Milliseconds until the first token, and which tokens came. */
async function firstToken(engine: Engine, tokens: number[]) {
  const began = performance.now();
  let first: number | undefined;
  const run = engine.generate({ tokens, maxTokens: answerTokens, ignoreEos: true });
  for await (const chunk of run) if (chunk.tokens.length > 0) first ??= performance.now();
  const { usage, tokens: generated } = await run.result();
  return { ms: (first ?? Number.NaN) - began, cached: usage.cachedTokens, ids: generated.map(({ id }) => id).join() };
}

/** A prompt for the first and the second time, in turns with another of the same length; tokens beside a cacheless engine's. */
async function knownPrefix(engine: Engine, path: string, { prefixTokens, rounds, weights, threads }: Flags) {
  const { contextLength, blockLength, vocabSize } = engine.model;
  const length = Math.min(prefixTokens, contextLength - blockLength - answerTokens);
  const cold: number[] = [];
  const warm: number[] = [];
  const cached = new Set<number>();
  const outcomes: { prompt: number[]; ids: string }[] = [];
  for (let round = 0; round < rounds; round++) {
    const prompt = randomTokens(length, vocabSize);
    const first = await firstToken(engine, prompt);
    const second = await firstToken(engine, prompt);
    cold.push(first.ms);
    warm.push(second.ms);
    cached.add(second.cached);
    outcomes.push({ prompt, ids: second.ids });
  }
  const same = await withEngine(path, { weights, threads, prefixCache: false }, async (plain) => {
    const { prompt, ids } = outcomes[0] as (typeof outcomes)[0];
    return (await firstToken(plain, prompt)).ids === ids;
  });
  return {
    promptTokens: length,
    coldMs: median(cold),
    warmMs: median(warm),
    ratio: median(cold.map((ms, i) => ms / (warm[i] ?? Number.NaN))),
    cachedTokens: [...cached],
    sameTokensWithoutCache: same,
  };
}

/** Time between tokens of running requests: before, and while a long prompt enters. */
async function longPrompt(engine: Engine, flags: Flags) {
  const { concurrency, rounds } = flags;
  const block = engine.model.blockLength;
  const { contextLength, vocabSize } = engine.model;
  const length = Math.min(flags.longPrompt, contextLength - 2 * block);
  const before: number[] = [];
  const during: number[] = [];
  const worst: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const controller = new AbortController();
    let gaps: number[] = [];
    const watch = async () => {
      const request = { tokens: randomTokens(32, vocabSize), ignoreEos: true, signal: controller.signal };
      let last: number | undefined;
      // One token a step: every gap is a step.
      for await (const chunk of engine.generate({ ...request, denoise: { strategy: "sequential" } })) {
        if (chunk.tokens.length === 0) continue;
        const now = performance.now();
        if (last !== undefined) gaps.push(now - last);
        last = now;
      }
    };
    const watched = Array.from({ length: concurrency }, watch);
    while (gaps.length < 40 * concurrency) await sleep(10);
    before.push(median(gaps.slice(gaps.length / 2)));
    gaps = [];
    await firstToken(engine, randomTokens(length, vocabSize));
    during.push(median(gaps));
    worst.push(percentile(gaps, 0.99));
    controller.abort();
    await Promise.all(watched);
  }
  return {
    promptTokens: length,
    runningRequests: concurrency,
    msBetweenTokens: median(before),
    msWhilePromptEnters: median(during),
    ratio: median(during.map((ms, i) => ms / (before[i] ?? Number.NaN))),
    ratioOfPercentile99: median(worst.map((ms, i) => ms / (before[i] ?? Number.NaN))),
  };
}

function percentile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

/** Blocks this thread for 200 ms: asleep, as in a synchronous call that waits, or computing, which takes a core as well. */
const blocks = {
  asleep: () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200),
  computing: () => {
    const until = performance.now() + 200;
    while (performance.now() < until);
  },
};

/** Throughput with the event loop free, and blocked for 200 ms of every second, in turns. More requests wait than can run. */
async function blockedLoop(engine: Engine, { concurrency, rounds, seconds }: Flags) {
  const request = () => ({
    tokens: randomTokens(32, engine.model.vocabSize),
    maxTokens: 48 + Math.floor(Math.random() * 32),
    ignoreEos: true,
  });
  const free: number[] = [];
  const blocked = { asleep: [] as number[], computing: [] as number[] };
  await closedLoop(engine, 4 * concurrency, request, async () => {
    await sleep(1000);
    for (let round = 0; round < rounds; round++) {
      free.push((await observe(engine, seconds)).tokensPerSecond);
      for (const kind of ["asleep", "computing"] as const) {
        const timer = setInterval(blocks[kind], 1000);
        blocked[kind].push((await observe(engine, seconds)).tokensPerSecond);
        clearInterval(timer);
      }
    }
  });
  const loss = (rates: number[]) => 1 - median(rates.map((rate, i) => rate / (free[i] ?? Number.NaN)));
  return {
    tokensPerSecond: median(free),
    tokensPerSecondBlocked: median(blocked.asleep),
    loss: loss(blocked.asleep),
    lossWhenComputing: loss(blocked.computing),
  };
}
