// Beside what was measured: the steps of the engine's closed loops and the launches of bench/results/gpu-h200.json.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { launchOf } from "./launches.mjs";
import { cards, meanSeconds, models, secondsOf } from "./predict.mjs";

const file = join(import.meta.dirname, "..", "..", "results", "gpu-h200.json");
/** The card of that file. */
export const measuredCard = "h200";
const card = measuredCard;

const report = JSON.parse(readFileSync(file, "utf8"));
/** Kernels that have another name since that file was written. */
const renamed = {
  head: "lm_head",
  head_merge: "lm_head_merge",
  list_requests: "gather_rows",
  choose_fill: "select_unmask",
};

/** ms of the mean step of `sequences` that denoise, `prompts` others computing theirs, many in a step or one in many. */
function mean(options, sequences, prompts) {
  const share = Math.min(1, prompts);
  const prompt = share > 0 ? (prompts / share) * report.settings.prompt : 0;
  return 1e3 * meanSeconds({ ...options, card, batch: sequences, prompt }, share);
}

/**
 * {shape, weights, batch, block, tokensPerForward, sequences, prompts, measured, predicted, error, all}: times in ms. The
 * prediction is of as many sequences as the mean step had; `all`: of as many as were asked for, in each step, with as
 * many prompts as they need, {ms, tokensPerSecond}.
 */
export function measuredSteps() {
  const { prompt, answer, weights } = report.settings;
  // Of a running answer, half is done; lengths are even up to 2 · answer, and longer ones run longer.
  const context = Math.round(prompt + (2 * answer) / 3);
  return report.engine.closed.map(({ shape, batch, block, forced, stepMs, rowsPerStep, sequencesPerStep }) => {
    // rows = denoising · each + prompts · prompt, sequences = denoising + prompts
    const each = block + forced;
    const prompts = Math.max(0, (rowsPerStep - sequencesPerStep * each) / (prompt - each));
    const sequences = sequencesPerStep - prompts;
    const options = { shape, weights, block, tokensPerForward: forced, context };
    const predicted = mean(options, sequences, prompts);
    const ms = mean(options, batch, (batch * forced) / answer);
    return {
      ...{ shape, weights, batch, block, tokensPerForward: forced, sequences, prompts },
      ...{ measured: stepMs, predicted, error: predicted / stepMs - 1 },
      all: { ms, tokensPerSecond: (1e3 * batch * forced) / ms },
    };
  });
}

/** {kernel, shape, weights, size, measured, predicted, error} of every launch that a step is made of: times in µs. */
export function measuredLaunches() {
  return report.kernels.flatMap(({ kernel: written, shape, weights, size, microseconds }) => {
    const kernel = written.replace(/^\w+/, (name) => renamed[name] ?? name);
    const launch = launchOf({ kernel, model: models[shape] ?? models["sdar-4b"], weights, size }, cards[card]);
    if (!launch) return [];
    const predicted = 1e6 * secondsOf(launch, cards[card]).seconds;
    return [{ kernel, shape, weights, size, measured: microseconds, predicted, error: predicted / microseconds - 1 }];
  });
}
