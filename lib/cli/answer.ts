// An answer on the terminal or in a pipe, as it is generated.
import { setTimeout as sleep } from "node:timers/promises";
import { isAborted } from "../signals.js";
import type { GenerateResult, Run } from "../types.js";
import { dim, isTerminal, printable } from "./terminal.js";
import { WatchView } from "./watch.js";

export interface PrintOptions {
  /** the block being denoised, redrawn in place; the run must have `drafts` */
  watch?: boolean;
  /** with `watch`: milliseconds that a step is shown at least */
  frame: number;
  endTokenIds: readonly number[];
  /** nothing but what the caller prints of the result */
  silent?: boolean;
  signal: AbortSignal;
}

export interface Printed {
  result: GenerateResult;
  /** undefined when there was no text */
  firstTextMs: number | undefined;
  totalMs: number;
  tokensPerSecond: number;
}

/** Whether a block can be watched: a terminal is what it is drawn on. */
export const canWatch = (): boolean => isTerminal(process.stdout);

/** The answer alone on standard output, what was thought before it on standard error; ends with a line's end. */
export async function printRun(run: Run, options: PrintOptions): Promise<Printed> {
  const { watch, frame, endTokenIds, silent, signal } = options;
  const began = performance.now();
  // What is shown may lag behind what is timed.
  const timed = run.result().then((result) => ({ result, totalMs: performance.now() - began }));
  timed.catch(() => {});
  const view = watch ? new WatchView(process.stdout, endTokenIds) : undefined;
  const terminal = isTerminal(process.stdout);
  let firstTextMs: number | undefined;
  let thinking = false;
  for await (const chunk of run) {
    if (chunk.text !== "") firstTextMs ??= performance.now() - began;
    if (silent) continue;
    if (view) {
      for (const _ of view.frames(chunk))
        if (!isAborted(signal)) await sleep(frame, undefined, { signal }).catch(() => {});
      continue;
    }
    if (chunk.reasoning !== undefined) process.stderr.write(dim(printable(chunk.reasoning), process.stderr));
    if (thinking && chunk.text !== "") process.stderr.write("\n\n");
    thinking = chunk.text === "" && (thinking || chunk.reasoning !== undefined);
    process.stdout.write(terminal ? printable(chunk.text) : chunk.text);
  }
  const { result, totalMs } = await timed;
  if (!silent) {
    view?.end(result.text);
    process.stdout.write("\n");
    if (thinking) process.stderr.write("\n");
  }
  return { result, firstTextMs, totalMs, tokensPerSecond: (1000 * result.usage.completionTokens) / totalMs };
}

/** What an answer took, in one line. */
export function summary({ result: { usage, finishReason }, tokensPerSecond }: Printed): string {
  const perForward = usage.tokensPerForward.toFixed(2);
  const why = finishReason === "length" ? "; cut at the length limit" : finishReason === "abort" ? "; interrupted" : "";
  return `${usage.completionTokens} tokens, ${tokensPerSecond.toFixed(1)} tokens/s, ${perForward} tokens per forward${why}`;
}

/** What blocks save: an autoregressive model takes a forward for each token. */
export function saved({ result: { usage } }: Printed): string {
  return `${usage.completionTokens} tokens in ${usage.forwards} forwards; one at a time: ${usage.completionTokens}`;
}
