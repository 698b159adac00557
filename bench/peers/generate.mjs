// Whole answers of one model, greedily, one at a time and in turns: llama.cpp with the autoregressive parent, this engine with
// the same weights, with the SDAR model, and with the parent for which the SDAR model drafts.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { buildPeer, convertModel, root } from "./build.mjs";
import { commit, describeMachine, machineName } from "./machine.mjs";
import { Side } from "./side.mjs";

const usage = `node bench/peers/generate.mjs [options]
  --ar models/qwen3-nano       the parent: a Qwen3 checkpoint in one safetensors file
  --sdar models/sdar-nano      the model that was adapted from it
  --weights bf16               bf16, int8, int4, against BF16, Q8_0, Q4_0
  --prompts test/golden/heldout.jsonl
  --limit 200
  --threads 2
  --context 1024
  --out FILE                   default bench/results/peers-generate-<machine>.json
`;
const peerFormats = { int8: "Q8_0", int4: "Q4_0", bf16: "BF16" };

const { values: options } = parseArgs({
  options: {
    ar: { type: "string", default: join(root, "models/qwen3-nano") },
    sdar: { type: "string", default: join(root, "models/sdar-nano") },
    weights: { type: "string", default: "bf16" },
    prompts: { type: "string", default: join(root, "test/golden/heldout.jsonl") },
    limit: { type: "string", default: "200" },
    threads: { type: "string", default: "2" },
    context: { type: "string", default: "1024" },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

/** An engine of ours with what one answer of it takes. */
function side(name, engine) {
  return {
    name,
    async answer(tokens, maxTokens) {
      const began = performance.now();
      const run = engine.generate({ tokens, maxTokens });
      let firstMs;
      for await (const chunk of run) if (chunk.tokens.length > 0) firstMs ??= performance.now() - began;
      const { tokens: answer, usage } = await run.result();
      const ms = performance.now() - began;
      return { ids: answer.map(({ id }) => id), forwards: usage.forwards, firstMs: firstMs ?? ms, ms };
    },
  };
}

/** An end token is decided as any other, though llama.cpp's side does not list it. */
function peerSide(process, ends) {
  return {
    name: "llama.cpp, parent",
    async answer(tokens, maxTokens) {
      const { answer } = await process.ask(`${maxTokens} ${ends.join(",")} ${[...tokens].join(",")}`);
      const { firstMs, ms, tokens: ids } = answer;
      return { ids, forwards: Math.min(ids.length + 1, maxTokens), firstMs, ms };
    },
  };
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const sum = (values) => values.reduce((total, value) => total + value, 0);

async function main() {
  if (options.help) return process.stdout.write(usage);
  const { weights } = options;
  if (!(weights in peerFormats))
    throw new Error(`--weights ${weights}: must be ${Object.keys(peerFormats).join(", ")}`);
  const library = join(root, "dist/index.js");
  if (!existsSync(library)) throw new Error(`${library} is missing: run npm run build first`);
  const { Engine } = await import(library);
  const built = buildPeer();
  const threads = Number(options.threads);
  const load = { weights, threads, device: "cpu" };
  const parent = await Engine.load(options.ar, load);
  const sdar = await Engine.load(options.sdar, load);
  const lossless = await Engine.load(options.ar, { ...load, draft: { path: resolve(options.sdar), weights } });
  const gguf = convertModel(built, resolve(options.ar), peerFormats[weights]);
  const peer = await Side.start(
    "llama.cpp",
    built.generator,
    [built.libraries, gguf, options.context, threads, "F16"].map(String),
  );
  const sides = [
    peerSide(peer, parent.model.endTokenIds),
    side("ours, parent", parent),
    side("ours, SDAR", sdar),
    side("ours, parent with SDAR's drafts", lossless),
  ];
  const lines = readFileSync(options.prompts, "utf8").split("\n").filter(Boolean).slice(0, Number(options.limit));
  const prompts = [];
  for (const line of lines) prompts.push(await parent.tokenize([{ role: "user", content: JSON.parse(line).prompt }]));
  const answers = sides.map(() => []);
  for (const { answer } of sides) await answer(prompts[0], 256);
  for (const [index, prompt] of prompts.entries()) {
    for (let turn = 0; turn < sides.length; turn++) {
      const at = (index + turn) % sides.length;
      answers[at].push(await sides[at].answer(prompt, 256));
    }
  }
  await peer.stop();
  await Promise.all([parent, sdar, lossless].map((engine) => engine.dispose()));
  const machine = describeMachine();
  const end = new Set(parent.model.endTokenIds);
  const texts = answers.map((all) => all.map(({ ids }) => ids.filter((id) => !end.has(id)).join(" ")));
  const results = sides.map(({ name }, i) => {
    const all = answers[i];
    const [tokens, forwards] = [sum(all.map(({ ids }) => ids.length)), sum(all.map((one) => one.forwards))];
    const seconds = sum(all.map(({ ms }) => ms)) / 1000;
    const same = texts[i].filter((text, at) => text === texts[1][at]).length / prompts.length;
    const [ms, firstMs] = [median(all.map((one) => one.ms)), median(all.map((one) => one.firstMs))];
    return { name, tokens, forwards, seconds, tokensPerSecond: tokens / seconds, ms, firstMs, sameAsParent: same };
  });
  console.log(
    `${machine.cpu}, load ${machine.loadAverage}; llama.cpp ${built.release}, ${peerFormats[weights]}; ours ${weights}, ${parent.model.isa}; ${threads} threads; ${prompts.length} prompts`,
  );
  console.log(
    "                                 tokens/s  x llama.cpp  answer ms  first ms  tokens/forward  same as parent",
  );
  for (const r of results) {
    const numbers = [
      r.tokensPerSecond.toFixed(0),
      (r.tokensPerSecond / results[0].tokensPerSecond).toFixed(2),
      r.ms.toFixed(2),
    ];
    const more = [r.firstMs.toFixed(2), (r.tokens / r.forwards).toFixed(2), `${(100 * r.sameAsParent).toFixed(1)} %`];
    console.log(
      r.name.padEnd(31) + [...numbers, ...more].map((text, i) => text.padStart([10, 13, 11, 10, 16, 16][i])).join(""),
    );
  }
  const { out, ...settings } = options;
  const path = out ?? join(root, "bench/results", `peers-generate-${machineName(machine)}.json`);
  mkdirSync(dirname(path), { recursive: true });
  const report = {
    results,
    machine,
    settings: { ...settings, llamaCpp: built.release },
    commit: commit(root),
    date: new Date().toISOString(),
  };
  writeFileSync(path, `${JSON.stringify(report, null, 1)}\n`);
  console.log(path);
}

main().catch((error) => {
  console.error(`bench:peers: ${error.message}`);
  process.exit(1);
});
