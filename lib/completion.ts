// One completion: its tokens, their text, and what it comes to. In the public API it is an answer.
import { AnswerParts, type PartsSetup } from "./answer-parts.js";
import type { NativeEvent, NativeFinish } from "./binding.js";
import type { ParsedFormat } from "./format.js";
import type { TokenBytes } from "./text/token-bytes.js";
import type { Answer, Chunk, Draft, Token, ToolCall } from "./types.js";

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

  get size(): number {
    return this.#size;
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

export type Finish = Omit<NativeFinish, "computed">;
type EventOf<Kind extends NativeEvent["kind"]> = Extract<NativeEvent, { kind: Kind }>;

export interface CompletionSetup extends Partial<PartsSetup> {
  /** undefined: chunks have no text */
  tokenBytes?: TokenBytes | undefined;
  stop: string[];
  stopTokens: Int32Array;
  /** by the id of a token that a stop string names: that string */
  stopNames?: ReadonlyMap<number, string> | undefined;
  format?: Pick<ParsedFormat, "read"> | undefined;
}

/** Events of one completion to chunks. */
export class Completion {
  readonly #setup: CompletionSetup;
  readonly #index: number;
  readonly #bytes: TokenText;
  readonly #tokens: Token[] = [];
  #text = "";
  #reasoning = "";
  readonly #toolCalls: ToolCall[] = [];
  /** from the first text on, where there is more in an answer than text */
  #parts: AnswerParts | undefined;
  /** once it has ended */
  answer: Answer | undefined;

  constructor(setup: CompletionSetup, index: number) {
    this.#setup = setup;
    this.#index = index;
    this.#bytes = new TokenText(setup.tokenBytes);
  }

  get tokenCount(): number {
    return this.#tokens.length;
  }

  tokens({ releasedBytes, tokens }: EventOf<"tokens">): Chunk {
    for (const token of tokens) {
      this.#tokens.push(Object.freeze(token));
      this.#bytes.push(token.id);
    }
    return this.#chunk(this.#bytes.take(releasedBytes), tokens);
  }

  draft({ block, step, position, slots }: EventOf<"draft">): Chunk {
    const tokens: Draft["tokens"] = [];
    // A character of several tokens is shown with its last one.
    const decoder = newDecoder();
    for (const slot of slots) {
      const text = slot ? decoder.decode(bytesOf(this.#setup.tokenBytes, slot.id), { stream: true }) : decoder.decode();
      const last = tokens.at(-1);
      if (!slot && last) last.text += text;
      tokens.push(slot && { ...slot, text });
    }
    return { answer: this.#index, text: "", tokens: [], draft: { block, step, position, tokens } };
  }

  /** How it ends with what it has, when the native side is not waited for. */
  get cutShort(): Pick<NativeFinish, "reason" | "textBytes" | "completionTokens"> {
    return { reason: "abort", textBytes: this.#bytes.size, completionTokens: this.#tokens.length };
  }

  /** The chunk may be empty. */
  finish({ reason, textBytes, promptTokens, cachedTokens, completionTokens, forwards, ...more }: Finish): Chunk {
    const chunk = this.#chunk(this.#bytes.take(textBytes, true), [], true);
    const tokensPerForward = forwards > 0 ? completionTokens / forwards : 0;
    const usage = {
      promptTokens,
      cachedTokens,
      completionTokens,
      forwards,
      tokensPerForward,
      ...speculation(forwards, more),
    };
    const matched = reason === "stop" ? this.#stopMatched(textBytes) : undefined;
    // Whoever gets it may be one of several.
    this.answer = Object.freeze({
      text: this.#text,
      ...(this.#reasoning !== "" && { reasoning: this.#reasoning }),
      ...(this.#toolCalls.length > 0 && { toolCalls: Object.freeze(this.#toolCalls) as ToolCall[] }),
      tokens: Object.freeze(this.#tokens) as Token[],
      usage: Object.freeze(usage),
      finishReason: reason,
      ...(matched === undefined ? {} : { stopMatched: matched }),
      ...((reason === "end" || reason === "length") && this.#toolCalls.length === 0
        ? this.#setup.format?.read(this.#text)
        : undefined),
    });
    return chunk;
  }

  #stopMatched(textBytes: number): string | number | undefined {
    const last = this.#tokens.at(-1)?.id;
    if (last !== undefined && this.#setup.stopTokens.includes(last)) return this.#setup.stopNames?.get(last) ?? last;
    return this.#setup.stop.find((stop) => this.#bytes.hasAt(stop, textBytes));
  }

  #chunk(text: string, tokens: Token[], last = false): Chunk {
    const { reasoning = "never", calls } = this.#setup;
    if (reasoning !== "never" || calls) this.#parts ??= new AnswerParts({ reasoning, calls });
    const parts = this.#parts?.take(text, last) ?? { text };
    this.#text += parts.text;
    this.#reasoning += parts.reasoning ?? "";
    if (parts.toolCalls) this.#toolCalls.push(...parts.toolCalls);
    return { answer: this.#index, ...parts, tokens };
  }
}

/** What usage says of drafts; nothing without a draft model. */
function speculation(forwards: number, { draftForwards, drafted = 0, accepted = 0 }: Partial<NativeFinish>) {
  if (draftForwards === undefined) return {};
  return { drafted, accepted, draftForwards, verifyForwards: forwards - draftForwards };
}
