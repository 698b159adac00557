// Text to token ids, and the bytes each id stands for.
import { join } from "node:path";
import { Tokenizer as HfTokenizer } from "@huggingface/tokenizers";
import { readJson } from "./checkpoint.js";
import { SdarError } from "./errors.js";

const utf8 = new TextEncoder();

/** Bytes of token i are bytes[offsets[i] … offsets[i + 1]); special tokens and ids without a token have none. */
export interface TokenBytes {
  bytes: Uint8Array<ArrayBuffer>;
  offsets: Uint32Array<ArrayBuffer>;
}

export class Tokenizer {
  readonly #tokenizer: HfTokenizer;
  readonly #toBytes: (token: string) => Uint8Array;

  /** `file` is for messages. */
  constructor(definition: Record<string, unknown>, config: Record<string, unknown>, file: string) {
    this.#toBytes = bytesOfToken(definition.decoder as Decoder | null, file);
    try {
      this.#tokenizer = new HfTokenizer(definition, config);
    } catch (cause) {
      throw new SdarError("TOKENIZER_INVALID", `${file}: ${(cause as Error).message}`, { cause });
    }
  }

  /**
   * The checkpoint's tokenizer; undefined when the folder has no tokenizer.json. Throws TOKENIZER_INVALID or
   * UNSUPPORTED_TOKENIZER, naming the file.
   */
  static load(folder: string, config: Record<string, unknown>): Tokenizer | undefined {
    const file = join(folder, "tokenizer.json");
    const definition = readJson(file, "TOKENIZER_INVALID");
    return definition && new Tokenizer(definition, config, file);
  }

  /** Names of special tokens in the text become those tokens; `addSpecial` adds what the tokenizer puts around a text. */
  encode(text: string, addSpecial: boolean): Int32Array {
    if (text === "") return new Int32Array();
    const { ids } = this.#tokenizer.encode(text, { add_special_tokens: addSpecial });
    if (ids.every(Number.isSafeInteger)) return Int32Array.from(ids);
    throw new SdarError("TOKENIZER_INVALID", "the tokenizer has no token for a part of the text, and no unknown token");
  }

  /** The table for ids 0 … vocabSize - 1. */
  tokenBytes(vocabSize: number): TokenBytes {
    const added = this.#tokenizer.get_added_tokens_decoder();
    const pieces: Uint8Array[] = [];
    const offsets = new Uint32Array(vocabSize + 1);
    let size = 0;
    for (let id = 0; id < vocabSize; id++) {
      const special = added.get(id);
      const token = this.#tokenizer.id_to_token(id);
      if (token !== undefined && !special?.special) {
        const piece = special ? utf8.encode(special.content) : this.#toBytes(token);
        pieces.push(piece);
        size += piece.length;
      }
      offsets[id + 1] = size;
    }
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return { bytes, offsets };
  }
}

interface Decoder {
  type: string;
  decoders?: Decoder[];
  replacement?: string;
  pattern?: { String?: string };
  content?: string;
}

/**
 * How a token's text becomes bytes, from the decoder of tokenizer.json. What a decoder does at the edges of a whole text
 * (Strip, the first space of Metaspace) is left out: a generation continues a text, it does not begin one.
 */
function bytesOfToken(decoder: Decoder | null | undefined, file: string): (token: string) => Uint8Array {
  const steps = decoder?.type === "Sequence" ? (decoder.decoders ?? []) : decoder ? [decoder] : [];
  const replacements: [string, string][] = [];
  let byteLevel = false;
  let byteFallback = false;
  for (const step of steps) {
    const pattern = step.pattern?.String;
    if (step.type === "ByteLevel") byteLevel = true;
    else if (step.type === "ByteFallback") byteFallback = true;
    else if (step.type === "Metaspace") replacements.push([step.replacement ?? "▁", " "]);
    else if (step.type === "Replace" && pattern !== undefined) replacements.push([pattern, step.content ?? ""]);
    else if (step.type !== "Fuse" && step.type !== "Strip") unsupported(`a decoder of type ${step.type}`, file);
  }
  if (byteLevel) return bytesOfCharacters;
  if (!byteFallback && replacements.length === 0) unsupported("no decoder", file);
  return (token) => {
    const byte = byteFallback && /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
    if (byte) return Uint8Array.of(Number.parseInt(byte[1] as string, 16));
    return utf8.encode(replacements.reduce((text, [from, to]) => text.replaceAll(from, to), token));
  };
}

function unsupported(what: string, file: string): never {
  const supported = "ByteLevel, ByteFallback, Metaspace, Replace of a string, Fuse and Strip";
  throw new SdarError("UNSUPPORTED_TOKENIZER", `${file} has ${what}; supported are ${supported}`);
}

/** Byte-level BPE writes each byte as one printable character: itself where it is one, else U+0100 and on, in order. */
const byteOfCharacter = new Map<string, number>();
for (let byte = 0, next = 0x100; byte < 256; byte++) {
  const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  byteOfCharacter.set(String.fromCharCode(printable ? byte : next++), byte);
}

function bytesOfCharacters(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => byteOfCharacter.get(character));
  return bytes.includes(undefined) ? utf8.encode(token) : Uint8Array.from(bytes as number[]);
}
