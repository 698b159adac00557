// sdar bench quality: what weights of fewer bits cost, against f32: answers that stay right, and how far the distributions
// of the same denoising steps move.

import { join } from "node:path";
import { Command, Option } from "commander";
import { type WeightFormat, weightFormats } from "../binding.js";
import { findCheckpoint, readJson, shippedModel } from "../checkpoint.js";
import { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import { ChatTemplate } from "../text/template.js";
import { Tokenizer } from "../text/tokenizer.js";
import type { Draft } from "../types.js";
import { type NativeStep, openBench } from "./binding.js";
import { someOf, whole } from "./flags.js";
import { accuracy, readSamples, type Sample } from "./prompts.js";
import { deliver, table } from "./report.js";

interface Flags {
  model: string;
  prompts?: string;
  limit: number;
  weights: WeightFormat[];
  threads?: number;
  isa?: string;
  blockLength?: number;
  maxTokens: number;
  json?: boolean;
  out?: string | true;
}

export function qualityCommand(): Command {
  return new Command("quality")
    .description("Compares formats of weights with f32: right answers, and KL divergence of the same denoising steps")
    .option("-m, --model <model>", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel)
    .option("--prompts <file>", "JSON lines with prompt, answer and task (default: the repository's held-out samples)")
    .addOption(
      new Option("--limit <n>", "most prompts to run").argParser(whole(1)).default(Number.MAX_SAFE_INTEGER, "all"),
    )
    .option("--weights <list>", "formats to compare with f32", someOf(...weightFormats), ["bf16", "int8", "int4"])
    .option("--threads <n>", "threads that compute (default: this machine's cores)", whole(1))
    .option("--isa <name>", "instruction set (default: SDAR_ISA, else the best)")
    .option("--block-length <n>", "positions denoised together (default: the checkpoint's)", whole(1))
    .option("-n, --max-tokens <n>", "most tokens of an answer", whole(1), 256)
    .option("--json", "print one JSON object")
    .option("--out [file]", "write the JSON to a file (default: one in bench/results)")
    .action(compare);
}

async function compare(flags: Flags): Promise<void> {
  const { json, out, weights, limit, ...settings } = flags;
  const path = findCheckpoint(flags.model);
  const samples = readSamples(flags.prompts, limit);
  const prompts = encode(path, samples);
  const exact = await answer(path, "f32", prompts, flags);
  const tokens = Math.max(...exact.steps.map((step) => step.tokens.length));
  const open = (format: WeightFormat) =>
    openBench({
      path,
      shape: "",
      weights: format,
      context: 0,
      tokens,
      threads: flags.threads ?? 0,
      isa: flags.isa ?? "",
    });
  const reference = await open("f32");
  const baseline = accuracy(samples, exact.texts);
  const results = [{ weights: "f32" as WeightFormat, accuracy: baseline, lost: 0, kl: 0, sameArgmax: 1, sameText: 1 }];
  for (const format of weights.filter((name) => name !== "f32")) {
    const { texts } = await answer(path, format, prompts, flags);
    const bench = await open(format);
    const { positions, kl, sameArgmax } = await reference.compare(bench, exact.steps);
    bench.close();
    const right = accuracy(samples, texts);
    results.push({
      weights: format,
      accuracy: right,
      lost: (baseline.all ?? 0) - (right.all ?? 0),
      kl: kl / positions,
      sameArgmax: sameArgmax / positions,
      sameText: texts.filter((text, index) => text === exact.texts[index]).length / texts.length,
    });
  }
  const { isa, threads } = reference.info();
  reference.close();
  const positions = exact.steps.reduce((total, step) => total + step.masked.length, 0);
  if (!json) {
    const counts = `${samples.length} prompts, ${exact.steps.length} denoising steps, ${positions} masked positions`;
    process.stdout.write(`${path} on ${isa}: ${counts}\n${describe(results)}`);
  }
  const more = { model: path, isa, threads, prompts: samples.length, steps: exact.steps.length, positions };
  deliver("quality", { results, settings: { ...settings, ...more } }, { json, out });
}

function encode(path: string, samples: readonly Sample[]): Int32Array[] {
  const config = readJson(join(path, "tokenizer_config.json"), "TOKENIZER_INVALID") ?? {};
  const tokenizer = Tokenizer.load(path, config);
  if (!tokenizer) throw new SdarError("TOKENIZER_MISSING", `${path} has no tokenizer.json`);
  const template = ChatTemplate.load(path, config);
  return samples.map(({ prompt }) =>
    template
      ? tokenizer.encode(template.render([{ role: "user", content: prompt }]), { addSpecial: false })
      : tokenizer.encode(prompt, { addSpecial: true }),
  );
}

/** The greedy answers and, with f32, all denoising steps on the way. */
async function answer(path: string, weights: WeightFormat, prompts: readonly Int32Array[], flags: Flags) {
  const { threads, isa, blockLength, maxTokens } = flags;
  await using engine = await Engine.load(path, { device: "cpu", weights, threads, isa });
  const drafts = weights === "f32";
  const answers = await Promise.all(
    prompts.map(async (tokens) => {
      const run = engine.generate({ tokens, blockLength, maxTokens, drafts });
      const seen: Draft[] = [];
      for await (const { draft } of run) if (draft) seen.push(draft);
      const { text } = await run.result();
      return { text, steps: steps(tokens, seen, engine.model.maskTokenId) };
    }),
  );
  return { texts: answers.map(({ text }) => text), steps: answers.flatMap((one) => one.steps) };
}

/** What each denoising step got to see: the drafts show what it left behind. */
export function steps(prompt: Int32Array, drafts: readonly Draft[], maskId: number): NativeStep[] {
  const known = [...prompt];
  const all: NativeStep[] = [];
  let block: (number | undefined)[] = [];
  for (const { step, position, tokens } of drafts) {
    if (step === 0) {
      known.push(...(block as number[]).slice(known.length - (position - block.length)));
      block = tokens.map((_, offset) => known[position + offset]);
    }
    const masked = block.flatMap((id, offset) => (id === undefined ? [offset] : []));
    const ids = [...known.slice(0, position), ...block.map((id) => id ?? maskId)];
    all.push({ tokens: Int32Array.from(ids), blockLength: tokens.length, masked: Int32Array.from(masked) });
    block = tokens.map((token) => token?.id);
  }
  return all;
}

interface Row {
  weights: WeightFormat;
  accuracy: Record<string, number>;
  lost: number;
  kl: number;
  sameArgmax: number;
  sameText: number;
}

function describe(results: readonly Row[]): string {
  const tasks = Object.keys(results[0]?.accuracy ?? {});
  const percent = (share: number) => (100 * share).toFixed(2);
  const head = [
    "weights",
    "mean KL",
    "same argmax %",
    "same text %",
    "points lost",
    ...tasks.map((task) => `${task} %`),
  ];
  const rows = results.map((r) => [
    r.weights,
    r.kl.toExponential(2),
    percent(r.sameArgmax),
    percent(r.sameText),
    r.lost.toFixed(1),
    ...tasks.map((task) => r.accuracy[task]?.toFixed(1) ?? ""),
  ]);
  return `mean KL: of the step distributions against f32 on f32's denoising steps, nats a position\n${table([head, ...rows])}`;
}
