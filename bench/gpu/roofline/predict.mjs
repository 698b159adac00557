// Seconds of a denoising step and tokens per second, from bytes and operations. A launch takes a fixed time and what it
// moves and computes, which overlap in part; launches run one after the other.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cards } from "./cards.mjs";
import { bandwidth, host, l2PerClock, overlap } from "./efficiencies.mjs";
import { familyOf, launchesOf } from "./launches.mjs";

/** Shapes and packed bytes: what the C++ sources say, written by `sdar-gpu-bench --models` and held to it by a test. */
export const models = JSON.parse(readFileSync(join(import.meta.dirname, "models.json"), "utf8"));

/** Seconds of one launch on a card. */
export function secondsOf(launch, card) {
  const parts = {
    memory: launch.memory / (card.bandwidth * bandwidth),
    L2: launch.cache / (l2PerClock * card.multiprocessors * card.clock),
    arithmetic: launch.arithmetic,
  };
  const work = Object.values(parts).reduce((sum, seconds) => sum + seconds ** overlap, 0) ** (1 / overlap);
  const [limit] = Object.entries({ ...parts, latency: launch.fixed }).reduce((a, b) => (b[1] > a[1] ? b : a));
  return { seconds: launch.fixed + work, limit };
}

/** {seconds, limits: {limit: ms}, launches} of a step as launchesOf takes it. */
function timed(model, step, card) {
  const limits = {};
  let seconds = host.step + host.each * step.batch;
  const launches = launchesOf(model, step, card).map((launch) => {
    const one = secondsOf(launch, card);
    seconds += launch.count * one.seconds;
    limits[one.limit] = (limits[one.limit] ?? 0) + 1e3 * launch.count * one.seconds;
    const { kernel, count, memory, cache, operations } = launch;
    return { kernel, count, microseconds: 1e6 * one.seconds, limit: one.limit, memory, cache, operations };
  });
  return { seconds, limits, launches };
}

/**
 * The mean step of `batch` sequences that denoise blocks of `block` and fill `tokensPerForward` in each forward: a block
 * takes block / tokensPerForward forwards, its commit rides on the next block's first, so that the mean step computes
 * block + tokensPerForward positions for each and wants (block + tokensPerForward) / 2 tokens from the head.
 */
export function stepOf({ batch, block, tokensPerForward, context, weights, prompt = 0 }) {
  const rows = Math.round(batch * (block + tokensPerForward));
  const requests = Math.max(1, Math.round((batch * (block + tokensPerForward)) / 2));
  return { batch, block, tokensPerForward, context, weights, rows, requests, prompt };
}

/** Seconds of the mean step of which `share` compute a prompt of `prompt` positions as well. */
export function meanSeconds(options, share) {
  const card = cards[options.card];
  const model = models[options.shape];
  const without = timed(model, stepOf({ ...options, prompt: 0 }), card).seconds;
  return share > 0 ? (1 - share) * without + share * timed(model, stepOf(options), card).seconds : without;
}

/** {ms, tokensPerSecond, rows, limits: {limit: ms}, launches: [{kernel, count, microseconds, …}]} */
export function predict(options) {
  const { card: cardName, shape, batch, tokensPerForward } = options;
  const card = cards[cardName];
  const model = models[shape];
  const step = stepOf(options);
  const { seconds, limits, launches } = timed(model, step, card);
  const kvBytes = (batch * step.context + step.rows) * model.layers * 2 * model.kvHeads * model.headDim * 2;
  return {
    ...options,
    rows: step.rows,
    requests: step.requests,
    ms: 1e3 * seconds,
    tokensPerSecond: (batch * tokensPerForward) / seconds,
    fits: model.weightBytes[options.weights] + kvBytes < 0.9 * card.memory,
    limits,
    launches,
  };
}

export { cards, familyOf };
