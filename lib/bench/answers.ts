// Whole generations, one at a time, and what they come to.
import type { Engine } from "../engine.js";
import type { GenerateRequest } from "../types.js";
import { accuracy, type Sample } from "./prompts.js";
import { median, sum } from "./report.js";

/** What one generation took. */
export interface Timed {
  text: string;
  /** of the tokens, the one that ended it included */
  ids: number[];
  tokens: number;
  forwards: number;
  seconds: number;
  firstTokenSeconds: number;
}

/** How a prompt is to be answered. */
export type AnswerOptions = Pick<GenerateRequest, "denoise" | "blockLength" | "maxTokens">;

export async function timeAnswer(engine: Engine, sample: Sample, options: AnswerOptions): Promise<Timed> {
  const { prompt, tokens } = sample;
  const { maxTokens = tokens ? 32 : 256, ...more } = options;
  const messages = [{ role: "user", content: prompt }];
  const input = tokens ? { tokens, ignoreEos: true } : engine.model.hasChatTemplate ? { messages } : { prompt };
  const began = performance.now();
  const run = engine.generate({ ...input, ...more, maxTokens });
  let first: number | undefined;
  for await (const chunk of run) if (chunk.tokens.length > 0) first ??= performance.now();
  const { text, tokens: all, usage } = await run.result();
  const ended = performance.now();
  return {
    text,
    ids: all.map(({ id }) => id),
    tokens: usage.completionTokens,
    forwards: usage.forwards,
    seconds: (ended - began) / 1000,
    firstTokenSeconds: ((first ?? ended) - began) / 1000,
  };
}

/** Totals, medians and right answers. */
export function summarise(samples: readonly Sample[], timed: readonly Timed[]) {
  const total = (of: keyof Omit<Timed, "text" | "ids">) => sum(timed.map((one) => one[of]));
  return {
    tokens: total("tokens"),
    forwards: total("forwards"),
    seconds: total("seconds"),
    tokensPerSecond: total("tokens") / total("seconds"),
    tokensPerForward: total("tokens") / total("forwards"),
    firstTokenMs: 1000 * median(timed.map((one) => one.firstTokenSeconds)),
    ms: 1000 * median(timed.map((one) => one.seconds)),
    accuracy: accuracy(
      samples,
      timed.map((one) => one.text),
    ),
  };
}
