// What clients ask, and when they hang up: the same for those of the server and those of the engine.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../dist/checkpoint.js";

/** Prompts that the shipped model was not trained on. */
export const prompts = readFileSync(join(packageRoot, "test", "golden", "heldout.jsonl"), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line).prompt);

/** Of clients that begin with the same number; no two of a load alike. */
export class Plan {
  #state;

  constructor(seed) {
    this.#state = (seed * 2654435761) >>> 0;
  }

  #random(n) {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * n);
  }

  /** A third hangs up: after so many events with text, or, at 0, before any. */
  next() {
    const index = this.#random(prompts.length);
    const hangUpAfter = this.#random(3) === 0 ? this.#random(4) : Number.POSITIVE_INFINITY;
    return { index, prompt: prompts[index], hangUpAfter };
  }
}

/** Counts of a load; what it says of answers is checked by who asked. */
export class Tally {
  requests = 0;
  completed = 0;
  hungUp = 0;
  /** by status, or by what went wrong */
  errors = {};
  /** milliseconds: to the first text of an answer, and from one text to the next */
  #first = [];
  #gaps = [];
  /** by prompt: what was answered to it, as a whole */
  #texts = new Map();

  error(what) {
    this.errors[what] = (this.errors[what] ?? 0) + 1;
  }

  answer() {
    this.requests++;
    let last = performance.now();
    let text = "";
    const isFirst = () => text === "";
    return {
      text: (piece) => {
        const now = performance.now();
        (isFirst() ? this.#first : this.#gaps).push(now - last);
        last = now;
        text += piece;
      },
      hangUp: () => void this.hungUp++,
      /** Greedy answers to a prompt are the same, whatever else runs. */
      complete: (index) => {
        this.completed++;
        const known = this.#texts.get(index);
        if (known === undefined) this.#texts.set(index, text);
        else if (known !== text) this.error("another text");
      },
    };
  }

  report() {
    const { requests, completed, hungUp, errors } = this;
    return {
      ...{ requests, completed, hungUp, errors },
      texts: [...this.#texts],
      firstTextMs: percentiles(this.#first),
      betweenTextsMs: percentiles(this.#gaps),
    };
  }
}

function percentiles(values) {
  const sorted = Float64Array.from(values).sort();
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}
