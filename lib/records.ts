// What the addon tells of requests, decoded: one record of numbers for each event.
import type { NativeEvent } from "./binding.js";
import type { FinishReason, Token } from "./types.js";

/** What the addon gives for events: records [kind, request, length, ...payload], as native/engine/events.h has them. */
export interface NativeRecords {
  records: Float64Array;
  errors: { code: string; message: string }[];
}

// The numbers, names and orders of native/engine/events.h and request.h.
const eventKind = { tokens: 1, finished: 2, failed: 3, draft: 4, started: 5, preempted: 6 } as const;
const tokenFields = ["id", "position", "block", "step", "confidence", "logprob"] as const satisfies (keyof Token)[];
const finishReasons = ["end", "stop", "length", "abort"] as const satisfies FinishReason[];

export function decodeEvents({ records, errors }: NativeRecords): NativeEvent[] {
  const events: NativeEvent[] = [];
  for (let at = 0; at < records.length; ) {
    const [kind, request, length] = records.subarray(at, at + 3) as unknown as [number, number, number];
    const event = decodeEvent(kind, request, [...records.subarray(at + 3, at + 3 + length)], errors);
    if (event) events.push(event);
    at += 3 + length;
  }
  return events;
}

function decodeEvent(
  kind: number,
  request: number,
  payload: number[],
  errors: NativeRecords["errors"],
): NativeEvent | undefined {
  switch (kind) {
    case eventKind.tokens: {
      const [releasedBytes = 0, forwards = 0, rows = 0, steps = 0, ranked = 0, ...rest] = payload;
      const tokens = decodeTokens(rest, ranked);
      return { kind: "tokens", request, releasedBytes, tokens, forwards, computed: { rows, steps } };
    }
    case eventKind.finished: {
      const [
        reason = 0,
        textBytes = 0,
        promptTokens = 0,
        cachedTokens = 0,
        completionTokens = 0,
        forwards = 0,
        rows = 0,
        steps = 0,
        ...more
      ] = payload;
      const usage = { promptTokens, cachedTokens, completionTokens, forwards, computed: { rows, steps } };
      if (more.length > 0) Object.assign(usage, decodeSpeculation(more));
      return { kind: "finished", request, reason: finishReasons[reason] as FinishReason, textBytes, ...usage };
    }
    case eventKind.failed: {
      const [index = 0, rows = 0, steps = 0] = payload;
      const error = errors[index] ?? { code: "INTERNAL", message: "unknown" };
      return { kind: "failed", request, ...error, computed: { rows, steps } };
    }
    case eventKind.draft: {
      const [block = 0, step = 0, position = 0, ...slots] = payload;
      return { kind: "draft", request, block, step, position, slots: groups(slots, 2).map(decodeSlot) };
    }
    case eventKind.started: {
      const [cachedTokens = 0] = payload;
      return { kind: "started", request, cachedTokens };
    }
    case eventKind.preempted:
      return { kind: "preempted", request };
    default:
      return undefined;
  }
}

const groups = (values: number[], size: number): number[][] =>
  Array.from({ length: values.length / size }, (_, i) => values.slice(size * i, size * (i + 1)));

/** The fields of all tokens; then, of each, so many ranked ids with their log probabilities. */
function decodeTokens(values: number[], ranked: number): Token[] {
  const count = values.length / (tokenFields.length + 2 * ranked);
  const tokens = groups(values.slice(0, count * tokenFields.length), tokenFields.length).map(decodeToken);
  if (ranked === 0) return tokens;
  const pairs = groups(values.slice(count * tokenFields.length), 2);
  return tokens.map((token, i) => ({ ...token, topLogprobs: decodeRanked(pairs.slice(i * ranked, (i + 1) * ranked)) }));
}

/** -1: there is none. */
const decodeRanked = (pairs: number[][]) =>
  pairs.filter(([id = -1]) => id >= 0).map(([id = -1, logprob = 0]) => ({ id, logprob }));

function decodeToken(values: number[]): Token {
  const [id, position, block, step, confidence, logprob] = values as [number, number, number, number, number, number];
  return { id, position, block, step, confidence, logprob };
}

const decodeSpeculation = ([draftForwards = 0, drafted = 0, accepted = 0]: number[]) => ({
  draftForwards,
  drafted,
  accepted,
});

/** -1: masked; a step of -1: the prompt's. */
const decodeSlot = ([id = -1, step = -1]: number[]) => (id < 0 ? null : { id, step: step < 0 ? null : step });
