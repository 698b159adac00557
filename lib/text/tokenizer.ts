// Text to token ids, and the bytes each id stands for. Normalizers, patterns and what is put around a text are those of
// @huggingface/tokenizers; added tokens and merges are found here, in a time that is linear in the text.
import { join } from "node:path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { readJson } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import { type AddedToken, parseAddedTokens, TokenFinder } from "./added-tokens.js";
import { Bpe } from "./bpe.js";
import { boundOf, type LengthBound, maxTextLength, shrinkOf, surelyExceeds } from "./length-bound.js";
import { sortMarks } from "./marks.js";
import { byteCharacters, bytesOfToken, type TokenBytes, tableOf } from "./token-bytes.js";

/** Which added tokens a text is searched for: all, or those that control nothing. */
export type Parsed = "all" | "text";

export interface EncodeOptions {
  /** adds what the tokenizer puts around a text */
  addSpecial: boolean;
  parse?: Parsed;
  /** throws PROMPT_TOO_LONG for more tokens than these */
  limit?: number;
  /** what stands in a text without added tokens becomes this, before anything else */
  restore?: (text: string) => string;
}

/** Characters of normalizer, patterns and what is put around a text, as JSON: what a long pattern takes cannot be stopped. */
const maxRules = 2 ** 16;
const maxFileBytes = 2 ** 25;
/** Ids above have no bytes: no vocabulary is as large. */
const maxTableIds = 2 ** 22;

const utf8 = new TextEncoder();

export class Tokenizer {
  readonly #file: string;
  readonly #bpe: Bpe;
  readonly #added: AddedToken[];
  readonly #control: Set<string>;
  /** for all ids there are */
  readonly #table: TokenBytes;
  readonly #normalize: ((text: string) => string)[];
  /** the number of the part counts for what is put before the first */
  readonly #split: (text: string, part: number) => string[];
  /** ids around a text; null is the place of the text */
  readonly #frame: (number | null)[];
  readonly #shrink: number | undefined;
  /** how tokens share the bytes of a text that is normalized */
  readonly #bound: LengthBound | undefined;
  #finders: Finders;

  /** `config` names tokens that are special although tokenizer.json does not say so; `file` is for messages. */
  constructor(definition: Record<string, unknown>, config: Record<string, unknown>, file: string) {
    this.#file = file;
    const toBytes = bytesOfToken(definition.decoder, file);
    this.#bpe = new Bpe(definition.model, file);
    this.#added = parseAddedTokens(definition.added_tokens, file);
    this.#table = this.#newTable(toBytes);
    const named = namedTokens(config);
    this.#control = new Set(
      this.#added.filter(({ special, content }) => special || named.has(content)).map(({ content }) => content),
    );
    const { normalizer = null, pre_tokenizer = null, post_processor = null } = definition;
    const library = libraryParts({ normalizer, pre_tokenizer, post_processor }, file);
    this.#normalize = normalizers(library.normalizer);
    this.#split = (text, section_index) =>
      library.pre_tokenizer ? library.pre_tokenizer.pre_tokenize(text, { section_index }) : [text];
    this.#frame = this.#frameOf(library);
    const known = keepsAll(pre_tokenizer) && this.#bpe.covers(byteCharacters);
    const strips = this.#added.some(({ lstrip, rstrip }) => lstrip || rstrip);
    this.#shrink = known && !strips ? shrinkOf(normalizer as { type?: unknown } | null) : undefined;
    this.#bound = known
      ? boundOf(
          this.#table,
          this.#added.map(({ content }) => utf8.encode(content)),
        )
      : undefined;
    this.#finders = this.#newFinders();
  }

  /**
   * The checkpoint's tokenizer; undefined when the folder has no tokenizer.json. Throws TOKENIZER_INVALID or
   * UNSUPPORTED_TOKENIZER, naming the file.
   */
  static load(folder: string, config: Record<string, unknown>): Tokenizer | undefined {
    const file = join(folder, "tokenizer.json");
    const definition = readJson(file, "TOKENIZER_INVALID", maxFileBytes);
    return definition && new Tokenizer(definition, config, file);
  }

  /** Names of added tokens in the text become those tokens, of control tokens unless `parse` is "text". */
  encode(
    text: string,
    { addSpecial, parse = "all", limit = Number.MAX_SAFE_INTEGER, restore }: EncodeOptions,
  ): Int32Array {
    const ids: number[] = [];
    if (text === "") return new Int32Array();
    const room = { limit };
    if (text.length > maxTextLength) throw limit === Number.MAX_SAFE_INTEGER ? textTooLong(text) : tooLong(limit);
    const { before, after } = this.#finders[restore ? "guarded" : parse];
    for (const [index, part] of before.split(text).entries()) {
      if (typeof part === "object") ids.push(part.id);
      else this.#encodeText(restore ? restore(part) : part, index, after, ids, room);
    }
    const framed = addSpecial ? this.#frame.flatMap((id) => (id === null ? ids : [id])) : ids;
    if (framed.length > limit) throw tooLong(limit);
    return Int32Array.from(framed);
  }

  /** The added tokens of these ids, such as the mask, are control tokens whatever the files say. */
  addControl(ids: Iterable<number>): void {
    const wanted = new Set(ids);
    for (const { id, content } of this.#added) if (wanted.has(id)) this.#control.add(content);
    this.#finders = this.#newFinders();
  }

  /** Added tokens that control something, and the others. */
  get added(): { control: AddedToken[]; text: AddedToken[] } {
    const isControl = ({ content }: AddedToken) => this.#control.has(content);
    return { control: this.#added.filter(isControl), text: this.#added.filter((token) => !isControl(token)) };
  }

  /** The id of a token by its name. */
  idOf(token: string): number | undefined {
    return this.#added.find(({ content }) => content === token)?.id ?? this.#bpe.ids.get(token);
  }

  /** What bounds the number of tokens of a raw text from below; undefined where nothing is known. */
  get lengthBound(): LengthBound | undefined {
    return this.#bound && this.#shrink !== undefined ? { ...this.#bound, shrink: this.#shrink } : undefined;
  }

  /** The table for ids 0 … vocabSize - 1, shorter where the last ids have no token. */
  tokenBytes(vocabSize: number): TokenBytes {
    const offsets = this.#table.offsets.slice(0, vocabSize + 1);
    return { bytes: this.#table.bytes.slice(0, offsets.at(-1)), offsets };
  }

  #encodeText(text: string, index: number, finder: TokenFinder, ids: number[], room: { limit: number }): void {
    // Unicode's own forms make up to 18 characters of one.
    const most = Math.min(4 * maxTextLength, 2 ** 16 + 64 * text.length);
    const normalized = this.#normalize.reduce((value, normalize) => this.#bounded(normalize(value), most), text);
    for (const part of finder.split(normalized)) {
      if (typeof part === "object") ids.push(part.id);
      else {
        if (this.#bound && surelyExceeds(part, room.limit - ids.length, this.#bound)) throw tooLong(room.limit);
        for (const word of this.#split(part, index)) {
          this.#bpe.encode(word, ids);
          if (ids.length > room.limit) throw tooLong(room.limit);
        }
      }
    }
  }

  #bounded(text: string, most: number): string {
    if (text.length <= most) return text;
    throw new SdarError("TOKENIZER_INVALID", `${this.#file}: the normalizer makes a text longer than ${most}`);
  }

  #newTable(toBytes: (token: string) => Uint8Array): TokenBytes {
    const pieces: (Uint8Array | undefined)[] = [];
    const put = (id: number, bytes: Uint8Array | undefined) => {
      if (id < maxTableIds) pieces[id] = bytes;
    };
    for (const [token, id] of this.#bpe.ids) put(id, toBytes(token));
    for (const { content, id, special } of this.#added) put(id, special ? undefined : utf8.encode(content));
    return tableOf(pieces, this.#file);
  }

  #newFinders(): Finders {
    const { control, text } = this.added;
    const late = this.#normalize.length > 0 ? (token: AddedToken) => token.normalized : () => false;
    const finders = (early: AddedToken[], tokens: AddedToken[]) => ({
      before: new TokenFinder([...early, ...tokens.filter((token) => !late(token))]),
      after: new TokenFinder(tokens.filter(late).map((token) => this.#normalizedToken(token))),
    });
    return { all: finders([], this.#added), text: finders([], text), guarded: finders(control, text) };
  }

  #normalizedToken(token: AddedToken): AddedToken {
    const content = this.#normalize.reduce((value, normalize) => normalize(value), token.content);
    return content === "" ? token : { ...token, content };
  }

  #frameOf({ post_processor }: Library): (number | null)[] {
    if (!post_processor) return [null];
    const text = "\0text";
    const { tokens } = post_processor.post_process([text], null, true);
    return tokens.map((token: string) => {
      const id = token === text ? null : this.idOf(token);
      if (id !== undefined) return id;
      throw new SdarError(
        "TOKENIZER_INVALID",
        `${this.#file}: post_processor adds ${token.slice(0, 40)}, which has no id`,
      );
    });
  }
}

const textTooLong = ({ length }: string) =>
  new SdarError("PROMPT_TOO_LONG", `a text has ${length} characters; at most ${maxTextLength} are allowed`);
const tooLong = (limit: number) => new SdarError("PROMPT_TOO_LONG", `the prompt has more than ${limit} tokens`);

/** Guarded: control tokens are found in the text as it was given only, so that normalization makes none of what was restored. */
type Finders = Record<Parsed | "guarded", { before: TokenFinder; after: TokenFinder }>;

type Rules = Record<"normalizer" | "pre_tokenizer" | "post_processor", unknown>;

/** The library's tokenizer, with its rules but without vocabulary. */
function libraryParts(rules: Rules, file: string): Library {
  const model = { type: "BPE", vocab: {}, merges: [] };
  try {
    const size = JSON.stringify(rules).length;
    if (size > maxRules) throw new Error(`its rules have ${size} characters; at most ${maxRules} are allowed`);
    return new Library({ ...rules, model, added_tokens: [], decoder: null }, {});
  } catch (cause) {
    throw new SdarError("TOKENIZER_INVALID", `${file}: ${(cause as Error).message}`.slice(0, 400), { cause });
  }
}

type Normalizer = NonNullable<Library["normalizer"]>;

/** Its steps one by one; Unicode forms get their marks in order. */
function normalizers(normalizer: Normalizer | null): ((text: string) => string)[] {
  if (!normalizer) return [];
  const { config, normalizers: steps } = normalizer as Normalizer & {
    config: { type: string };
    normalizers?: Normalizer[];
  };
  if (config.type === "Sequence") return (steps ?? []).flatMap(normalizers);
  if (/^NFK?[CD]$/.test(config.type)) return [(text) => normalizer.normalize(sortMarks(text))];
  return [(text) => normalizer.normalize(text)];
}

interface PreTokenizer {
  type?: unknown;
  pretokenizers?: PreTokenizer[];
  behavior?: unknown;
  invert?: unknown;
}

/** Whether all of a text comes out of it, as byte-level characters at the end. */
function keepsAll(rules: unknown): boolean {
  const steps = stepsOf(rules as PreTokenizer | null);
  return steps.at(-1)?.type === "ByteLevel" && steps.every(keepsText);
}

const stepsOf = (rules: PreTokenizer | null): PreTokenizer[] =>
  rules?.type === "Sequence" ? (rules.pretokenizers ?? []).flatMap(stepsOf) : rules ? [rules] : [];

function keepsText({ type, behavior, invert }: PreTokenizer): boolean {
  if (type !== "Split") return type === "ByteLevel" || type === "Digits" || type === "Punctuation";
  return invert !== true && String(behavior).toLowerCase() !== "removed";
}

/** Names of special tokens in tokenizer_config.json and special_tokens_map.json. */
function namedTokens(config: Record<string, unknown>): Set<string> {
  const list = (value: unknown) => (typeof value === "object" && value !== null ? Object.values(value) : []);
  const named = [
    ...Object.entries(config).flatMap(([name, value]) => (name.endsWith("_token") ? [value] : [])),
    ...list(config.additional_special_tokens),
    ...list(config.extra_special_tokens),
    ...list(config.added_tokens_decoder).filter((token) => (token as { special?: unknown } | null)?.special === true),
  ];
  return new Set(named.map(contentOf).filter((content) => content !== undefined));
}

/** Such files write a token as its text or as an object with `content`. */
export function contentOf(token: unknown): string | undefined {
  const content = typeof token === "object" ? (token as { content?: unknown } | null)?.content : token;
  return typeof content === "string" ? content : undefined;
}
