// A request between the queue and the addon.
import { SdarError } from "./errors.js";
import type { Holdable } from "./held.js";
import type { ParsedRequest } from "./options.js";
import type { Ticket } from "./queue.js";
import type { RunState } from "./run.js";
import type { RequestSpan } from "./telemetry.js";

/** A request from `generate` until its run has settled and the addon has ended its completions. */
export interface Job extends Writable<Ticket>, Writable<Holdable> {
  readonly run: RunState;
  /** from when it is queued */
  span: RequestSpan | undefined;
  /** while its prompt is encoded */
  stopEncoding?: (() => void) | undefined;
  /** its prompt turned out to be one that cannot run: it never was a request */
  refused?: boolean;
  readonly began: number;
  startedMs?: number;
  firstTokenMs?: number;
  cachedTokens: number;
  /** completions that the native side has */
  live: number;
  aborted: boolean;
  /** for room in the queue, instead of failing */
  readonly waits: boolean;
  /** not cut short */
  whole: boolean;
  /** of each completion, as last told */
  readonly forwards: number[];
  readonly costs: number[];
  /** their sum */
  cost: number;
  stopTimer(): void;
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] };

/** What it keeps while it waits, about. */
export function bytesOf({ native, stop, key }: ParsedRequest, tokens: Int32Array): number {
  const texts =
    native.stop.reduce((sum, { length }) => sum + length, 0) + 2 * stop.reduce((sum, { length }) => sum + length, 0);
  const lists = tokens.length + native.stopTokens.length + 2 * native.biasIds.length;
  return 1024 + texts + 4 * lists + 2 * (native.salt.length + (key?.length ?? 0));
}

export const tooLate = (deadline: number | undefined) =>
  new SdarError("DEADLINE_EXCEEDED", `the answer was not there within its deadline of ${deadline} ms`);
