// Training steps of one network, in turns: PyTorch (train_torch.py) and ours (build/bench/train_bench), tokens a second.
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { options as addonOptions, folder } from "../../scripts/build.mjs";
import { cmake } from "../../scripts/cmake.mjs";
import { root } from "./build.mjs";
import { commit, describeMachine, machineName } from "./machine.mjs";
import { Side } from "./side.mjs";

const usage = `node bench/peers/train.mjs [options]
  --python python3             one that has torch; with Debian's, install libopenblas0-openmp too
  --formats f32                f32, bf16 (PyTorch: autocast)
  --sample 256                 positions of a sample
  --rows 4096                  positions of a step of ours
  --batches 4,8,16             samples of a step of PyTorch's; its best one counts
  --rounds 5                   timed, after one that is not
  --threads 2
  --bench FILE                 train_bench, built where it is not given
  --out FILE                   default bench/results/peers-train-<machine>.json
The network has the shape of models/qwen3-nano: 6 layers, hidden 256, MLP 640, 4 heads of 64 on 2, 560 tokens, tied.
`;
const { values: options } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    formats: { type: "string", default: "f32" },
    sample: { type: "string", default: "256" },
    rows: { type: "string", default: "4096" },
    batches: { type: "string", default: "4,8,16" },
    rounds: { type: "string", default: "5" },
    threads: { type: "string", default: "2" },
    bench: { type: "string" },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (options.help) {
  console.log(usage);
  process.exit();
}

function count(text, name) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} is ${text}; allowed: integers of 1 or more`);
  return value;
}
const [sample, rows, rounds, threads] = ["sample", "rows", "rounds", "threads"].map((name) =>
  count(options[name], name),
);
const batches = options.batches.split(",").map((batch) => count(batch, "batches"));
const formats = options.formats.split(",");
for (const format of formats)
  if (format !== "f32" && format !== "bf16") throw new Error(`--formats has ${format}; allowed: f32, bf16`);

async function bench() {
  if (options.bench) return options.bench;
  const build = await cmake(folder, { ...addonOptions(true), SDAR_BENCH: "ON" }, { targets: ["train_bench"] });
  return join(build, "train_bench");
}

function ours(program, format) {
  const args = ["--what", "step", "--format", format, "--sample", sample, "--rows", rows, "--threads", threads];
  return JSON.parse(execFileSync(program, [...args.map(String), "--seconds", "2"], { encoding: "utf8" })).results[0];
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const program = await bench();
process.env.OMP_NUM_THREADS = String(threads);
const script = join(import.meta.dirname, "train_torch.py");
const results = [];
for (const format of formats) {
  const args = [script, "--format", format, "--sample", sample, "--threads", threads].map(String);
  const peer = await Side.start("PyTorch", options.python, args);
  const times = { own: [], peer: new Map(batches.map((batch) => [batch, []])) };
  for (let round = 0; round <= rounds; round++) {
    const own = ours(program, format);
    if (round > 0) times.own.push(own.rows_per_second);
    for (const batch of batches) {
      const { answer } = await peer.ask(JSON.stringify({ batch, steps: Math.ceil(rows / (batch * sample)) }));
      if (!(answer.loss > 0)) throw new Error(`PyTorch: ${JSON.stringify(answer)} has no loss`);
      if (round > 0) times.peer.get(batch).push((batch * sample * 1000) / median(answer.ms));
    }
  }
  await peer.stop();
  const own = median(times.own);
  const [batch, best] = [...times.peer]
    .map(([batch, speeds]) => [batch, median(speeds)])
    .sort((a, b) => b[1] - a[1])[0];
  results.push({ format, own, peer: best, batch, ratio: own / best, torch: peer.info.torch, all: [...times.peer] });
  console.log(
    `${format}: ours ${own.toFixed(0)} tokens/s, PyTorch ${peer.info.torch} ${best.toFixed(0)} (batch ${batch}), ratio ${(own / best).toFixed(2)}`,
  );
}
const machine = describeMachine();
const out = options.out ?? join(root, `bench/results/peers-train-${machineName(machine)}.json`);
mkdirSync(dirname(out), { recursive: true });
writeFileSync(out, `${JSON.stringify({ commit: commit(root), machine, sample, rows, threads, results }, null, 2)}\n`);
