// Byte-pair encoding of one word: vocabulary and merges of tokenizer.json, and the merging in O(n log n). The library's own
// takes some 10 µs and 200 bytes of heap for each character, too much for one word of a megabyte.
import { SdarError } from "../errors.js";

/** The part `model` of tokenizer.json. */
interface BpeDefinition {
  type?: unknown;
  vocab?: unknown;
  merges?: unknown;
  unk_token?: unknown;
  fuse_unk?: unknown;
  byte_fallback?: unknown;
  ignore_merges?: unknown;
  continuing_subword_prefix?: unknown;
  end_of_word_suffix?: unknown;
}

/** Ids and places are packed into one number of 52 bits. */
const maxIds = 2 ** 26;
/** Some times as many as any vocabulary has; each takes memory. */
const maxTokens = 2 ** 20;

const utf8 = new TextEncoder();

export class Bpe {
  readonly ids = new Map<string, number>();
  readonly #merges: MergeTable;
  readonly #unknown: number | undefined;
  readonly #fuseUnknown: boolean;
  readonly #byteFallback: boolean;
  readonly #ignoreMerges: boolean;

  /** `file` is for messages. Throws TOKENIZER_INVALID, UNSUPPORTED_TOKENIZER. */
  constructor(definition: unknown, file: string) {
    if (typeof definition !== "object" || definition === null) throw invalid(file, "model", "an object");
    const model: BpeDefinition = definition;
    const { vocab, merges } = model;
    if (model.type !== "BPE" && !(model.type === undefined && Array.isArray(merges))) {
      throw new SdarError(
        "UNSUPPORTED_TOKENIZER",
        `${file} has a model of type ${String(model.type).slice(0, 40)}; supported is BPE`,
      );
    }
    for (const name of ["continuing_subword_prefix", "end_of_word_suffix"] as const) {
      if (model[name]) throw new SdarError("UNSUPPORTED_TOKENIZER", `${file} has a ${name}; supported is none`);
    }
    if (typeof vocab !== "object" || vocab === null || Array.isArray(vocab))
      throw invalid(file, "model.vocab", "an object");
    if (!Array.isArray(merges)) throw invalid(file, "model.merges", "a list");
    const tokens = Object.keys(vocab);
    if (tokens.length > maxTokens)
      throw invalid(file, `model.vocab, of ${tokens.length} tokens,`, `at most ${maxTokens}`);
    if (merges.length > maxTokens) throw invalid(file, `model.merges, ${merges.length} pairs,`, `at most ${maxTokens}`);
    for (const [token, id] of Object.entries(vocab)) this.ids.set(token, checkId(id, token, file));
    this.#merges = new MergeTable(merges.length);
    for (const [rank, merge] of merges.entries()) this.#addMerge(merge, rank, file);
    this.#unknown = typeof model.unk_token === "string" ? this.ids.get(model.unk_token) : undefined;
    this.#fuseUnknown = model.fuse_unk === true;
    this.#byteFallback = model.byte_fallback === true;
    this.#ignoreMerges = model.ignore_merges === true;
  }

  /** Whether there is a token for each byte, written as byte-level BPE writes it. */
  covers(characters: Iterable<string>): boolean {
    for (const character of characters) if (!this.ids.has(character)) return false;
    return true;
  }

  /** Appends the ids of a word. What has no token, where there is no unknown token, is left out, as in the Rust library. */
  encode(word: string, ids: number[]): void {
    const whole = this.#ignoreMerges ? this.ids.get(word) : undefined;
    if (whole !== undefined) ids.push(whole);
    else this.#merge(word, ids);
  }

  #addMerge(merge: unknown, rank: number, file: string): void {
    const [left, right, ...rest] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    const parts = typeof left === "string" && typeof right === "string" && rest.length === 0;
    if (!parts) throw invalid(file, `model.merges[${rank}]`, "two tokens");
    const [l, r, merged] = [left, right, left + right].map((token) => this.ids.get(token));
    if (l === undefined || r === undefined || merged === undefined) {
      const what = JSON.stringify([left, right].map((part) => part.slice(0, 40)));
      throw new SdarError(
        "TOKENIZER_INVALID",
        `${file}: model.merges[${rank}], ${what}, has a part or a whole without id`,
      );
    }
    this.#merges.set(l, r, rank, merged);
  }

  /** The first ids of a word, before merging; returns how many. */
  #symbols(word: string, symbols: Int32Array): number {
    let count = 0;
    let lastUnknown = false;
    for (const character of word) {
      const id = this.ids.get(character);
      const bytes = id === undefined && this.#byteFallback ? this.#bytesOf(character) : undefined;
      const unknown = id === undefined && !bytes;
      if (id !== undefined) symbols[count++] = id;
      else if (bytes) for (const byte of bytes) symbols[count++] = byte;
      else if (this.#unknown !== undefined && !(this.#fuseUnknown && lastUnknown)) symbols[count++] = this.#unknown;
      lastUnknown = unknown;
    }
    return count;
  }

  #bytesOf(character: string): number[] | undefined {
    const ids = Array.from(utf8.encode(character), (byte) =>
      this.ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`),
    );
    return ids.includes(undefined) ? undefined : (ids as number[]);
  }

  /** The pair of lowest rank first, of equal ones the leftmost, as all implementations have it. */
  #merge(word: string, ids: number[]): void {
    // A UTF-16 unit has at most 3 bytes.
    const { symbols, next, previous, heap } = workspaceFor(this.#byteFallback ? 3 * word.length : word.length);
    const count = this.#symbols(word, symbols);
    heap.clear();
    for (let at = 0; at < count; at++) {
      next[at] = at + 1 < count ? at + 1 : -1;
      previous[at] = at - 1;
    }
    const offer = (at: number) => {
      const right = next[at] as number;
      if (right < 0) return;
      const slot = this.#merges.find(symbols[at] as number, symbols[right] as number);
      if (slot >= 0) heap.push((this.#merges.ranks[slot] as number) * maxIds + at);
    };
    for (let at = 0; at + 1 < count; at++) offer(at);
    for (let key = heap.pop(); key >= 0; key = heap.pop()) {
      const at = key % maxIds;
      const right = next[at] as number;
      // Its left half was merged away, or one of the two is another by now.
      if ((symbols[at] as number) < 0 || right < 0) continue;
      const slot = this.#merges.find(symbols[at] as number, symbols[right] as number);
      if (slot < 0 || this.#merges.ranks[slot] !== Math.floor(key / maxIds)) continue;
      symbols[at] = this.#merges.merged[slot] as number;
      symbols[right] = -1;
      const after = next[right] as number;
      next[at] = after;
      if (after >= 0) previous[after] = at;
      offer(at);
      if ((previous[at] as number) >= 0) offer(previous[at] as number);
    }
    for (let at = 0; at >= 0 && at < count; at = next[at] as number) ids.push(symbols[at] as number);
  }
}

/** Merges by the ids of both halves: open addressing, half empty. */
class MergeTable {
  readonly ranks: Int32Array;
  readonly merged: Int32Array;
  readonly #left: Int32Array;
  readonly #right: Int32Array;
  readonly #mask: number;

  constructor(count: number) {
    const size = 2 ** Math.ceil(Math.log2(2 * count + 2));
    this.#mask = size - 1;
    this.#left = new Int32Array(size).fill(-1);
    this.#right = new Int32Array(size);
    this.ranks = new Int32Array(size);
    this.merged = new Int32Array(size);
  }

  /** A later merge of the same pair replaces the one before. */
  set(left: number, right: number, rank: number, merged: number): void {
    const slot = this.#slot(left, right);
    this.#left[slot] = left;
    this.#right[slot] = right;
    this.ranks[slot] = rank;
    this.merged[slot] = merged;
  }

  /** -1 when the two do not merge */
  find(left: number, right: number): number {
    const slot = this.#slot(left, right);
    return this.#left[slot] === left ? slot : -1;
  }

  #slot(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    for (let slot = hash & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const found = this.#left[slot] as number;
      if (found < 0 || (found === left && this.#right[slot] === right)) return slot;
    }
  }
}

/** Smallest number first. */
class Heap {
  #keys: Float64Array;
  #size = 0;

  constructor(capacity: number) {
    this.#keys = new Float64Array(capacity);
  }

  clear(): void {
    this.#size = 0;
  }

  push(key: number): void {
    const keys = this.#keys;
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((keys[parent] as number) <= key) break;
      keys[at] = keys[parent] as number;
      at = parent;
    }
    keys[at] = key;
  }

  /** -1 when it is empty */
  pop(): number {
    if (this.#size === 0) return -1;
    const keys = this.#keys;
    const first = keys[0] as number;
    const key = keys[--this.#size] as number;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && (keys[child + 1] as number) < (keys[child] as number)) child++;
      if ((keys[child] as number) >= key) break;
      keys[at] = keys[child] as number;
      at = child;
    }
    keys[at] = key;
    return first;
  }
}

/** For a word of so many symbols; each merge takes one key from the heap and adds at most two. */
const newWorkspace = (size: number) => ({
  size,
  symbols: new Int32Array(size),
  next: new Int32Array(size),
  previous: new Int32Array(size),
  heap: new Heap(2 * size + 1),
});

const keptSize = 4096;
const kept = newWorkspace(keptSize);
const workspaceFor = (size: number) => (size <= keptSize ? kept : newWorkspace(size));

function checkId(id: unknown, token: string, file: string): number {
  if (Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) < maxIds) return id as number;
  throw invalid(file, `the id of ${JSON.stringify(token.slice(0, 40))}`, `an integer from 0 to ${maxIds - 1}`);
}

export const checkTokenId = checkId;

const invalid = (file: string, what: string, allowed: string) =>
  new SdarError("TOKENIZER_INVALID", `${file}: ${what} must be ${allowed}`);
