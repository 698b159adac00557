// Seconds of a denoising step and tokens per second, from bytes and operations. A launch takes as long as the slowest of
// what it moves and computes, and what every launch costs; launches run one after the other.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { assumptions, cards } from "./cards.mjs";
import { familyOf, launchesOf } from "./launches.mjs";

/** Shapes and packed bytes: what the C++ sources say, written by `sdar-gpu-bench --models` and held to it by a test. */
export const models = JSON.parse(readFileSync(join(import.meta.dirname, "models.json"), "utf8"));

/** Seconds of one launch on a card. */
export function secondsOf(launch, card) {
  const memory = launch.memory / (card.bandwidth * launch.bandwidth);
  const cache = launch.cache / (assumptions.l2PerClock * card.multiprocessors * card.clock);
  const operations = launch.operations > 0 ? launch.operations / (card.tensorPeak * card.mmaShare * launch.rate) : 0;
  const work = Math.max(memory, cache, operations, launch.issue ?? 0);
  const limit = work === memory ? "memory" : work === operations ? "tensor cores" : work === cache ? "L2" : "issue";
  return { seconds: work + assumptions.launch, limit: work < assumptions.launch ? "launch" : limit };
}

/**
 * The mean step of `batch` sequences that denoise blocks of `block` and fill `tokensPerForward` in each forward: a block
 * takes block / tokensPerForward forwards, its commit rides on the next block's first, so that the mean step computes
 * block + tokensPerForward positions for each and wants (block + tokensPerForward) / 2 tokens from the head.
 */
export function stepOf({ batch, block, tokensPerForward, context, weights }) {
  const each = block + tokensPerForward;
  return { batch, block, context, weights, rows: batch * each, requests: Math.max(1, Math.round((batch * each) / 2)) };
}

/** {ms, tokensPerSecond, rows, limits: {limit: ms}, launches: [{kernel, count, microseconds, …}]} */
export function predict(options) {
  const { card: cardName, shape, batch, tokensPerForward } = options;
  const card = cards[cardName];
  const model = models[shape];
  const step = stepOf(options);
  const limits = {};
  let seconds = assumptions.host;
  const launches = launchesOf(model, step, card).map((launch) => {
    const one = secondsOf(launch, card);
    seconds += launch.count * one.seconds;
    limits[one.limit] = (limits[one.limit] ?? 0) + 1e3 * launch.count * one.seconds;
    const { kernel, count, memory, cache, operations } = launch;
    return { kernel, count, microseconds: 1e6 * one.seconds, limit: one.limit, memory, cache, operations };
  });
  const kvBytes = batch * (step.context + block(step)) * model.layers * 2 * model.kvHeads * model.headDim * 2;
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

const block = (step) => step.rows / step.batch;

export { assumptions, cards, familyOf };
