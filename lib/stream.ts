// Events of one request to chunks and a result.
import { SdarError } from "./errors.js";
import type { TokenBytes } from "./tokenizer.js";
import type { Chunk, Draft, FinishReason, GenerateResult, Run, Token } from "./types.js";

const finishReasons: FinishReason[] = ["end", "stop", "length", "abort"];
// A byte order mark is text like any other.
const newDecoder = () => new TextDecoder("utf-8", { ignoreBOM: true });

/** The bytes of generated tokens, given out as whole characters. */
class TokenText {
  readonly #table: TokenBytes | undefined;
  readonly #decoder = newDecoder();
  #bytes = new Uint8Array(256);
  #size = 0;
  #taken = 0;

  constructor(table: TokenBytes | undefined) {
    this.#table = table;
  }

  push(id: number): void {
    const piece = bytesOf(this.#table, id);
    if (this.#size + piece.length > this.#bytes.length) {
      const grown = new Uint8Array(2 * (this.#size + piece.length));
      grown.set(this.#bytes.subarray(0, this.#size));
      this.#bytes = grown;
    }
    this.#bytes.set(piece, this.#size);
    this.#size += piece.length;
  }

  /** Whole characters among the first `end` bytes that were not taken yet; with `last`, an incomplete one is U+FFFD. */
  take(end: number, last = false): string {
    const until = Math.max(this.#taken, Math.min(end, this.#size));
    const fresh = this.#bytes.subarray(this.#taken, until);
    this.#taken = until;
    return this.#decoder.decode(fresh, { stream: !last });
  }

  hasAt(text: string, at: number): boolean {
    const wanted = Buffer.from(text);
    return wanted.equals(this.#bytes.subarray(at, Math.min(at + wanted.length, this.#size)));
  }
}

function bytesOf(table: TokenBytes | undefined, id: number): Uint8Array {
  return table ? table.bytes.subarray(table.offsets[id] ?? 0, table.offsets[id + 1] ?? 0) : new Uint8Array();
}

export interface RunSetup {
  /** undefined: chunks have no text */
  tokenBytes?: TokenBytes | undefined;
  promptTokens: number;
  stop: string[];
  stopTokens: Int32Array;
  seed: number | bigint;
  signal?: AbortSignal | undefined;
  /** asks the addon to end the request */
  onAbort(): void;
  onSettled(): void;
}

interface Waiter {
  resolve(result: IteratorResult<Chunk, void>): void;
  reject(error: SdarError): void;
}

/** A run as its engine drives it. Payloads of events are those of NativeEvents in binding.ts. */
export class RunState implements Run {
  readonly #setup: RunSetup;
  readonly #text: TokenText;
  readonly #tokens: Token[] = [];
  readonly #result: Promise<GenerateResult>;
  #resolve!: (result: GenerateResult) => void;
  #reject!: (error: SdarError) => void;
  #textSoFar = "";
  #settled = false;
  /** not given to the iterator yet; ends with the error of a failed run */
  #queue: (Chunk | SdarError)[] = [];
  #waiters: Waiter[] = [];
  #opened = false;
  #closed = false;

  constructor(setup: RunSetup) {
    this.#setup = setup;
    this.#text = new TokenText(setup.tokenBytes);
    this.#result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // The error may only be looked for in the iterator.
    this.#result.catch(() => {});
    setup.signal?.addEventListener("abort", this.#onSignal, { once: true });
  }

  /** A run that never began. */
  static failed(error: SdarError): RunState {
    const nothing = () => {};
    const run = new RunState({
      promptTokens: 0,
      stop: [],
      stopTokens: new Int32Array(),
      seed: 0,
      onAbort: nothing,
      onSettled: nothing,
    });
    run.fail(error);
    return run;
  }

  result(): Promise<GenerateResult> {
    return this.#result;
  }

  abort(): void {
    if (!this.#settled) this.#setup.onAbort();
  }

  readonly #onSignal = () => this.abort();

  [Symbol.asyncIterator](): AsyncIterableIterator<Chunk, void> {
    if (this.#opened) throw new SdarError("ITERATOR_USED", "the chunks of a run can be iterated once");
    this.#opened = true;
    const iterator: AsyncIterableIterator<Chunk, void> = {
      next: () => this.#next(),
      return: async () => {
        this.#close();
        return { done: true, value: undefined };
      },
      throw: async (error) => {
        this.#close();
        throw error;
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  /** payload of kind 1 */
  tokens(values: Float64Array): void {
    const [releasedBytes = 0] = values;
    const tokens: Token[] = [];
    for (let at = 1; at + 6 <= values.length; at += 6) {
      const [id, position, block, step, confidence, logprob] = values.subarray(at, at + 6) as unknown as SixNumbers;
      tokens.push({ id, position, block, step, confidence, logprob });
      this.#text.push(id);
    }
    this.#tokens.push(...tokens);
    this.#emit({ text: this.#text.take(releasedBytes), tokens });
  }

  /** payload of kind 4 */
  draft(values: Float64Array): void {
    const [block = 0, step = 0, position = 0] = values;
    const tokens: Draft["tokens"] = [];
    // A character of several tokens is shown with its last one.
    const decoder = newDecoder();
    for (let at = 3; at + 2 <= values.length; at += 2) {
      const [id = -1, filledAt = -1] = values.subarray(at, at + 2);
      const text = id < 0 ? decoder.decode() : decoder.decode(bytesOf(this.#setup.tokenBytes, id), { stream: true });
      const last = tokens.at(-1);
      if (id < 0 && last) last.text += text;
      tokens.push(id < 0 ? null : { id, step: filledAt < 0 ? null : filledAt, text });
    }
    this.#push({ text: "", tokens: [], draft: { block, step, position, tokens } });
  }

  /** payload of kind 2 */
  finish(values: Float64Array): void {
    const [reason = 0, textBytes = 0, promptTokens = 0, cachedTokens = 0, completionTokens = 0, forwards = 0] = values;
    this.#emit({ text: this.#text.take(textBytes, true), tokens: [] });
    const finishReason = finishReasons[reason] as FinishReason;
    const tokensPerForward = forwards > 0 ? completionTokens / forwards : 0;
    const result: GenerateResult = {
      text: this.#textSoFar,
      tokens: this.#tokens,
      usage: { promptTokens, cachedTokens, completionTokens, forwards, tokensPerForward },
      finishReason,
      seed: this.#setup.seed,
    };
    const matched = finishReason === "stop" ? this.#stopMatched(textBytes) : undefined;
    if (matched !== undefined) result.stopMatched = matched;
    this.#settle();
    this.#resolve(result);
  }

  /** Ends a run that never reached the addon. */
  abortUnstarted(): void {
    this.finish(Float64Array.of(finishReasons.indexOf("abort"), 0, this.#setup.promptTokens, 0, 0, 0));
  }

  fail(error: SdarError): void {
    this.#queue.push(error);
    this.#settle();
    this.#reject(error);
  }

  #stopMatched(textBytes: number): string | number | undefined {
    const last = this.#tokens.at(-1)?.id;
    if (last !== undefined && this.#setup.stopTokens.includes(last)) return last;
    return this.#setup.stop.find((stop) => this.#text.hasAt(stop, textBytes));
  }

  #emit(chunk: Chunk): void {
    this.#textSoFar += chunk.text;
    if (chunk.text !== "" || chunk.tokens.length > 0) this.#push(chunk);
  }

  #push(chunk: Chunk): void {
    const waiter = this.#waiters.shift();
    if (waiter) waiter.resolve({ done: false, value: chunk });
    else if (!this.#closed) this.#queue.push(chunk);
  }

  #next(): Promise<IteratorResult<Chunk, void>> {
    const next = this.#queue.shift();
    if (next instanceof SdarError) return Promise.reject(next);
    if (next) return Promise.resolve({ done: false, value: next });
    if (this.#settled || this.#closed) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  #settle(): void {
    this.#settled = true;
    this.#setup.signal?.removeEventListener("abort", this.#onSignal);
    this.#setup.onSettled();
    this.#wakeAll();
  }

  #close(): void {
    this.#closed = true;
    this.#queue = [];
    this.#wakeAll();
    this.abort();
  }

  /** Answers everyone who waits for a chunk that will not come. */
  #wakeAll(): void {
    for (const waiter of this.#waiters.splice(0)) this.#next().then(waiter.resolve, waiter.reject);
  }
}

type SixNumbers = [number, number, number, number, number, number];
