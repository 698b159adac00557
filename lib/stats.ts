// What engine.stats() says.
import type { NativeStats } from "./binding.js";

/** Counters since the engine was loaded, but for `running`, `waiting`, `paused`, `pages`, `queue` and `recent`. */
export interface EngineStats extends NativeStats {
  /** what TypeScript has not submitted yet */
  queue: {
    /** waiting now; a request with `n` completions counts n times */
    requests: number;
    /** of what waits now: prompts, and `n` times `maxTokens` */
    tokens: number;
    /** since loading: requests rejected with QUEUE_FULL, failed by their deadline while waiting, aborted while waiting */
    rejected: number;
    timedOut: number;
    aborted: number;
  };
  /** Of about the last 10 seconds; 0 where nothing happened. */
  recent: {
    /** that these are of */
    seconds: number;
    stepsPerSecond: number;
    /** generated, by all requests together */
    tokensPerSecond: number;
    /** requests in a step, on average */
    batchSize: number;
    /** share of prompt tokens found in the prefix cache, 0 to 1 */
    cacheHitRate: number;
  };
}

type Sample = Pick<NativeStats, "steps" | "sequences" | "filledTokens" | "promptTokens" | "cachedTokens"> & {
  at: number;
};

const windowMs = 10_000;
const sampleMs = 1000;

/** Rates over a moving window, from samples of the counters. */
export class RecentRates {
  #samples: Sample[];

  /** `now` in milliseconds, as in all calls */
  constructor(now: number) {
    this.#samples = [{ at: now, steps: 0, sequences: 0, filledTokens: 0, promptTokens: 0, cachedTokens: 0 }];
  }

  /** Call while there is something to count; takes a sample once a second. */
  sample(now: number, read: () => NativeStats): void {
    const last = this.#samples.at(-1);
    if (last && now - last.at < sampleMs) return;
    const { steps, sequences, filledTokens, promptTokens, cachedTokens } = read();
    this.#samples.push({ at: now, steps, sequences, filledTokens, promptTokens, cachedTokens });
    // One that is older than the window remains: what happened since began there.
    while (this.#samples[1] && now - this.#samples[1].at > windowMs) this.#samples.shift();
  }

  read(now: number, stats: NativeStats): EngineStats["recent"] {
    const since = this.#samples.find(({ at }) => now - at <= windowMs) ?? (this.#samples.at(-1) as Sample);
    const seconds = (now - since.at) / 1000;
    const steps = stats.steps - since.steps;
    return {
      seconds,
      stepsPerSecond: ratio(steps, seconds),
      tokensPerSecond: ratio(stats.filledTokens - since.filledTokens, seconds),
      batchSize: ratio(stats.sequences - since.sequences, steps),
      cacheHitRate: ratio(stats.cachedTokens - since.cachedTokens, stats.promptTokens - since.promptTokens),
    };
  }
}

const ratio = (part: number, whole: number) => (whole > 0 ? part / whole : 0);
