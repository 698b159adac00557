// What callers get of a run: the parts that everybody writes on top of its iterator and its result.
import { SdarError } from "./errors.js";
import type { Chunk, GenerateResult, Run, TextStream } from "./types.js";

/** What a handle is made of. */
export interface RunParts {
  result(): Promise<GenerateResult>;
  abort(): void;
  /** throws ITERATOR_USED the second time */
  iterate(): AsyncIterator<Chunk, void>;
  /** that it was accepted, or why not */
  started: Promise<void>;
}

export function runHandle({ result, abort, iterate, started }: RunParts): Run {
  // Who does not ask is not told.
  started.catch(() => {});
  let textStream: TextStream | undefined;
  return Object.freeze({
    started,
    result,
    abort,
    text: async () => (await result()).text,
    get textStream() {
      textStream ??= textsOf(iterate, (text) => text) as TextStream;
      return textStream;
    },
    toReadableStream() {
      const encoder = new TextEncoder();
      return textsOf(iterate, (text) => encoder.encode(text));
    },
    [Symbol.asyncIterator]: iterate as Run[typeof Symbol.asyncIterator],
  });
}

/**
 * Texts of the first completion, read when somebody reads: nothing is taken from the run ahead, so that a slow reader holds
 * it back as one of its iterator does.
 */
function textsOf<T>(iterate: () => AsyncIterator<Chunk, void>, convert: (text: string) => T): ReadableStream<T> {
  let chunks: AsyncIterator<Chunk, void> | undefined;
  return new ReadableStream<T>(
    {
      async pull(controller) {
        chunks ??= iterate();
        for (;;) {
          const { done, value } = await chunks.next();
          if (done) return controller.close();
          if (value.answer === 0 && value.text !== "") return controller.enqueue(convert(value.text));
        }
      },
      async cancel() {
        chunks ??= iterate();
        await chunks.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

/** A run that begins once `run` resolves; what it rejects with, the run fails with. */
export function laterRun(run: Promise<Run>): Run {
  run.catch(() => {});
  let opened = false;
  return runHandle({
    started: run.then(({ started }) => started),
    result: () => run.then((begun) => begun.result()),
    abort: () => run.then((begun) => begun.abort()).catch(() => {}),
    iterate() {
      if (opened) throw iteratorUsed();
      opened = true;
      const chunks = run.then((begun) => begun[Symbol.asyncIterator]());
      chunks.catch(() => {});
      return {
        next: async () => (await chunks).next(),
        return: async () => {
          await (await chunks).return?.();
          return { done: true, value: undefined };
        },
      };
    },
  });
}

export const iteratorUsed = () => new SdarError("ITERATOR_USED", "the chunks of a run can be iterated once");
