// sdar bench forward: the time of one forward pass beside the machine's own limits, measured in turns with it.
import { createInterface } from "node:readline";
import { Command } from "commander";
import { type NativeBench, openBench } from "../bench-binding.js";
import type { NativeLoadOptions, WeightFormat } from "../binding.js";
import { findCheckpoint, shippedModel } from "../checkpoint.js";
import { invalidOption, SdarError } from "../errors.js";
import { kvFormats, oneOf, positive, weightFormats, whole, wholeList } from "./flags.js";
import { deliver, median, table } from "./report.js";

interface Flags {
  model?: string;
  shape?: string;
  layers: number;
  weights: WeightFormat;
  tokens: number[];
  context: number;
  threads: number;
  isa: string;
  kv: NativeLoadOptions["kvDtype"];
  seconds: number;
  json?: boolean;
  out?: string | true;
  serve?: boolean;
}

const minRounds = 5;
const maxRounds = 201;

export function forwardCommand(): Command {
  return new Command("forward")
    .description(
      "Times one forward pass with token and statistics at all its positions, and measures the machine's limits",
    )
    .option("-m, --model <model>", `checkpoint folder or hub id (default: ${shippedModel})`)
    .option("--shape <name>", "random weights of this shape, made in memory: sdar-1.7b, sdar-4b and others")
    .option("--layers <n>", "layers of the shape to keep (default: all)", whole(1), 0)
    .option("--weights <format>", weightFormats.join(", "), oneOf(...weightFormats), "int8" as const)
    .option("--tokens <list>", "positions of a forward", wholeList, [1, 4, 8, 16, 32, 64, 512])
    .option("--context <n>", "positions in the cache before it", whole(0), 256)
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1), 0)
    .option("--isa <name>", "instruction set (default: SDAR_ISA, else the best)", "")
    .option("--kv <format>", "format of the cache (default: f32 with f32 weights, else bf16)", oneOf(...kvFormats), "")
    .option("--seconds <s>", "time for each size, in which at least 5 rounds are run", positive, 5)
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .option("--serve", "answer lines of JSON on standard input with times: see bench/peers/README.md")
    .action(measure);
}

async function measure(flags: Flags): Promise<void> {
  const bench = await open(flags);
  if (flags.serve) return serve(bench);
  const info = bench.info();
  const results: Result[] = [];
  for (const tokens of flags.tokens) results.push(await measureSize(bench, tokens, flags.seconds));
  const { json, out, serve: _, ...settings } = flags;
  if (!json) process.stdout.write(describe(flags, bench, results));
  const { isa, threads, weights, layers, parameters, weightBytes } = info;
  const more = { instruction: results[0]?.instruction, layers, parameters, weightBytes };
  deliver("forward", { results, settings: { ...settings, isa, threads, weights, ...more } }, { json, out });
}

/** The bench for what the flags name, ready for the largest of the sizes. */
function open(flags: Flags): Promise<NativeBench> {
  const { model, shape = "", layers, weights, context, threads, isa, kv } = flags;
  if (model !== undefined && shape !== "") throw invalidOption("shape", shape, "either --model or --shape, not both");
  if (layers > 0 && shape === "") throw invalidOption("layers", layers, "--shape with it");
  const path = shape === "" ? findCheckpoint(model ?? shippedModel) : "";
  const tokens = Math.max(...flags.tokens);
  return openBench({ path, shape, layers, weights, context, tokens, threads, isa, kvDtype: kv });
}

async function measureSize(bench: NativeBench, tokens: number, seconds: number) {
  const began = performance.now();
  await bench.run({ tokens, runs: 1, logits: true, limits: true }); // warms up
  const roundSeconds = (performance.now() - began) / 1000;
  const runs = Math.min(maxRounds, Math.max(minRounds, Math.round(seconds / roundSeconds)));
  const rounds = await bench.run({ tokens, runs, logits: true, limits: true });
  const { weightBytes, kvBytes, operations, instruction } = rounds;
  const time = median(rounds.seconds);
  const read = median(rounds.readBandwidth);
  const multiply = median(rounds.multiplyRate);
  const ms = [...rounds.seconds].map((s) => Number((1000 * s).toFixed(4)));
  return {
    tokens,
    ms: 1000 * time,
    minMs: Math.min(...ms),
    logitsMs: 1000 * median(rounds.logitsSeconds),
    gbPerSecond: (weightBytes + kvBytes) / time / 1e9,
    gopPerSecond: operations / time / 1e9,
    limitGbPerSecond: read / 1e9,
    limitGopPerSecond: multiply / 1e9,
    shareOfRead: (weightBytes + kvBytes) / time / read,
    shareOfMultiply: operations / time / multiply,
    /** the time over that of reading the weights once */
    timesReadOnce: time / (weightBytes / read),
    weightBytes,
    kvBytes,
    operations,
    instruction,
    samples: ms,
  };
}

type Result = Awaited<ReturnType<typeof measureSize>>;

function describe(flags: Flags, bench: NativeBench, results: Result[]): string {
  const info = bench.info();
  const name = flags.shape ?? flags.model ?? shippedModel;
  const [first] = results;
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  const rows = results.map((r) => [
    r.tokens,
    r.ms.toFixed(2),
    r.minMs.toFixed(2),
    r.gbPerSecond.toFixed(1),
    percent(r.shareOfRead),
    r.timesReadOnce.toFixed(2),
    r.gopPerSecond.toFixed(0),
    percent(r.shareOfMultiply),
    r.logitsMs.toFixed(2),
    r.samples.length,
  ]);
  const head = ["M", "ms", "min", "GB/s", "of limit", "x read once", "Gop/s", "of peak", "with logits", "rounds"];
  const limits = [
    `${median(results.map((r) => r.limitGbPerSecond)).toFixed(1)} GB/s read from memory`,
    `${median(results.map((r) => r.limitGopPerSecond)).toFixed(0)} Gop/s of ${first?.instruction}`,
  ];
  return `${name}: ${info.layers} layers, ${(info.parameters / 1e6).toFixed(0)} M parameters, ${info.weights} (${(info.weightBytes / 1e6).toFixed(0)} MB), KV ${info.kv.dtype}
instruction set ${info.isa}, ${info.threads} threads, ${flags.context} positions of context
limits measured meanwhile: ${limits.join(", ")}
ms: median; x read once: over the time of reading the weights once; with logits: ms when logits are also written out
${table([head, ...rows])}`;
}

/** The protocol of bench/peers/README.md. */
async function serve(bench: NativeBench): Promise<void> {
  const print = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
  const { parameters, threads, isa, weights, weightBytes, layers, kv } = bench.info();
  print({ ready: true, parameters, threads, isa, weights, weightBytes, layers, kv: kv.dtype });
  for await (const line of createInterface({ input: process.stdin })) {
    const tokens = parseRequest(line);
    const { seconds } = await bench.run({ tokens, runs: 1, logits: false, limits: false });
    print({ tokens, ms: 1000 * (seconds[0] ?? Number.NaN) });
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
