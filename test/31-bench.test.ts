import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { openBench } from "../lib/bench/binding.js";
import { readSamples } from "../lib/bench/prompts.js";
import { steps } from "../lib/bench/quality.js";
import { shippedModelPath } from "../lib/checkpoint.js";
import { Engine } from "../lib/index.js";
import { sdar } from "./sdar.js";

const scratch = mkdtempSync(join(tmpdir(), "sdar-bench-"));
t.teardown(() => rmSync(scratch, { recursive: true }));
const quick = ["--threads", "2", "--seconds", "0.01"];
const tiny = ["--shape", "sdar-nano", "--layers", "1"];

t.test("files of prompts", async (t) => {
  t.equal(readSamples(undefined, 2000).length, 1000, "the held-out samples");
  const file = join(scratch, "prompts.jsonl");
  writeFileSync(file, '{"prompt": "a"}\n\n{"prompt": "b", "answer": "c", "task": "d", "more": 1}\n{"prompt": 3}\n');
  t.match(readSamples(file, 2), [{ prompt: "a" }, { prompt: "b", answer: "c", task: "d" }]);
  t.throws(() => readSamples(file, 3), { code: "INVALID_OPTION", message: /prompts.jsonl:4: / });
  writeFileSync(file, "\n");
  t.throws(() => readSamples(file, 3), { code: "INVALID_OPTION", message: /no prompts/ });
  t.throws(() => readSamples(join(scratch, "none"), 3), { code: "FILE_NOT_FOUND" });
});

t.test("what denoising steps saw, from the drafts they left", async (t) => {
  const token = (id: number) => ({ id, step: 0, text: "" });
  const seen = steps(
    Int32Array.of(1, 2, 3, 4, 5),
    [
      { block: 1, step: 0, position: 4, tokens: [token(5), null, token(7), null] },
      { block: 1, step: 1, position: 4, tokens: [token(5), token(6), token(7), token(8)] },
      { block: 2, step: 0, position: 8, tokens: [null, null, token(11), null] },
    ],
    99,
  );
  const flat = seen.map(({ tokens, blockLength, masked }) => [[...tokens], blockLength, [...masked]]);
  t.same(flat, [
    [[1, 2, 3, 4, 5, 99, 99, 99], 4, [1, 2, 3]],
    [[1, 2, 3, 4, 5, 99, 7, 99], 4, [1, 3]],
    [[1, 2, 3, 4, 5, 6, 7, 8, 99, 99, 99, 99], 4, [0, 1, 2, 3]],
  ]);
});

t.test("bench forward --json", async (t) => {
  const out = join(scratch, "deep", "forward.json");
  const args = [
    "bench",
    "forward",
    ...tiny,
    ...quick,
    "--tokens",
    "1,7,64",
    "--context",
    "32,96",
    "--weights",
    "int4,bf16",
  ];
  const { status, stdout } = await sdar([...args, "--json", "--out", out]);
  t.equal(status, 0);
  const { results, machine, settings } = JSON.parse(stdout);
  t.same(JSON.parse(readFileSync(out, "utf8")).results, results, "the file holds the same");
  t.same(
    results.map((r: { weights: string; tokens: number; context: number }) => [r.weights, r.tokens, r.context]),
    ["int4", "bf16"].flatMap((weights) =>
      [1, 7, 64].flatMap((tokens) => [32, 96].map((context) => [weights, tokens, context])),
    ),
  );
  t.match(results[1].added, { positions: 64, ms: Number, ratio: Number }, "what more context costs");
  t.ok(results[1].added.limitMs > 0 && results[0].added === undefined);
  const numbers = ["ms", "minMs", "logitsMs", "gbPerSecond", "gopPerSecond", "limitGbPerSecond", "limitGopPerSecond"];
  for (const result of results) {
    for (const name of [...numbers, "timesReadOnce", "breakEven", "shareOfRead", "shareOfMultiply"])
      t.ok(result[name] > 0, name);
    t.ok(result.samples.length >= 5);
    t.type(result.instruction, "string");
    t.equal(result.expertsPerLayer, 0);
    if (result.tokens === 1) t.equal(result.breakEven, 1);
  }
  t.match(settings, {
    weights: "int4,bf16",
    context: [32, 96],
    threads: 2,
    isa: String,
    layers: 1,
    parameters: Number,
  });
  t.match(machine, { cpu: String, cores: Number, memoryBytes: Number, node: process.version });
  t.ok(machine.isa.includes(settings.isa), "names the instruction set that ran");
});

t.test("bench forward prints a table, for a checkpoint too", async (t) => {
  const args = ["bench", "forward", ...quick, "--tokens", "4", "--weights", "bf16,int8"];
  const { status, stdout } = await sdar(args);
  t.equal(status, 0);
  t.match(stdout, /sdar-nano: 6 layers, 4 M parameters, bf16/);
  t.match(stdout, /\nM +ms +tokens\/s +of limit +break-even\n4 +\d+\.\d\d +\d+ +\d+ % +\d+\.\d\d\n/);
  t.match(stdout, /break-even, in tokens per forward\nM +context +bf16 +int8\n4 +256 +\d+\.\d\d +\d+\.\d\d\n$/);
  const all = await sdar(["bench", "forward", ...quick, "--tokens", "4", "--all"]);
  t.match(all.stdout, /\nM +context +ms +min +tokens\/s +GB\/s/);
  t.match(all.stdout, /\n4 +256 +\d+\.\d\d /);
});

t.test("bench forward --serve", async (t) => {
  const serve = (input: string) => sdar(["bench", "forward", "--serve", ...tiny, "--context", "16"], { input });
  const { status, stdout, stderr } = await serve('{"tokens":8}\n{"tokens":1}\n');
  t.match({ status, stderr }, { status: 0, stderr: "" });
  const lines = stdout.trim().split("\n");
  t.match(
    lines.map((line) => JSON.parse(line)),
    [
      { ready: true, parameters: Number, threads: Number, isa: String },
      { tokens: 8, ms: Number },
      { tokens: 1, ms: Number },
    ],
  );
  const several = await sdar(["bench", "forward", "--serve", ...tiny, "--weights", "int8,int4"], { input: "" });
  t.match(several, { status: 2, stderr: /weights.*int8,int4.*one format with --serve/ });
  t.match(await serve("8\n"), { status: 2, stderr: /standard input: 8 is not a line such as/ });
  t.match(await serve('{"tokens":513}\n'), { status: 1, stderr: /1 to 512/ });
});

t.test("bench generate", async (t) => {
  const args = ["bench", "generate", "--limit", "4", "--compare", "low_confidence_static", "--threads", "2"];
  const { status, stdout } = await sdar([...args, "--json"]);
  t.equal(status, 0);
  const { results, ratio, load, settings } = JSON.parse(stdout);
  t.match(results, [
    { strategy: "dynamic", tokensPerSecond: Number, firstTokenMs: Number, accuracy: { all: 100 } },
    { strategy: "static", tokensPerSecond: Number, firstTokenMs: Number, accuracy: { all: 100 } },
  ]);
  t.ok(results[0].forwards < results[1].forwards);
  t.ok(results[0].firstTokenMs <= results[0].ms);
  t.ok(ratio > 0 && load.seconds > 0 && load.peakMemoryBytes > 1e7);
  t.match(settings, { prompts: 4, weights: "bf16", isa: String });
  t.match(await sdar([...args, "--strategy", "static"]), { status: 0, stdout: /\nstatic +\d/ });
});

t.test("bench generate with an autoregressive model, which has one way only", async (t) => {
  const args = ["bench", "generate", "--model", "models/qwen3-nano", "--limit", "2"];
  const { status, stdout } = await sdar([...args, "--json"]);
  t.equal(status, 0);
  t.match(JSON.parse(stdout).results, [{ strategy: "autoregressive", tokensPerForward: 1, accuracy: { all: Number } }]);
  t.match(await sdar([...args, "--threshold", "0.5"]), {
    status: 2,
    stderr: /--threshold: .*qwen3-nano is autoregressive/,
  });
});

t.test("bench generate takes random prompts where there is no tokenizer", async (t) => {
  const out = join(scratch, "random");
  await sdar(["make-checkpoint", ...tiny, "--out", out]);
  const { status, stdout } = await sdar([
    "bench",
    "generate",
    "--model",
    out,
    "--limit",
    "2",
    "--weights",
    "int8",
    "--json",
  ]);
  t.equal(status, 0);
  const { results, load, peakMemoryBytes } = JSON.parse(stdout);
  t.match(results, [{ tokens: 64, accuracy: {} }]);
  t.ok(load.secondsToFirstToken > load.seconds && peakMemoryBytes >= load.peakMemoryBytes);
});

t.test("bench quality", async (t) => {
  const { status, stdout } = await sdar(["bench", "quality", "--limit", "6", "--weights", "bf16,int4", "--json"]);
  t.equal(status, 0);
  const { results, settings } = JSON.parse(stdout);
  t.match(results, [
    { weights: "f32", kl: 0, sameArgmax: 1 },
    { weights: "bf16", sameArgmax: Number },
    { weights: "int4", sameArgmax: Number },
  ]);
  t.ok(results[1].kl > 0 && results[1].kl < results[2].kl && results[2].kl < 0.1, "fewer bits are further away");
  t.ok(settings.positions > settings.steps);
  t.match(await sdar(["bench", "quality", "--limit", "1", "--weights", "bf16"]), { stdout: /\nbf16 +\d.*e-\d/ });
});

t.test("bench dial", async (t) => {
  const svg = join(scratch, "curves", "dial.svg");
  const list = "low_confidence_dynamic,pairwise_factor,low_confidence_static";
  const args = ["bench", "dial", "--limit", "12", "--strategies", list, "--block-length", "4"];
  const { status, stdout } = await sdar([...args, "--json", "--svg", svg]);
  t.equal(status, 0);
  const { results, settings } = JSON.parse(stdout);
  t.match(settings, { prompts: 12, blockLength: 4, weights: "bf16" });
  const named = results.filter((r: { name?: string }) => r.name !== undefined);
  t.match(named, [
    { name: "default", strategy: "low_confidence_dynamic", setting: { threshold: 0.9 } },
    { name: "fast", strategy: "pairwise_factor", setting: { factor: 5 } },
    { name: "balanced", strategy: "pairwise_factor", setting: { factor: 2 } },
  ]);
  const steps = results.filter((r: { setting: object }) => "steps" in r.setting);
  t.same(
    steps.map((r: { setting: { steps: number } }) => r.setting.steps),
    [1, 2, 3, 4],
    "up to the block length",
  );
  const range = [Number, Number];
  for (const { tokensPerForward, tuning, other } of results) {
    t.ok(tokensPerForward > 0);
    for (const half of [tuning, other]) t.match(half, { forwards: Number, accuracy: Number, accuracyInterval: range });
  }
  t.match(named[1].other, { forwardsRatio: Number, forwardsRatioInterval: range });
  t.ok(named[1].other.forwards <= named[2].other.forwards && named[2].other.forwards < named[0].other.forwards);
  t.match(readFileSync(svg, "utf8"), /^<svg .*Right answers, 6 samples.*pairwise_factor/s);
  const one = await sdar([...args, "--strategies", "pairwise_factor"]);
  t.match(one, { status: 0, stdout: /\npairwise_factor +factor 2 +balanced +\d/ });
  const file = join(scratch, "no-answers.jsonl");
  writeFileSync(file, '{"prompt": "a"}\n{"prompt": "b", "answer": "c"}\n');
  t.match(await sdar(["bench", "dial", "--prompts", file]), { status: 2, stderr: /--prompts: .*answer/ });
});

t.test("bench serve", async (t) => {
  const plot = join(scratch, "serve.svg");
  const few = ["--concurrency", "1,3", "--max-tokens", "24", "--seconds", "0.2", "--rounds", "2", "--threads", "2"];
  const { status, stdout } = await sdar(["bench", "serve", ...tiny, ...few, "--json", "--plot", plot]);
  t.equal(status, 0);
  const { results, settings } = JSON.parse(stdout);
  t.match(settings, { weights: "int8", concurrency: [1, 3], layers: 1, isa: String });
  t.match(results, [
    { concurrency: 1, samples: { length: 2 } },
    { concurrency: 3, samples: { length: 2 } },
  ]);
  for (const r of results) {
    t.ok(r.minTokensPerSecond > 0 && r.minTokensPerSecond <= r.tokensPerSecond);
    t.ok(r.tokensPerSecond <= r.maxTokensPerSecond && r.rows >= r.tokensPerStep);
    t.ok(r.stepMs > 0 && r.bareMs > 0 && r.ofAllowed > 0 && r.schedulerShare > 0 && r.schedulerShare < 1);
  }
  t.ok(results[0].rows < results[1].rows, "more requests, more positions in a step");
  t.match(readFileSync(plot, "utf8"), /^<svg .*throughput.*bare forward/s);
  const words = await sdar(["bench", "serve", "--max-tokens", "1000"]);
  t.match(words, { status: 2, stderr: /max-tokens/ });
});

t.test("bench latency", async (t) => {
  const few = ["--prefix-tokens", "300", "--long-prompt", "500", "--concurrency", "2", "--rounds", "1"];
  const { status, stdout } = await sdar(["bench", "latency", ...tiny, ...few, "--seconds", "0.3", "--json"]);
  t.equal(status, 0);
  const { results, settings } = JSON.parse(stdout);
  t.match(settings, { prefixTokens: 300, rounds: 1 });
  t.match(results, [
    { name: "prefix", sameTokensWithoutCache: true, ratio: Number },
    { name: "prompt", promptTokens: 500, runningRequests: 2 },
    { name: "blocked" },
  ]);
  t.ok(results[0].cachedTokens[0] > 200 && results[0].cachedTokens[0] < 300, "whole blocks of it");
  t.ok(results[1].msBetweenTokens > 0 && results[1].ratio > 0);
  t.ok(results[2].tokensPerSecond > 0 && results[2].loss < 1);
});

t.test("make-checkpoint writes what --shape has in memory", async (t) => {
  const out = join(scratch, "checkpoint");
  const make = ["make-checkpoint", ...tiny, "--out", out];
  t.match(await sdar(make), { status: 0, stdout: /checkpoint: 1 M parameters, 0\.00 GB in 1 file/ });
  t.match(await sdar(make), { status: 2, stderr: /holds a checkpoint already/ });
  const again = JSON.parse((await sdar([...make, "--force", "--dtype", "f32", "--seed", "3", "--json"])).stdout);
  t.equal(again.bytes, 4 * again.parameters);
  t.notOk(existsSync(`${out}.partial`) || existsSync(`${out}.old`));
  await using engine = await Engine.load(out);
  t.match(engine.model, { weights: "f32", layers: 1, hasTokenizer: false, parameters: again.parameters });
  const { tokens } = await engine.generate({ tokens: [1, 2, 3], maxTokens: 9, ignoreEos: true }).result();
  t.equal(tokens.length, 9);
});

t.test("wrong usage ends with 2 and says what is allowed", async (t) => {
  for (const [args, message] of [
    [["bench", "forward", "--shape", "sdar-2b"], /allowed: sdar-nano, sdar-1.7b/],
    [["bench", "forward", "--shape", "sdar-nano", "--layers", "7"], /1 to 6/],
    [["bench", "forward", "--layers", "2"], /--shape/],
    [["bench", "forward", "--shape", "sdar-nano", "--model", "x"], /not both/],
    [["bench", "forward", "--tokens", "1,x"], /whole number >= 1/],
    [["bench", "forward", "--weights", "int2"], /f32, bf16, int8, int4/],
    [["bench", "forward", "--isa", "mmx"], /"mmx"/],
    [["bench", "quality", "--weights", "int8,x"], /f32, bf16, int8, int4/],
    [["bench", "generate", "--compare", "x"], /dynamic, static/],
    [["bench", "dial", "--strategies", "x"], /pairwise_factor/],
    [["make-checkpoint", "--shape", "x", "--out", join(scratch, "x")], /allowed: sdar-nano/],
    [["make-checkpoint", "--shape", "sdar-nano"], /--out/],
  ] as const) {
    t.match(await sdar([...args]), { status: 2, stderr: message }, args.join(" "));
  }
  const context = await sdar(["bench", "forward", "--shape", "sdar-nano", "--context", "1000"]);
  t.match(context, { status: 1, stderr: /exceed the model's context of 1024/ });
});

t.test("native benches refuse what would be unsafe", async (t) => {
  const open = (tokens: number) =>
    openBench({ path: shippedModelPath(), shape: "", weights: "f32", context: 0, tokens, threads: 1 });
  const [bench, other] = [await open(8), await open(16)];
  const step = { tokens: Int32Array.of(1, 2, 559, 559), blockLength: 4, masked: Int32Array.of(2, 3) };
  t.match(await bench.compare(other, [step]), { positions: 2, kl: 0, sameArgmax: 2 });
  const refused = { code: "INVALID_OPTION" };
  t.throws(() => bench.compare(bench, [step]), refused);
  t.throws(() => bench.compare({} as never, [step]), refused);
  t.throws(() => bench.compare(other, [3] as never), refused);
  t.throws(() => bench.compare(other, [{ ...step, masked: Int32Array.of(4) }]), refused);
  const one = { tokens: 1, contexts: Int32Array.of(0), runs: 1, logits: false, limits: false, single: false };
  t.throws(() => bench.run({ ...one, tokens: 0 }), refused);
  await t.rejects(bench.run({ ...one, tokens: 9 }), refused);
  await t.rejects(bench.run({ ...one, contexts: Int32Array.of(1) }), refused);
  await t.rejects(bench.compare(other, [{ ...step, tokens: new Int32Array(12) }]), refused);
  bench.close();
  t.throws(() => bench.info(), { code: "DISPOSED" });
  other.close();
});
