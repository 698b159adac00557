// sdar bench generate: whole generations, one request at a time.
import { Command } from "commander";
import { weightFormats } from "../binding.js";
import { shippedModel } from "../checkpoint.js";
import { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import { type Strategy, strategyOf } from "../quality.js";
import type { DenoiseOptions, LoadOptions } from "../types.js";
import { summarise, type Timed, timeAnswer } from "./answers.js";
import { oneOf, positive, type StrategyName, strategyName, strategyNames, whole } from "./flags.js";
import { randomSamples, readSamples, type Sample } from "./prompts.js";
import { deliver, peakMemory, table } from "./report.js";

/** How answers are made; an autoregressive model has one way only. */
type Way = StrategyName | "autoregressive";

interface Flags {
  model: string;
  device: NonNullable<LoadOptions["device"]>;
  prompts?: string;
  limit?: number;
  weights: NonNullable<LoadOptions["weights"]>;
  threads?: number;
  isa?: string;
  strategy?: StrategyName;
  compare?: StrategyName;
  threshold?: number;
  steps?: number;
  blockLength?: number;
  maxTokens?: number;
  json?: boolean;
  out?: string | true;
}

export function generateCommand(): Command {
  return new Command("generate")
    .description("Runs whole generations one at a time: tokens per second, time to first token, accuracy, memory")
    .option("-m, --model <model>", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel)
    .option("--prompts <file>", "JSON lines with prompt, answer and task (default: the repository's held-out samples)")
    .option("--limit <n>", "most prompts to run (default: all; 4 random ones if the model has no tokenizer)", whole(1))
    .option("--weights <format>", "auto, f32, bf16, int8, int4", oneOf("auto", ...weightFormats), "auto")
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1))
    .option("--device <name>", "auto, cpu, cuda or cuda:N", "cpu")
    .option("--isa <name>", "instruction set (default: SDAR_ISA, else the best)")
    .option("--strategy <name>", `${strategyNames.join(", ")} (default: dynamic)`, strategyName)
    .option("--compare <name>", "run every prompt with this strategy as well, in turns", strategyName)
    .option("--threshold <p>", "confidence above which dynamic fills (default: 0.9)", positive)
    .option("--steps <n>", "most steps for a block (default: its length)", whole(1))
    .option("--block-length <n>", "positions denoised together (default: the checkpoint's)", whole(1))
    .option(
      "-n, --max-tokens <n>",
      "most tokens of an answer (default: 256; 32 if the model has no tokenizer)",
      whole(1),
    )
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .action(measure);
}

async function measure(flags: Flags): Promise<void> {
  const { model, device, weights, threads, isa, json, out, limit, prompts, ...rest } = flags;
  const began = performance.now();
  await using engine = await Engine.load(model, { device, weights, threads, isa });
  const loaded = { seconds: (performance.now() - began) / 1000, peakMemoryBytes: peakMemory() };
  const { model: info } = engine;
  const samples = info.hasTokenizer ? readSamples(prompts, limit) : randomSamples(limit ?? 4, info.vocabSize);
  const { firstTokenSeconds, runs } = await runAll(engine, samples, flags);
  const results = [...runs].map(([strategy, timed]) => ({ strategy, ...summarise(samples, timed) }));
  const [first, second] = results;
  const report = {
    results,
    settings: {
      model: info.path,
      parameters: info.parameters,
      device: info.device,
      weights: info.weights,
      isa: info.isa,
      threads: info.threads,
      prompts: samples.length,
      ...rest,
    },
    /** of the first strategy's tokens per second over the second's */
    ratio: first && second && first.tokensPerSecond / second.tokensPerSecond,
    load: { ...loaded, secondsToFirstToken: loaded.seconds + firstTokenSeconds, weightBytes: info.weightBytes },
    peakMemoryBytes: peakMemory(),
  };
  if (!json) process.stdout.write(describe(report));
  deliver("generate", report, { json, out });
}

/** Each sample with each strategy, in turns. */
async function runAll(engine: Engine, samples: readonly Sample[], flags: Flags) {
  const names = waysOf(engine, flags);
  const runs = new Map(names.map((name) => [name, [] as Timed[]]));
  const warmUps: Timed[] = [];
  for (const name of names) warmUps.push(await generate(engine, samples[0] as Sample, name, flags));
  for (const [index, sample] of samples.entries()) {
    // Who goes first changes from prompt to prompt.
    for (const name of index % 2 === 0 ? names : names.toReversed()) {
      runs.get(name)?.push(await generate(engine, sample, name, flags));
    }
  }
  return { firstTokenSeconds: warmUps[0]?.firstTokenSeconds ?? Number.NaN, runs };
}

function waysOf(engine: Engine, flags: Flags): Way[] {
  const { strategy = "dynamic", compare = strategy } = flags;
  if (engine.model.decoding !== "autoregressive") return [...new Set([strategy, compare])];
  for (const name of ["strategy", "compare", "threshold", "steps", "blockLength"] as const) {
    if (flags[name] === undefined) continue;
    const flag = name === "blockLength" ? "--block-length" : `--${name}`;
    throw new SdarError("INVALID_OPTION", `${flag}: ${engine.model.path} is autoregressive and has no blocks`, {
      option: flag,
    });
  }
  return ["autoregressive"];
}

function generate(engine: Engine, sample: Sample, name: Way, flags: Flags): Promise<Timed> {
  const { threshold, steps, blockLength, maxTokens } = flags;
  if (name === "autoregressive") return timeAnswer(engine, sample, { maxTokens });
  const denoise: DenoiseOptions = { strategy: strategyOf(name) as Strategy, threshold, steps };
  return timeAnswer(engine, sample, { denoise, blockLength, maxTokens });
}

interface Printed {
  results: ({ strategy: Way } & ReturnType<typeof summarise>)[];
  settings: { model: string; weights: string; isa: string; threads: number; prompts: number };
  ratio: number | undefined;
  load: { seconds: number; peakMemoryBytes: number; secondsToFirstToken: number; weightBytes: number };
  peakMemoryBytes: number;
}

function describe({ results, settings, ratio, load, peakMemoryBytes }: Printed): string {
  const tasks = Object.keys(results[0]?.accuracy ?? {});
  const head = ["strategy", "tokens/s", "tokens/forward", "first token ms", "answer ms", ...tasks.map((t) => `${t} %`)];
  const rows = results.map((r) => [
    r.strategy,
    r.tokensPerSecond.toFixed(1),
    r.tokensPerForward.toFixed(2),
    r.firstTokenMs.toFixed(2),
    r.ms.toFixed(2),
    ...tasks.map((task) => r.accuracy[task]?.toFixed(1) ?? ""),
  ]);
  const names = results.map((r) => r.strategy);
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
  const { model, weights, isa, threads, prompts } = settings;
  return [
    `${model}: ${weights}, ${isa}, ${threads} threads; ${prompts} prompts, one at a time\n`,
    table([head, ...rows]),
    ratio ? `${names[0]} gives ${ratio.toFixed(2)} x the tokens per second of ${names[1]}\n` : "",
    `loaded in ${load.seconds.toFixed(2)} s, first token after ${load.secondsToFirstToken.toFixed(2)} s; `,
    `weights ${megabytes(load.weightBytes)}; peak memory of the process ${megabytes(load.peakMemoryBytes)} then, `,
    `${megabytes(peakMemoryBytes)} at the end\n`,
  ].join("");
}
