// sdar bench forward: the time of one forward pass beside the machine's own limits, measured in turns with it.
import { createInterface } from "node:readline";
import { Command, Option } from "commander";
import { kvFormats, type NativeLoadOptions, type WeightFormat, weightFormats } from "../binding.js";
import { findCheckpoint, shippedModel } from "../checkpoint.js";
import { invalidOption, SdarError } from "../errors.js";
import { type NativeBench, type NativeRounds, openBench } from "./binding.js";
import { layersOption, oneOf, positive, someOf, whole, wholeList } from "./flags.js";
import { deliver, median, table } from "./report.js";

interface Flags {
  model?: string;
  shape?: string;
  layers: number;
  weights: WeightFormat[];
  tokens: number[];
  context: number[];
  threads: number;
  isa: string;
  kv: NativeLoadOptions["kvDtype"];
  seconds: number;
  all?: boolean;
  json?: boolean;
  out?: string | true;
  serve?: boolean;
}

const minRounds = 5;
const maxRounds = 201;

/** Numbers of positions, ascending. */
function contexts(text: string): number[] {
  return [...new Set(text.split(",").map(whole(0)))].sort((a, b) => a - b);
}

export function forwardCommand(): Command {
  return new Command("forward")
    .description(
      "Times one forward pass with token and statistics at all its positions, beside one of a single position and the machine's limits",
    )
    .option("-m, --model <model>", `checkpoint folder or hub id (default: ${shippedModel})`)
    .option("--shape <name>", "random weights of this shape, made in memory: sdar-1.7b, sdar-4b and others")
    .addOption(layersOption())
    .option("--weights <list>", `formats: ${weightFormats.join(", ")}`, someOf(...weightFormats), ["int8" as const])
    .option("--tokens <list>", "positions of a forward", wholeList, [1, 4, 8, 16, 32, 64, 512])
    .option("--context <n>", "positions in the cache before it; several, ascending, are compared", contexts, [256])
    .addOption(
      new Option("--threads <n>", "threads that compute").argParser(whole(1)).default(0, "this machine's cores"),
    )
    .addOption(new Option("--isa <name>", "instruction set").default("", "SDAR_ISA, else the best"))
    .addOption(
      new Option("--kv <format>", "format of the cache")
        .argParser(oneOf(...kvFormats))
        .default("", "f32 with f32 weights, else bf16"),
    )
    .option("--seconds <s>", "time for each size, in which at least 5 rounds are run", positive, 5)
    .option("--all", "print all columns: bandwidth, operations, the smallest time, with logits")
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .option("--serve", "answer lines of JSON on standard input with times: see bench/peers/README.md")
    .action(measure);
}

async function measure(flags: Flags): Promise<void> {
  const { json, out, all: _, serve: serving, ...settings } = flags;
  const [format = "int8", ...others] = flags.weights;
  if (serving && others.length > 0) throw invalidOption("weights", flags.weights.join(), "one format with --serve");
  if (serving) return serve(await open(flags, format), flags.context);
  const results: Result[] = [];
  let more = {};
  for (const weights of flags.weights) {
    const bench = await open(flags, weights);
    const mine: Result[] = [];
    for (const tokens of flags.tokens) mine.push(...(await measureSize(bench, tokens, flags, weights)));
    if (!json) process.stdout.write(describe(flags, bench, mine));
    const { isa, threads, layers, parameters } = bench.info();
    more = { isa, threads, layers, parameters, weights: flags.weights.join() };
    results.push(...mine);
    bench.close();
  }
  if (!json && others.length > 0) process.stdout.write(describeBreakEven(flags, results));
  deliver("forward", { results, settings: { ...settings, ...more } }, { json, out });
}

/** The bench for what the flags name, ready for the largest of the sizes. */
function open(flags: Flags, weights: WeightFormat): Promise<NativeBench> {
  const { model, shape = "", layers, context, threads, isa, kv } = flags;
  if (model !== undefined && shape !== "") throw invalidOption("shape", shape, "either --model or --shape, not both");
  if (layers > 0 && shape === "") throw invalidOption("layers", layers, "--shape with it");
  const path = shape === "" ? findCheckpoint(model ?? shippedModel) : "";
  const tokens = Math.max(...flags.tokens);
  return openBench({ path, shape, layers, weights, context: Math.max(...context), tokens, threads, isa, kvDtype: kv });
}

/** A result for each context. */
async function measureSize(bench: NativeBench, tokens: number, { context, seconds }: Flags, weights: WeightFormat) {
  const options = { tokens, contexts: Int32Array.from(context), logits: true, limits: true, single: tokens > 1 };
  const began = performance.now();
  await bench.run({ ...options, runs: 1 }); // warms up
  const roundSeconds = (performance.now() - began) / 1000;
  const runs = Math.min(maxRounds, Math.max(minRounds, Math.round(seconds / roundSeconds)));
  const rounds = await bench.run({ ...options, runs });
  return rounds.contexts.map((_, index) => ({ weights, ...summarise(rounds, index, tokens, context) }));
}

function summarise(rounds: NativeRounds, index: number, tokens: number, contexts: readonly number[]) {
  const at = rounds.contexts[index] as AtContext;
  const { weightBytes, kvBytes, operations, expertsPerLayer } = at;
  const time = median(at.seconds);
  const read = median(rounds.readBandwidth);
  const multiply = median(rounds.multiplyRate);
  const ms = [...at.seconds].map((s) => Number((1000 * s).toFixed(4)));
  return {
    tokens,
    context: contexts[index] as number,
    ms: 1000 * time,
    minMs: Math.min(...ms),
    logitsMs: 1000 * median(at.logitsSeconds),
    gbPerSecond: (weightBytes + kvBytes) / time / 1e9,
    gopPerSecond: operations / time / 1e9,
    limitGbPerSecond: read / 1e9,
    limitGopPerSecond: multiply / 1e9,
    shareOfRead: (weightBytes + kvBytes) / time / read,
    shareOfMultiply: operations / time / multiply,
    /** the time over that of reading the weights once */
    timesReadOnce: time / (weightBytes / read),
    /** tokens that this forward must fill to be as fast as forwards of one position that fill one each */
    breakEven: tokens > 1 ? median(at.seconds.map((s, round) => s / (at.singleSeconds[round] ?? Number.NaN))) : 1,
    expertsPerLayer,
    weightBytes,
    kvBytes,
    operations,
    instruction: rounds.instruction,
    added: index === 0 ? undefined : added(rounds, index, contexts),
    samples: ms,
  };
}

/** What a context costs on top of the first one, and the larger of reading its keys and values once and multiplying them. */
function added(rounds: NativeRounds, index: number, contexts: readonly number[]) {
  const [first, more] = [rounds.contexts[0], rounds.contexts[index]] as [AtContext, AtContext];
  const seconds = median(more.seconds.map((time, round) => time - (first.seconds[round] ?? Number.NaN)));
  const read = (more.kvBytes - first.kvBytes) / median(rounds.readBandwidth);
  const multiply = (more.operations - first.operations) / median(rounds.attentionRate);
  const positions = (contexts[index] ?? 0) - (contexts[0] ?? 0);
  const limit = Math.max(read, multiply);
  return { positions, ms: 1000 * seconds, limitMs: 1000 * limit, ratio: seconds / limit };
}

type AtContext = NativeRounds["contexts"][number];
type Result = ReturnType<typeof summarise> & { weights: WeightFormat };

type Column = [name: string, of: (result: Result) => string | number];

function describe(flags: Flags, bench: NativeBench, results: Result[]): string {
  const info = bench.info();
  const name = flags.shape ?? flags.model ?? shippedModel;
  const [first] = results;
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  // What bounds a forward: reading weights and keys from memory, or multiplying.
  const brief: Column[] = [
    ["M", (r) => r.tokens],
    ["context", (r) => r.context],
    ["ms", (r) => r.ms.toFixed(2)],
    ["tokens/s", (r) => ((1000 * r.tokens) / r.ms).toFixed(0)],
    ["of limit", (r) => percent(Math.max(r.shareOfRead, r.shareOfMultiply))],
    ["break-even", (r) => r.breakEven.toFixed(2)],
  ];
  const whole: Column[] = [
    ...brief.slice(0, 3),
    ["min", (r) => r.minMs.toFixed(2)],
    ["tokens/s", (r) => ((1000 * r.tokens) / r.ms).toFixed(0)],
    ["GB/s", (r) => r.gbPerSecond.toFixed(1)],
    ["of limit", (r) => percent(r.shareOfRead)],
    ["x read once", (r) => r.timesReadOnce.toFixed(2)],
    ["break-even", (r) => r.breakEven.toFixed(2)],
    ["Gop/s", (r) => r.gopPerSecond.toFixed(0)],
    ["of peak", (r) => percent(r.shareOfMultiply)],
    ["with logits", (r) => r.logitsMs.toFixed(2)],
    ["rounds", (r) => r.samples.length],
  ];
  const columns = flags.all ? whole : brief.filter(([name]) => name !== "context" || flags.context.length > 1);
  const rows = results.map((result) => columns.map(([, of]) => of(result)));
  const legend = flags.all
    ? "ms: median; x read once: over the time of reading the weights once; with logits: ms when logits are also written out"
    : "M: positions in a forward; ms: median; of limit: of what reading memory or multiplying allows, whichever is nearer; more with --all";
  const limits = [
    `${median(results.map((r) => r.limitGbPerSecond)).toFixed(1)} GB/s read from memory`,
    `${median(results.map((r) => r.limitGopPerSecond)).toFixed(0)} Gop/s of ${first?.instruction}`,
  ];
  return `${name}: ${info.layers} layers, ${(info.parameters / 1e6).toFixed(0)} M parameters, ${info.weights} (${(info.weightBytes / 1e6).toFixed(0)} MB), KV ${info.kv.dtype}
instruction set ${info.isa}, ${info.threads} threads
limits measured meanwhile: ${limits.join(", ")}
${legend}
break-even: tokens that a forward must fill to be as fast as the autoregressive parent, which fills one in each of M = 1
${table([columns.map(([name]) => name), ...rows])}${results.map(describeAdded).join("")}`;
}

/** For several formats: how many tokens a forward must fill, a column each. */
function describeBreakEven({ weights, tokens, context }: Flags, results: Result[]): string {
  const rows = tokens.flatMap((size) =>
    context.map((at) => {
      const of = (format: WeightFormat) =>
        results.find((r) => r.weights === format && r.tokens === size && r.context === at)?.breakEven ?? Number.NaN;
      return [size, at, ...weights.map((format) => of(format).toFixed(2))];
    }),
  );
  return `break-even, in tokens per forward\n${table([["M", "context", ...weights], ...rows])}`;
}

function describeAdded({ tokens, added }: Result): string {
  if (!added) return "";
  const { positions, ms, limitMs, ratio } = added;
  return `${positions} positions more cost ${tokens} tokens ${ms.toFixed(2)} ms, ${ratio.toFixed(2)} x their limit of ${limitMs.toFixed(2)} ms\n`;
}

/** The protocol of bench/peers/README.md. */
async function serve(bench: NativeBench, context: readonly number[]): Promise<void> {
  const print = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
  const { parameters, threads, isa, weights, weightBytes, layers, kv } = bench.info();
  print({ ready: true, parameters, threads, isa, weights, weightBytes, layers, kv: kv.dtype });
  for await (const line of createInterface({ input: process.stdin })) {
    const tokens = parseRequest(line);
    const contexts = Int32Array.of(Math.max(...context));
    const rounds = await bench.run({ tokens, contexts, runs: 1, logits: false, limits: false, single: false });
    print({ tokens, ms: 1000 * (rounds.contexts[0]?.seconds[0] ?? Number.NaN) });
  }
}

function parseRequest(line: string): number {
  try {
    const { tokens } = JSON.parse(line);
    if (Number.isSafeInteger(tokens)) return tokens;
  } catch {
    // said below
  }
  throw new SdarError("INVALID_OPTION", `standard input: ${line.slice(0, 80)} is not a line such as {"tokens":8}`);
}
