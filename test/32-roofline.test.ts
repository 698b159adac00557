// The roofline model of bench/gpu: against numbers computed by hand, and against itself where it must rise or fall.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../lib/checkpoint.js";

interface Launch {
  kernel: string;
  count: number;
  microseconds: number;
  limit: string;
  memory: number;
  operations: number;
}
interface Prediction {
  shape: string;
  card: string;
  weights: string;
  batch: number;
  block: number;
  tokensPerForward: number;
  rows: number;
  ms: number;
  tokensPerSecond: number;
  fits: boolean;
  launches: Launch[];
}

const folder = join(packageRoot, "bench", "gpu", "roofline");
const run = (...args: string[]) =>
  spawnSync(process.execPath, [join(folder, "run.mjs"), ...args], { encoding: "utf8", maxBuffer: 1 << 28 });
const predict = (...args: string[]): Prediction[] => {
  const { status, stdout, stderr } = run("--json", ...args);
  t.equal(status, 0, stderr);
  return JSON.parse(stdout).results;
};
const one = (...args: string[]) => predict(...args)[0] as Prediction;
const models = JSON.parse(readFileSync(join(folder, "models.json"), "utf8"));

t.test("a step computed by hand: SDAR-4B, one block of 4 on an A800", async (t) => {
  const got = one("--card", "a800", "--batch", "1", "--block", "4", "--tokens-per-forward", "1");
  t.equal(got.rows, 5, "the block, and one position of a committed block in each of its four forwards");
  const launch = (name: string) => got.launches.find((l) => l.kernel === name) as Launch;
  // Launched as 8: 19456 · 2560 weights and 8 tokens of bf16, 8 · 9728 bf16 outputs.
  const gateUp = launch("gemm gate_up");
  t.equal(gateUp.memory, 19456 * 2560 * 2 + 8 * 2560 * 2 + 8 * 9728 * 2);
  t.equal(gateUp.operations, 2 * 19456 * 2560 * 8, "tokens fill a tile of 8");
  t.match([gateUp.count, gateUp.limit], [36, "memory"]);
  // At 95 % of 2039 GB/s 51.5 µs; 304 blocks of 64 rows are 3 rounds of 108 multiprocessors, each 64 · 8 · 2560
  // multiply-adds at 63 % of 312 TFLOP/s; L2: 152 · 2 row blocks read the activations, 33 bytes a clock; 3.6 µs and an
  // eighth of 0.7 besides.
  const memory = gateUp.memory / (0.95 * 2039e9);
  const arithmetic = (3 * 2 * 64 * 8 * 2560) / (0.63 * (312e12 / 108));
  const cache = (19456 * 2560 * 2 + 304 * 8 * 2560 * 2 + 8 * 9728 * 2) / (33 * 108 * 1.41e9);
  const work = Math.cbrt(memory ** 3 + arithmetic ** 3 + cache ** 3);
  t.ok(Math.abs(gateUp.microseconds - 1e6 * work - 3.6 - 0.7 / 8) < 1e-6);
  // Three forwards of 4 see 512 + 4 positions, one of 8 that commits: 8 heads of 128 numbers; queries and outputs of 32 heads.
  t.equal(launch("attention_narrow").memory, (0.75 * 516 + 0.25 * 520) * 8 * 2 * 128 * 2 + 5 * 32 * 128 * 4);
  t.ok(
    got.launches.some((l) => l.kernel === "attention_merge"),
    "516 keys are three chunks",
  );
  const large = one("--card", "a800", "--batch", "128", "--block", "4", "--tokens-per-forward", "2");
  t.match([large.rows, large.launches.find((l) => l.kernel === "lm_head_merge")?.count], [768, 1]);
  t.equal(large.launches.filter((l) => l.kernel === "lm_head").length, 2, "384 requests are two chunks of 256");
  // Host, and every launch.
  const sum = got.launches.reduce((total, l) => total + l.count * l.microseconds, 240 + 6);
  t.ok(Math.abs(sum / 1e3 - got.ms) < 1e-9);
  t.ok(Math.abs(got.tokensPerSecond - 1e3 / got.ms) < 1e-6);
});

t.test("a small step reads every weight once", async (t) => {
  const step = ["--card", "h200", "--batch", "1", "--block", "4", "--tokens-per-forward", "1"];
  for (const { shape, weights, launches } of predict(
    "--shape",
    "sdar-1.7b,sdar-4b,sdar-8b",
    "--weights",
    "bf16,int8,int4",
    ...step,
  )) {
    const products = launches.filter((l) => /^(gemm|lm_head$)/.test(l.kernel));
    const read = products.reduce((total, l) => total + l.count * l.memory, 0);
    const model = models[shape];
    // All weights but an embedding that is not the head, and norms.
    const embedding = model.tied ? 0 : model.matrices.head.bytes[weights];
    const ratio = read / (model.weightBytes[weights] - embedding);
    t.ok(ratio > 0.999 && ratio < 1.02, `${shape} ${weights}: ${ratio}`);
  }
  const sparse = one("--shape", "sdar-30b-a3b", ...step);
  const experts = sparse.launches.find((l) => l.kernel === "gemm_grouped gate_up") as Launch;
  // 8 tokens, of which 3 are padding, take 8 of 128 experts each.
  const met = 128 * (1 - (1 - 8 / 128) ** 8);
  t.ok(Math.abs(experts.memory / (met * models["sdar-30b-a3b"].matrices.expertGateUp.bytes.bf16) - 1) < 0.02);
});

t.test("more work takes longer, narrower weights and faster memory less", async (t) => {
  const rising = (list: Prediction[], what: string) =>
    t.ok(
      list.every((r, i) => i === 0 || r.ms >= (list[i - 1] as Prediction).ms),
      `${what}: ${list.map((r) => r.ms.toFixed(2)).join(" ")}`,
    );
  const batches = ["--batch", "1,8,32,128", "--block", "4", "--tokens-per-forward", "1"];
  const every = predict("--shape", "sdar-1.7b,sdar-4b,sdar-8b,sdar-30b-a3b", ...batches);
  t.equal(every.length, 4 * 7 * 4, "shapes, cards, batches");
  for (let i = 0; i < every.length; i += 4) rising(every.slice(i, i + 4), `${every[i]?.shape} ${every[i]?.card}`);
  rising(predict("--card", "h200", "--block", "4,8,16,32", "--batch", "32", "--tokens-per-forward", "1"), "block");
  rising(
    predict(
      "--card",
      "h200",
      "--block",
      "4",
      "--batch",
      "32",
      "--tokens-per-forward",
      "1",
      "--context",
      "0,512,4096,16384",
    ),
    "context",
  );
  const small = ["--batch", "1", "--block", "4", "--tokens-per-forward", "1"];
  rising(predict("--card", "a800", "--weights", "int4,int8,bf16", ...small), "weights");
  rising(predict("--card", "b200,h200,h100-sxm,a800,rtx-4090,l40s", ...small), "cards");
  const large = one("--card", "rtx-4090", "--shape", "sdar-30b-a3b", "--weights", "bf16", ...small);
  t.notOk(large.fits, "57 GB in 24 GB");
});

t.test("what was measured on an H200", async (t) => {
  const { status, stdout, stderr } = run("--json", "--card", "h200", "--batch", "1");
  t.equal(status, 0, stderr);
  const { steps, launches } = JSON.parse(stdout).measured as {
    steps: { shape: string; batch: number; error: number }[];
    launches: { kernel: string; shape: string; weights: string; size: string; error: number }[];
  };
  t.ok(steps.length > 0 && launches.length > 0);
  for (const { error, ...step } of steps) t.ok(Math.abs(error) < 0.15, `${JSON.stringify(step)}: ${error}`);
  for (const { error, ...launch } of launches) {
    if (launch.kernel === "attention_merge") continue; // at most a tenth of a step, and L2 decides
    t.ok(Math.abs(error) < 0.25, `${JSON.stringify(launch)}: ${error}`);
  }
});

t.test("tables, and options that cannot be", async (t) => {
  const { stdout } = run("--card", "a800,h200", "--batch", "128", "--block", "4", "--kernels");
  t.match(stdout, /^Predictions .* were not measured/);
  t.match(stdout, /Measured on an H200 .* predicted for the same steps/);
  t.notMatch(run("--card", "a800").stdout, /Measured on/);
  t.match(stdout, /\| gemm_large gate_up \| 36 \|/);
  t.match(stdout, /\| gemm qkv \| 36 \|/);
  for (const [args, message] of [
    [["--card", "a900"], /--card a900: allowed are a100-80g, a800/],
    [["--batch", "0"], /--batch 0: allowed are 1 to 1024/],
    [["--weights", "fp8"], /--weights fp8: allowed are bf16, int8, int4/],
    [["--blocks", "4"], /--blocks/],
  ] as const) {
    const { status, stderr } = run(...args);
    t.equal(status, 1);
    t.match(stderr, message);
  }
});
