// One answer: its tokens, their text, and what it comes to.
import type { TokenBytes } from "./tokenizer.js";
import type { Answer, Chunk, Draft, FinishReason, Token } from "./types.js";

export const finishReasons: FinishReason[] = ["end", "stop", "length", "abort"];
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

export interface AnswerSetup {
  /** undefined: chunks have no text */
  tokenBytes?: TokenBytes | undefined;
  stop: string[];
  stopTokens: Int32Array;
}

/** Events of one answer to chunks. Payloads are those of NativeEvents in binding.ts. */
export class AnswerState {
  readonly #setup: AnswerSetup;
  readonly #index: number;
  readonly #bytes: TokenText;
  readonly #tokens: Token[] = [];
  #text = "";
  /** once it has ended */
  answer: Answer | undefined;

  constructor(setup: AnswerSetup, index: number) {
    this.#setup = setup;
    this.#index = index;
    this.#bytes = new TokenText(setup.tokenBytes);
  }

  get tokenCount(): number {
    return this.#tokens.length;
  }

  /** payload of kind 1 */
  tokens(values: Float64Array): Chunk {
    const tokens: Token[] = [];
    for (let at = 1; at + 6 <= values.length; at += 6) {
      const [id, position, block, step, confidence, logprob] = values.subarray(at, at + 6) as unknown as SixNumbers;
      tokens.push({ id, position, block, step, confidence, logprob });
      this.#bytes.push(id);
    }
    for (const token of tokens) this.#tokens.push(token);
    return this.#chunk(this.#bytes.take(values[0] ?? 0), tokens);
  }

  /** payload of kind 4 */
  draft(values: Float64Array): Chunk {
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
    return { ...this.#chunk("", []), draft: { block, step, position, tokens } };
  }

  /** payload of kind 2; the chunk may be empty */
  finish(values: Float64Array): Chunk {
    const [reason = 0, textBytes = 0, promptTokens = 0, cachedTokens = 0, completionTokens = 0, forwards = 0] = values;
    const chunk = this.#chunk(this.#bytes.take(textBytes, true), []);
    const finishReason = finishReasons[reason] as FinishReason;
    const tokensPerForward = forwards > 0 ? completionTokens / forwards : 0;
    const usage = { promptTokens, cachedTokens, completionTokens, forwards, tokensPerForward };
    this.answer = { text: this.#text, tokens: this.#tokens, usage, finishReason };
    const matched = finishReason === "stop" ? this.#stopMatched(textBytes) : undefined;
    if (matched !== undefined) this.answer.stopMatched = matched;
    return chunk;
  }

  #stopMatched(textBytes: number): string | number | undefined {
    const last = this.#tokens.at(-1)?.id;
    if (last !== undefined && this.#setup.stopTokens.includes(last)) return last;
    return this.#setup.stop.find((stop) => this.#bytes.hasAt(stop, textBytes));
  }

  #chunk(text: string, tokens: Token[]): Chunk {
    this.#text += text;
    return { answer: this.#index, text, tokens };
  }
}

type SixNumbers = [number, number, number, number, number, number];
