// sdar bench generate: whole generations, one request at a time.
import { Command } from "commander";
import { shippedModel } from "../checkpoint.js";
import { Engine } from "../engine.js";
import type { DenoiseOptions, LoadOptions, Strategy } from "../types.js";
import { oneOf, positive, weightFormats, whole } from "./flags.js";
import { accuracy, readSamples, type Sample } from "./prompts.js";
import { deliver, median, peakMemory, sum, table } from "./report.js";

const strategies = {
  dynamic: "low_confidence_dynamic",
  static: "low_confidence_static",
  sequential: "sequential",
  entropy: "entropy_bounded",
} as const satisfies Record<string, Strategy>;
type StrategyName = keyof typeof strategies;
const strategyNames = Object.keys(strategies) as StrategyName[];

interface Flags {
  model: string;
  prompts?: string;
  limit: number;
  weights: NonNullable<LoadOptions["weights"]>;
  threads?: number;
  isa?: string;
  strategy: StrategyName;
  compare?: StrategyName;
  threshold?: number;
  steps?: number;
  blockLength?: number;
  maxTokens: number;
  json?: boolean;
  out?: string | true;
}

export function benchGenerateCommand(): Command {
  return new Command("generate")
    .description("Runs whole generations one at a time: tokens per second, time to first token, accuracy, memory")
    .option("-m, --model <model>", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel)
    .option("--prompts <file>", "JSON lines with prompt, answer and task (default: the repository's held-out samples)")
    .option("--limit <n>", "most prompts to run", whole(1), Number.MAX_SAFE_INTEGER)
    .option("--weights <format>", "auto, f32, bf16, int8, int4", oneOf("auto", ...weightFormats), "auto")
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1))
    .option("--isa <name>", "instruction set (default: SDAR_ISA, else the best)")
    .option("--strategy <name>", strategyNames.join(", "), oneOf(...strategyNames), "dynamic")
    .option("--compare <name>", "run every prompt with this strategy as well, in turns", oneOf(...strategyNames))
    .option("--threshold <p>", "confidence above which dynamic fills (default: 0.9)", positive)
    .option("--steps <n>", "most steps for a block (default: its length)", whole(1))
    .option("--block-length <n>", "positions denoised together (default: the checkpoint's)", whole(1))
    .option("-n, --max-tokens <n>", "most tokens of an answer", whole(1), 256)
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .action(measure);
}

/** What one generation took. */
interface Timed {
  text: string;
  tokens: number;
  forwards: number;
  seconds: number;
  firstTokenSeconds: number;
}

async function measure(flags: Flags): Promise<void> {
  const { model, weights, threads, isa, json, out, limit, ...rest } = flags;
  const samples = readSamples(flags.prompts, limit);
  const loading = performance.now();
  await using engine = await Engine.load(model, { weights, threads, isa });
  const loadSeconds = (performance.now() - loading) / 1000;
  const names = [...new Set([flags.strategy, flags.compare ?? flags.strategy])];
  const runs = new Map(names.map((name) => [name, [] as Timed[]]));
  for (const name of names) await generate(engine, samples[0] as Sample, name, flags); // warms up
  for (const [index, sample] of samples.entries()) {
    // Who goes first changes from prompt to prompt.
    for (const name of index % 2 === 0 ? names : names.toReversed()) {
      runs.get(name)?.push(await generate(engine, sample, name, flags));
    }
  }
  const results = [...runs].map(([name, timed]) => summarise(name, samples, timed));
  const [first, second] = results;
  const ratio = first && second && first.tokensPerSecond / second.tokensPerSecond;
  const { device, parameters, weights: format, isa: used, threads: count, path } = engine.model;
  const load = { seconds: loadSeconds, peakMemoryBytes: peakMemory() };
  if (!json) {
    process.stdout.write(`${path}: ${format} on ${device}, ${used}, ${count} threads; ${samples.length} prompts\n`);
    process.stdout.write(describe(results));
    if (ratio)
      process.stdout.write(
        `${first.strategy} gives ${ratio.toFixed(2)} x the tokens per second of ${second.strategy}\n`,
      );
    const megabytes = (load.peakMemoryBytes / 1e6).toFixed(0);
    process.stdout.write(`loaded in ${loadSeconds.toFixed(2)} s; peak memory of the process ${megabytes} MB\n`);
  }
  const settings = {
    model: path,
    parameters,
    weights: format,
    isa: used,
    threads: count,
    prompts: samples.length,
    ...rest,
  };
  deliver("generate", { results, settings, ratio, load }, { json, out });
}

async function generate(engine: Engine, sample: Sample, name: StrategyName, flags: Flags): Promise<Timed> {
  const { threshold, steps, blockLength, maxTokens } = flags;
  const denoise: DenoiseOptions = { strategy: strategies[name], threshold, steps };
  const messages = [{ role: "user", content: sample.prompt }];
  const prompt = engine.model.hasChatTemplate ? { messages } : { prompt: sample.prompt };
  const began = performance.now();
  const run = engine.generate({ ...prompt, denoise, blockLength, maxTokens });
  let first: number | undefined;
  for await (const chunk of run) if (chunk.tokens.length > 0) first ??= performance.now();
  const { text, usage } = await run.result();
  const ended = performance.now();
  return {
    text,
    tokens: usage.completionTokens,
    forwards: usage.forwards,
    seconds: (ended - began) / 1000,
    firstTokenSeconds: ((first ?? ended) - began) / 1000,
  };
}

function summarise(strategy: StrategyName, samples: readonly Sample[], timed: readonly Timed[]) {
  const total = (of: keyof Omit<Timed, "text">) => sum(timed.map((one) => one[of]));
  return {
    strategy,
    tokens: total("tokens"),
    forwards: total("forwards"),
    seconds: total("seconds"),
    tokensPerSecond: total("tokens") / total("seconds"),
    tokensPerForward: total("tokens") / total("forwards"),
    firstTokenMs: 1000 * median(timed.map((one) => one.firstTokenSeconds)),
    ms: 1000 * median(timed.map((one) => one.seconds)),
    accuracy: accuracy(
      samples,
      timed.map((one) => one.text),
    ),
  };
}

function describe(results: ReturnType<typeof summarise>[]): string {
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
  return table([head, ...rows]);
}
