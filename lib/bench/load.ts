// An engine under load, for the serving benchmarks: requests of random tokens, a fixed number of them at a time.
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, constants, tmpdir } from "node:os";
import { join } from "node:path";
import { Engine } from "../engine.js";
import type { GenerateRequest, LoadOptions } from "../types.js";
import { writeCheckpoint } from "./binding.js";
import { randomIntegers } from "./statistics.js";

export interface ModelFlags {
  model: string;
  shape?: string;
  layers: number;
  weights: NonNullable<LoadOptions["weights"]>;
  threads?: number;
}

/** The folder of the checkpoint that the flags name; of a shape, one with random weights that is removed afterwards. */
export async function withCheckpoint<T>(flags: ModelFlags, use: (path: string) => Promise<T>): Promise<T> {
  const { model, shape, layers } = flags;
  if (shape === undefined) return use(model);
  const folder = mkdtempSync(join(tmpdir(), "sdar-bench-"));
  // A file may be made while others are removed.
  const remove = () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  const interrupted = (signal: NodeJS.Signals) => {
    remove();
    process.exit(128 + constants.signals[signal]);
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.once(signal, interrupted);
  try {
    const threads = availableParallelism();
    await writeCheckpoint({ folder, shape, layers, dtype: "bf16", randomSeed: 1, overwrite: true, threads });
    return await use(folder);
  } finally {
    for (const signal of signals) process.off(signal, interrupted);
    remove();
  }
}

/** An engine for what the flags name, disposed of afterwards. */
export async function withEngine<T>(path: string, options: LoadOptions, use: (engine: Engine) => Promise<T>) {
  await using engine = await Engine.load(path, { device: "cpu", weightCache: false, ...options });
  return await use(engine);
}

const random = randomIntegers();
/** Tokens that no two prompts share. */
export function randomTokens(count: number, vocabSize: number): number[] {
  return Array.from({ length: count }, () => random(vocabSize));
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Keeps `concurrency` requests going until `until` has been awaited, then aborts what runs. The next request of each
 * begins when the one before has ended. The first ones have a part of their tokens left, each another, as if the load
 * had been there for long.
 */
export async function closedLoop<T>(
  engine: Engine,
  concurrency: number,
  request: () => GenerateRequest & { maxTokens: number },
  until: () => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const client = async (_: unknown, index: number) => {
    let share = (index + 1) / concurrency;
    while (!controller.signal.aborted) {
      const next = request();
      const maxTokens = Math.ceil(share * next.maxTokens);
      await engine.generate({ ...next, maxTokens, signal: controller.signal }).result();
      share = 1;
    }
  };
  const clients = Array.from({ length: concurrency }, client);
  try {
    return await until();
  } finally {
    controller.abort();
    await Promise.all(clients);
  }
}

/** What the engine did between two looks at its counters. */
export interface Window {
  seconds: number;
  steps: number;
  /** positions and requests in a step, on average */
  rows: number;
  sequences: number;
  /** tokens filled in a step, on average */
  tokens: number;
  tokensPerSecond: number;
  stepMs: number;
  schedulerMicroseconds: number;
  /** the scheduler's share of a step */
  schedulerShare: number;
}

/** The counters as soon as another step has ended, and when that was. */
async function afterStep(engine: Engine) {
  const { steps } = engine.stats();
  for (;;) {
    await sleep(1);
    const stats = engine.stats();
    if (stats.steps > steps) return { stats, at: performance.now() };
  }
}

/** Whole steps, for about so many seconds. */
export async function observe(engine: Engine, seconds: number): Promise<Window> {
  const { stats: before, at: began } = await afterStep(engine);
  await sleep(1000 * seconds);
  const { stats: after, at: ended } = await afterStep(engine);
  const elapsed = (ended - began) / 1000;
  const steps = after.steps - before.steps;
  const scheduler = after.schedulerSeconds - before.schedulerSeconds;
  const computing = after.stepSeconds - before.stepSeconds;
  const filled = after.filledTokens - before.filledTokens;
  return {
    seconds: elapsed,
    steps,
    rows: (after.rows - before.rows) / steps,
    sequences: (after.sequences - before.sequences) / steps,
    tokens: filled / steps,
    tokensPerSecond: filled / elapsed,
    stepMs: (1000 * computing) / steps,
    schedulerMicroseconds: (1e6 * scheduler) / steps,
    schedulerShare: scheduler / (scheduler + computing),
  };
}
