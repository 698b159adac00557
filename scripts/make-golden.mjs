// Golden cases of the pair that ships, from the portable kernels in f32: the requests of the earlier pair's cases.
//   node scripts/make-golden.mjs      writes test/golden/shipped.golden.json and shipped-parent.golden.json
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Engine } from "../dist/index.js";

const local = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const round = (number, digits) => Number(number.toFixed(digits));
/** Steps and confidences nearer than this to going the other way are left out: other kernels may decide otherwise. */
const margin = 2e-3;

const undecided = ({ strategy, tau = 0.9 }, tokens) =>
  strategy === "low_confidence_dynamic" && tokens.some(({ confidence }) => Math.abs(confidence - tau) < margin);

/** [block][position]: step and confidence of what was kept. */
function traceOf({ tokens: { length }, B }, tokens) {
  const trace = [];
  for (const { position, step, confidence } of tokens) {
    const block = Math.floor(position / B) - Math.floor(length / B);
    trace[block] ??= Array(B).fill(null);
    trace[block][position % B] = [step, round(confidence, 6)];
  }
  return trace;
}

function blockCase(given, { tokens, finishReason }) {
  const { first_logits, margin: _, ...request } = given;
  return { ...request, output: tokens.map(({ id }) => id), finish: finishReason, trace: traceOf(given, tokens) };
}

function parentCase({ tokens, max_tokens }, result) {
  const output = result.tokens.map(({ id }) => id);
  const logprobs = result.tokens.map(({ logprob }) => round(logprob, 6));
  return { tokens, max_tokens, output, finish: result.finishReason, logprobs };
}

async function make(model, from, to, requestOf, caseOf) {
  const engine = await Engine.load(local(`models/${model}`), { device: "cpu", isa: "portable", weights: "f32" });
  const given = JSON.parse(readFileSync(local(`test/golden/${from}.golden.json`), "utf8")).cases;
  const results = await Promise.all(given.map((each) => engine.generate(requestOf(each)).result()));
  await engine.dispose();
  const cases = given.flatMap((each, i) => (undecided(each, results[i].tokens) ? [] : [caseOf(each, results[i])]));
  const what = `the portable kernels of this engine in f32, temperature 0: models/${model}`;
  writeFileSync(local(`test/golden/${to}.golden.json`), `${JSON.stringify({ what, cases })}\n`);
  console.log(`${to}: ${cases.length} of ${given.length} cases`);
}

const denoiseOf = ({ strategy, steps, tau, gamma }) => ({ strategy, steps, threshold: tau, entropyBound: gamma });
await make(
  "sdar-nano",
  "sdar-nano",
  "shipped",
  (each) => ({ tokens: each.tokens, blockLength: each.B, denoise: denoiseOf(each), maxTokens: each.max_tokens }),
  blockCase,
);
await make(
  "qwen3-nano",
  "qwen3-nano",
  "shipped-parent",
  ({ tokens, max_tokens }) => ({ tokens, maxTokens: max_tokens }),
  parentCase,
);
