// Time as queues and readers see it; tests bring their own.

export interface Clock {
  /** milliseconds; never goes back */
  now(): number;
  /** Calls `then` once, in `ms`, without keeping the process for it; returns what calls it off. */
  after(ms: number, then: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, then) {
    // Node calls at once what lies further ahead.
    const timer = setTimeout(then, Math.min(ms, 2 ** 31 - 1)).unref();
    return () => clearTimeout(timer);
  },
};

/**
 * Events per millisecond, counted only while `busy`, so that idle time does not make it slow; the last seconds count most.
 */
export class BusyRate {
  readonly #memoryMs: number;
  #last = 0;
  #time = 0;
  #count = 0;

  constructor(memoryMs: number) {
    this.#memoryMs = memoryMs;
  }

  /** Accounts for the time since the last call, in which it was `busy` or not, and the `events` at its end. */
  advance(now: number, busy: boolean, events = 0): void {
    const passed = now - this.#last;
    this.#last = now;
    if (!busy) return;
    const kept = Math.exp(-passed / this.#memoryMs);
    this.#time = this.#time * kept + this.#memoryMs * (1 - kept);
    this.#count = this.#count * kept + events;
  }

  /** 0 when nothing is known yet */
  get perMs(): number {
    return this.#time > 0 ? this.#count / this.#time : 0;
  }
}
