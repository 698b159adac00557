// What is being answered, so that a server can come to its end without cutting off what it need not.
import { setTimeout as sleep } from "node:timers/promises";
import { ApiError } from "./problem.js";

const closing = () =>
  new ApiError(503, "the server is shutting down", {
    code: "shutting_down",
    retryAfterMs: 1000,
    headers: { connection: "close" },
  });

export class Drain {
  readonly #running = new Set<AbortController>();
  #draining = false;
  #idle: (() => void) | undefined;

  get draining(): boolean {
    return this.#draining;
  }

  get running(): number {
    return this.#running.size;
  }

  /** Throws ApiError 503 once the server comes to its end. */
  check(): void {
    if (this.#draining) throw closing();
  }

  /** Counts in what is answered; `controller` is aborted, with an ApiError as reason, when it takes too long. */
  enter(controller: AbortController): () => void {
    this.check();
    this.#running.add(controller);
    return () => {
      this.#running.delete(controller);
      if (this.#running.size === 0) this.#idle?.();
    };
  }

  /** Refuses what is new, lets what runs end within `graceMs`, then tells the rest. Resolves once nothing runs. */
  async drain(graceMs: number): Promise<void> {
    this.#draining = true;
    if (this.#running.size === 0) return;
    const idle = new Promise<void>((resolve) => {
      const before = this.#idle;
      this.#idle = () => {
        before?.();
        resolve();
      };
    });
    const timer = new AbortController();
    const over = sleep(graceMs, undefined, { signal: timer.signal }).catch(() => {});
    await Promise.race([idle, over]);
    timer.abort();
    for (const controller of this.#running) controller.abort(closing());
    // Who reads nothing is not waited for.
    await Promise.race([idle, sleep(lastWordsMs, undefined, { ref: false })]);
  }
}

/** Milliseconds in which a client can take the event that says so. */
const lastWordsMs = 2000;
