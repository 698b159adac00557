// What engine.on tells, and calling what users gave without being hurt by it.
import { nameAndMessage, type SdarError } from "./errors.js";
import type { FinishReason, Usage } from "./types.js";

/** A request, as events name it. */
export interface RequestInfo {
  /** unique within the engine */
  id: number;
  /** as given */
  key: string | undefined;
  priority: number;
  /** milliseconds since `generate` was called */
  elapsedMs: number;
}

/**
 * Events of `engine.on`. A request that was valid ends with exactly one of `finished`, `failed` and `rejected`.
 */
export interface EngineEvents {
  /** It was accepted and waits, if only for a moment. */
  queued: RequestInfo & {
    promptTokens: number;
    /** requests that wait, this one included */
    queuedRequests: number;
  };
  /** It takes part in its first step; with `n`, its first completion does. */
  started: RequestInfo & { cachedTokens: number };
  /** It was preempted; it goes on by itself later. `answer` as in chunks. */
  preempted: RequestInfo & { answer: number };
  /** `run.result()` resolved. */
  finished: RequestInfo & {
    finishReason: FinishReason;
    usage: Usage;
    /** milliseconds from the call to the first step and to the first tokens; undefined when there were none */
    startedMs: number | undefined;
    firstTokenMs: number | undefined;
  };
  /** `run.result()` rejected. */
  failed: RequestInfo & { error: SdarError };
  /** The queue was full. */
  rejected: RequestInfo & { error: SdarError };
}

export type EventName = keyof EngineEvents;
export type Listener<Name extends EventName> = (event: EngineEvents[Name]) => void;

export const eventNames = [
  "queued",
  "started",
  "preempted",
  "finished",
  "failed",
  "rejected",
] as const satisfies EventName[];

/** Calls `f`; what it throws, or rejects with if it is asynchronous, goes to `failed`, and what that throws nowhere. */
export function safely(f: () => unknown, failed: (error: unknown) => unknown = () => {}): void {
  const report = (error: unknown) => safely(() => failed(error));
  try {
    const result = f();
    if (typeof result === "object" && result !== null && "then" in result) Promise.resolve(result).catch(report);
  } catch (error) {
    report(error);
  }
}

/** What `engine.on` takes besides. */
export interface ListenerOptions {
  /** Ends listening when it aborts. */
  signal?: AbortSignal;
}

type Listeners = Map<(event: never) => unknown, { once: boolean; stop(): void }>;

export class Emitter {
  readonly #listeners = new Map<EventName, Listeners>();
  readonly #failed: (message: string) => void;

  /** `failed` is told about listeners that throw */
  constructor(failed: (message: string) => void) {
    this.#failed = failed;
  }

  /** `onAbort` as signals.ts has it, which imports this file. */
  on<Name extends EventName>(
    name: Name,
    listener: Listener<Name>,
    { once = false, until = () => () => {} }: { once?: boolean; until?(end: () => void): () => void } = {},
  ): void {
    const all: Listeners = this.#listeners.get(name) ?? new Map();
    this.#listeners.set(name, all);
    all.get(listener)?.stop();
    all.set(listener, { once, stop: until(() => all.delete(listener)) });
  }

  off<Name extends EventName>(name: Name, listener: Listener<Name>): void {
    const all = this.#listeners.get(name);
    all?.get(listener)?.stop();
    all?.delete(listener);
  }

  /** `event` is only made when somebody listens. */
  emit<Name extends EventName>(name: Name, event: () => EngineEvents[Name]): void {
    const all = this.#listeners.get(name);
    if (!all?.size) return;
    const made = event();
    Object.freeze(made);
    for (const [listener, { once }] of [...all] as unknown as [Listener<Name>, { once: boolean }][]) {
      if (once) this.off(name, listener);
      safely(
        () => listener(made),
        (error) => this.#failed(`a listener of "${name}" threw: ${nameAndMessage(error)}`),
      );
    }
  }
}
