// Answers of an autoregressive model of random weights, one and several at a time, in turns: llama.cpp's time over ours.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { buildPeer, cache, root, writeModel } from "./build.mjs";
import { commit, describeMachine, machineName } from "./machine.mjs";
import { shapes } from "./shapes.mjs";
import { Side } from "./side.mjs";

const usage = `node bench/peers/batch.mjs [options]
  --shape sdar-1.7b            ${Object.keys(shapes).join(", ")}: those of Qwen3
  --layers 8
  --weights int8,int4          bf16, int8, int4, against BF16, Q8_0, Q4_0
  --requests 1,16              at a time
  --prompt 32                  tokens of each prompt
  --tokens 32                  tokens of each answer
  --rounds 5                   timed of each, after one that is not
  --threads 2
  --out FILE                   default bench/results/peers-batch-<machine>.json
`;
const peerFormats = { int8: "Q8_0", int4: "Q4_0", bf16: "BF16" };

const { values: options } = parseArgs({
  options: {
    shape: { type: "string", default: "sdar-1.7b" },
    layers: { type: "string", default: "8" },
    weights: { type: "string", default: "int8,int4" },
    requests: { type: "string", default: "1,16" },
    prompt: { type: "string", default: "32" },
    tokens: { type: "string", default: "32" },
    rounds: { type: "string", default: "5" },
    threads: { type: "string", default: "2" },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
const [layers, prompt, tokens, rounds, threads] = ["layers", "prompt", "tokens", "rounds", "threads"].map((name) => {
  const value = Number(options[name]);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} ${options[name]}: must be an integer >= 1`);
  return value;
});

/** A checkpoint of the shape with random weights, as its autoregressive parent would be. */
function writeCheckpoint() {
  const folder = join(cache, `${options.shape}-${layers}-ar`);
  const file = join(folder, "config.json");
  if (existsSync(file)) return folder;
  const cli = join(root, "dist/cli/main.js");
  const args = ["make-checkpoint", "--shape", options.shape, "--layers", `${layers}`, "--out", folder, "--force"];
  execFileSync(process.execPath, [cli, ...args], { stdio: ["ignore", "ignore", "inherit"] });
  const { block_size, mask_token_id, ...config } = JSON.parse(readFileSync(file, "utf8"));
  rmSync(file);
  writeFileSync(file, JSON.stringify({ ...config, architectures: ["Qwen3ForCausalLM"], model_type: "qwen3" }));
  return folder;
}

async function ours(engine, requests) {
  const began = performance.now();
  const runs = Array.from({ length: requests }, (_, r) => {
    const ids = Int32Array.from({ length: prompt }, (_, p) => 1000 + ((7919 * r) % 1000) + ((37 * p) % 1000));
    return engine.generate({ tokens: ids, maxTokens: tokens, ignoreEos: true, cache: { salt: `${began}-${r}` } });
  });
  const answers = await Promise.all(runs.map((run) => run.result()));
  const ms = performance.now() - began;
  if (answers.some((answer) => answer.usage.completionTokens !== tokens)) throw new Error("an answer is too short");
  return ms;
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

async function main() {
  if (options.help) return process.stdout.write(usage);
  const shape = shapes[options.shape];
  if (!shape) throw new Error(`--shape ${options.shape}: must be one of ${Object.keys(shapes).join(", ")}`);
  const library = join(root, "dist/index.js");
  if (!existsSync(library)) throw new Error(`${library} is missing: run npm run build first`);
  const { Engine } = await import(library);
  const built = buildPeer();
  const counts = options.requests.split(",").map(Number);
  const context = Math.max(...counts) * (prompt + tokens);
  const checkpoint = writeCheckpoint();
  const results = [];
  for (const weights of options.weights.split(",")) {
    const format = peerFormats[weights];
    if (!format) throw new Error(`--weights ${weights}: must be of ${Object.keys(peerFormats).join(", ")}`);
    const gguf = writeModel(built, options.shape, { ...shape, layers }, format);
    const peer = await Side.start("llama.cpp", built.batch, [built.libraries, gguf, context, threads].map(String));
    const engine = await Engine.load(checkpoint, { weights, threads, device: "cpu", kvCache: { tokens: 8192 } });
    for (const requests of counts) {
      const times = { peer: [], ours: [] };
      for (let round = 0; round <= rounds; round++) {
        const theirs = async () => (await peer.ask(`${requests} ${prompt} ${tokens}`)).answer.ms;
        const order = round % 2 ? ["peer", "ours"] : ["ours", "peer"];
        for (const who of order) {
          const ms = who === "peer" ? await theirs() : await ours(engine, requests);
          if (round > 0) times[who].push(ms);
        }
      }
      const ratios = times.peer.map((ms, i) => ms / times.ours[i]);
      const [peerMs, ms] = [median(times.peer), median(times.ours)];
      results.push({
        weights,
        requests,
        ms,
        peerMs,
        ratio: median(ratios),
        ratios,
        tokensPerSecond: (1000 * requests * tokens) / ms,
      });
    }
    await peer.stop();
    await engine.dispose();
  }
  const machine = describeMachine();
  console.log(
    `${options.shape} as an autoregressive model, ${layers} layers; ${machine.cpu}, load ${machine.loadAverage}; llama.cpp ${built.release}; ${threads} threads; prompts of ${prompt}, answers of ${tokens} tokens`,
  );
  console.log("weights  requests     ms  llama.cpp ms  tokens/s  llama.cpp's time over ours");
  for (const r of results) {
    const low = Math.min(...r.ratios).toFixed(2);
    const high = Math.max(...r.ratios).toFixed(2);
    const numbers = [r.requests, r.ms.toFixed(0), r.peerMs.toFixed(0), r.tokensPerSecond.toFixed(1)];
    const cells = numbers.map((value, i) => String(value).padStart([10, 7, 14, 10][i]));
    console.log(`${r.weights.padEnd(7)}${cells.join("")}  ${r.ratio.toFixed(2)} (${low} to ${high})`);
  }
  const { out, ...settings } = options;
  const path = out ?? join(root, "bench/results", `peers-batch-${machineName(machine)}.json`);
  mkdirSync(dirname(path), { recursive: true });
  const report = { results, machine, settings: { ...settings, llamaCpp: built.release }, commit: commit(root) };
  writeFileSync(path, `${JSON.stringify({ ...report, date: new Date().toISOString() }, null, 1)}\n`);
  console.log(path);
}

main().catch((error) => {
  console.error(`bench:peers: ${error.message}`);
  process.exit(1);
});
