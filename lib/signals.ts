// AbortSignals: which values are some, and listening to one on behalf of any number of requests.
import { types } from "node:util";
import { safely } from "./events.js";

const readAborted = Object.getOwnPropertyDescriptor(AbortSignal.prototype, "aborted")?.get as () => boolean;

/** Whether `value` is a real AbortSignal, whatever its properties say. */
export function isAbortSignal(value: unknown): value is AbortSignal {
  try {
    readAborted.call(value);
    return !types.isProxy(value);
  } catch {
    return false;
  }
}

export const isAborted = (signal: AbortSignal | undefined): boolean => signal !== undefined && readAborted.call(signal);

interface Group {
  waiting: Set<() => void>;
  listen(): void;
}

/** One listener for each signal: adding and removing costs the same however many requests share it. */
const groups = new WeakMap<AbortSignal, Group>();

// Through the prototype: a signal's own properties may be anyone's.
const { addEventListener, removeEventListener } = EventTarget.prototype;

/** Calls `then` once when `signal` aborts; returns what calls it off. One that has aborted already calls nothing. */
export function onAbort(signal: AbortSignal | undefined, then: () => void): () => void {
  if (!signal || isAborted(signal)) return () => {};
  let group = groups.get(signal);
  if (!group) {
    const waiting = new Set<() => void>();
    group = {
      waiting,
      listen() {
        groups.delete(signal);
        for (const each of waiting) safely(each);
        waiting.clear();
      },
    };
    groups.set(signal, group);
    addEventListener.call(signal, "abort", group.listen, { once: true });
  }
  const { waiting, listen } = group;
  waiting.add(then);
  return () => {
    if (!waiting.delete(then) || waiting.size > 0) return;
    groups.delete(signal);
    removeEventListener.call(signal, "abort", listen);
  };
}
