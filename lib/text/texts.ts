// A checkpoint's tokenizer and chat template, on threads of their own: prompts to token ids.
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { NativeModelInfo } from "../binding.js";
import type { Conversation } from "../conversation.js";
import { invalidOption, SdarError } from "../errors.js";
import type { ParsedRequest } from "../options.js";
import { checkPromptLength, promptTooLong, usableContext } from "../room.js";
import { type AddedToken, TokenFinder } from "./added-tokens.js";
import { type LaneTimes, TextLane } from "./lane.js";
import { type LengthBound, maxTextLength, surelyExceeds } from "./length-bound.js";
import type { EncodedPrompt, ModelIds, Splits, Task, TextTables } from "./protocol.js";
import type { TokenBytes } from "./token-bytes.js";

/** A prompt that is being encoded. */
export interface Encoding {
  prompt: Promise<EncodedPrompt>;
  /** nobody waits for it any more */
  cancel(): void;
}

/** Texts above so many UTF-16 units have a thread of their own, so that others need not wait for them. */
const longText = 32_768;
/** What a message costs besides its text, in characters. */
const perMessage = 128;
/** Too long a text up to so many UTF-16 units is told how many tokens it has. */
const countUpTo = longText;
/** In all texts that wait. */
const maxWaitingSize = 2 ** 26;

const defaultTimes: LaneTimes = { textMs: 5000, filesMs: 10_000, idleMs: 60_000 };

interface EncodeSettings {
  parseSpecial: boolean | undefined;
  limit: number;
  key?: string | undefined;
  /** whether it waits however many do */
  wait?: boolean;
}

export class Texts {
  readonly hasTokenizer: boolean;
  hasTemplate = false;
  tokenBytes: TokenBytes | undefined;
  /** added tokens that control something */
  controlTokens: readonly AddedToken[] = [];
  readonly #folder: string;
  readonly #maxWaiting: number;
  readonly #times: LaneTimes;
  readonly #short: TextLane;
  /** has a second copy of the vocabulary, so it is there only while it is needed */
  #long: TextLane | undefined;
  #eosTokenId: number | undefined;
  #ids: ModelIds | undefined;
  #model: NativeModelInfo | undefined;
  #bound: LengthBound | undefined;
  #control = new TokenFinder([]);
  #takesTools = false;
  #waitingSize = 0;
  #closed: SdarError | undefined;

  /** `maxWaiting` texts may wait for their turn. */
  constructor(folder: string, maxWaiting: number, times: LaneTimes = defaultTimes) {
    this.#folder = folder;
    this.#maxWaiting = maxWaiting;
    this.#times = times;
    this.#short = new TextLane(folder, { ...times, idleMs: Number.POSITIVE_INFINITY });
    this.hasTokenizer = existsSync(join(folder, "tokenizer.json"));
  }

  /** Reads the files. Rejects with FILE_UNREADABLE, TOKENIZER_INVALID, UNSUPPORTED_TOKENIZER or TEMPLATE_FAILED. */
  async load(): Promise<void> {
    if (!this.hasTokenizer) return;
    const { hasTemplate, takesTools, eosTokenId } = await this.#short.load();
    this.hasTemplate = hasTemplate;
    this.#takesTools = takesTools;
    this.#eosTokenId = eosTokenId;
  }

  /** Once both are there. Returns the ids that end a generation: those of the model, and the tokenizer's end token. */
  async fit(model: NativeModelInfo): Promise<number[]> {
    this.#model = model;
    const eos = this.#eosTokenId;
    const ends = new Set(model.endTokenIds);
    if (eos !== undefined && eos < model.vocabSize) ends.add(eos);
    if (this.hasTokenizer) {
      this.#ids = { vocabSize: model.vocabSize, control: [model.maskTokenId, ...ends].filter((id) => id >= 0) };
      const tables = await this.#short.run<TextTables>({ kind: "describe", model: this.#ids }, 0).answer;
      this.tokenBytes = tables.tokenBytes;
      this.#bound = tables.lengthBound;
      this.controlTokens = tables.controlTokens;
      this.#control = new TokenFinder(tables.controlTokens);
    }
    return [...ends];
  }

  /**
   * Ids of a prompt: at once when it is made of ids. Throws TOKENIZER_MISSING, TEMPLATE_MISSING, EMPTY_PROMPT, and
   * PROMPT_TOO_LONG for what is surely too long; the promise rejects with QUEUE_FULL unless the request waits for room,
   * PROMPT_TOO_LONG, TEMPLATE_FAILED, TOKENIZER_INVALID.
   */
  encode({ prompt, parseSpecial, native, key, whenFull }: ParsedRequest): Int32Array | Encoding {
    if (prompt instanceof Int32Array) return prompt;
    const model = this.#model as NativeModelInfo;
    this.#checkFiles(prompt);
    if (prompt === "") checkPromptLength(0, native.blockLength, model);
    const limit = usableContext(native.blockLength, model) - 1;
    const tooLong = (promptTokens?: number) => promptTooLong(promptTokens, native.blockLength, model);
    const size = sizeOf(prompt);
    // What a template makes of messages nobody knows: those are measured once they are rendered.
    const surely = typeof prompt === "string" && size > countUpTo && this.#bound;
    if (size > maxTextLength || (surely && surelyExceeds(prompt, limit, surely))) throw tooLong();
    const { prompt: encoded, cancel } = this.#encode(prompt, { parseSpecial, limit, key, wait: whenFull === "wait" });
    const told = encoded.catch((error) => {
      throw error instanceof SdarError && error.code === "PROMPT_TOO_LONG" ? tooLong(error.promptTokens) : error;
    });
    return { prompt: told, cancel };
  }

  /**
   * Ids that a text or messages would have as a prompt, however many. Rejects with TOKENIZER_MISSING, TEMPLATE_MISSING,
   * TEMPLATE_FAILED, TOKENIZER_INVALID, QUEUE_FULL, PROMPT_TOO_LONG.
   */
  async tokenize(prompt: string | Conversation, parseSpecial: boolean | undefined): Promise<Int32Array> {
    this.#checkFiles(prompt);
    this.#checkSize(prompt);
    return (await this.#encode(prompt, { parseSpecial, limit: Number.MAX_SAFE_INTEGER }).prompt).tokens;
  }

  /** What the chat template makes of messages. Rejects as `tokenize` does. */
  async render(conversation: Conversation): Promise<string> {
    this.#checkFiles(conversation);
    this.#checkSize(conversation);
    return this.#ask<string>({ kind: "render", conversation }, sizeOf(conversation)).answer;
  }

  /** Ids of texts that are parts of answers, one after the other, and how many each has. Rejects as `tokenize` does. */
  async split(texts: string[]): Promise<Splits> {
    return this.#ask<Splits>(
      { kind: "split", texts },
      texts.reduce((sum, { length }) => sum + length, 0),
    ).answer;
  }

  #checkFiles(prompt: string | Conversation): void {
    const missing = (what: string, option: string) => `${this.#folder} has no ${what}; give ${option} instead`;
    if (!this.hasTokenizer) throw new SdarError("TOKENIZER_MISSING", missing("tokenizer.json", "tokens"));
    if (typeof prompt === "string") return;
    if (!this.hasTemplate) throw new SdarError("TEMPLATE_MISSING", missing("chat template", "prompt or tokens"));
    if (prompt.tools && !this.#takesTools)
      throw invalidOption(
        "tools",
        prompt.tools,
        "them with a checkpoint whose chat template has calls as JSON in <tool_call>",
      );
  }

  #checkSize(prompt: string | Conversation): void {
    const size = sizeOf(prompt);
    if (size > maxTextLength)
      throw new SdarError("PROMPT_TOO_LONG", `the text has ${size} characters; at most ${maxTextLength} are allowed`);
  }

  #encode(
    prompt: string | Conversation,
    { parseSpecial = typeof prompt === "string", limit, key, wait }: EncodeSettings,
  ): Encoding {
    const task = { kind: "encode", prompt, parseSpecial, limit, countUpTo } as const;
    const { answer, cancel } = this.#ask<EncodedPrompt>(task, sizeOf(prompt), key, wait);
    return { prompt: answer, cancel };
  }

  #ask<T>(task: Task, size: number, key?: string, wait = false): { answer: Promise<T>; cancel(): void } {
    const lane = this.#laneFor(size);
    const full = this.#full(lane, size, wait);
    if (full) return { answer: Promise.reject(full), cancel() {} };
    const { answer, cancel } = lane.run<T>(task, size, key);
    this.#waitingSize += size;
    let left = () => {
      this.#waitingSize -= size;
      left = () => {};
    };
    answer.then(
      () => left(),
      () => left(),
    );
    return {
      answer,
      cancel() {
        left();
        cancel();
      },
    };
  }

  /**
   * Stop strings that begin with the name of a control token, which has no bytes to match: by the id of that token. Throws
   * INVALID_OPTION for a name further inside, which would never match.
   */
  stopsAtTokens(stops: string[]): Map<number, string> {
    const found = new Map<number, string>();
    for (const stop of stops) {
      const first = this.#control.at(stop, 0);
      if (first) {
        if (!found.has(first.id)) found.set(first.id, stop);
        continue;
      }
      for (let at = 1; at < stop.length; at++) {
        const name = this.#control.at(stop, at)?.content;
        if (name !== undefined)
          throw invalidOption("stop", stop, `text without ${name} inside, which is a token and no text`);
      }
    }
    return found;
  }

  close(error: SdarError): void {
    this.#closed = error;
    this.#short.close(error);
    this.#long?.close(error);
  }

  #laneFor(size: number): TextLane {
    if (size <= longText) return this.#short;
    this.#long ??= new TextLane(this.#folder, this.#times, this.#ids);
    return this.#long;
  }

  /** Why no further text can wait. */
  #full(lane: TextLane, size: number, wait: boolean): SdarError | undefined {
    if (this.#closed) return this.#closed;
    if (wait) return undefined;
    const full =
      lane.waiting >= this.#maxWaiting
        ? `${lane.waiting} texts wait to be encoded`
        : this.#waitingSize + size > maxWaitingSize
          ? `the texts that wait to be encoded have ${this.#waitingSize} characters`
          : undefined;
    if (full === undefined) return undefined;
    const retryAfterMs = 1000;
    return new SdarError("QUEUE_FULL", `the queue is full: ${full}; try again in about ${retryAfterMs} ms`, {
      retryAfterMs,
    });
  }
}

/** Characters of a text, or of all text in a conversation and what each message costs besides. */
function sizeOf(prompt: string | Conversation): number {
  if (typeof prompt === "string") return prompt.length;
  const size = (value: unknown): number => {
    if (typeof value === "string") return value.length;
    if (typeof value !== "object" || value === null) return 1;
    let sum = 0;
    for (const [name, inner] of Object.entries(value)) sum += name.length + size(inner);
    return sum;
  };
  return prompt.messages.length * perMessage + size(prompt);
}
