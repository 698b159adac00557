// The bytes that token ids stand for, from the decoder of tokenizer.json.
import { SdarError } from "../errors.js";

const utf8 = new TextEncoder();

/** Bytes of token i are bytes[offsets[i] … offsets[i + 1]); special tokens and ids without a token or beyond the table have none. */
export interface TokenBytes {
  bytes: Uint8Array<ArrayBuffer>;
  offsets: Uint32Array<ArrayBuffer>;
}

/** What a decoder may make of one token, and of all together. */
const maxTokenBytes = 2 ** 16;
const maxBytes = 2 ** 26;

/** The table of these pieces, by id; `file` is for messages. Throws TOKENIZER_INVALID. */
export function tableOf(pieces: (Uint8Array | undefined)[], file: string): TokenBytes {
  const size = pieces.reduce((sum, piece) => sum + (piece?.length ?? 0), 0);
  if (size > maxBytes) {
    throw new SdarError(
      "TOKENIZER_INVALID",
      `${file}: all tokens together have ${size} bytes; at most ${maxBytes} are allowed`,
    );
  }
  const offsets = new Uint32Array(pieces.length + 1);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (let id = 0; id < pieces.length; id++) {
    const piece = pieces[id];
    if (piece) bytes.set(piece, at);
    at += piece?.length ?? 0;
    offsets[id + 1] = at;
  }
  return { bytes, offsets };
}

/**
 * How a token's text becomes bytes, from the decoder of tokenizer.json. What a decoder does at the edges of a whole text
 * (Strip, the first space of Metaspace) is left out: a generation continues a text, it does not begin one.
 */
export function bytesOfToken(decoder: unknown, file: string): (token: string) => Uint8Array {
  const replacements: [string, string][] = [];
  let byteLevel = false;
  let byteFallback = false;
  for (const { type, pattern, replacement = "▁", content = "" } of stepsOf(decoder, file)) {
    const replaced = pattern?.String;
    if (type === "ByteLevel") byteLevel = true;
    else if (type === "ByteFallback") byteFallback = true;
    else if (type === "Metaspace" && isText(replacement)) replacements.push([replacement, " "]);
    else if (type === "Replace" && isText(replaced) && typeof content === "string")
      replacements.push([replaced, content]);
    else if (type !== "Fuse" && type !== "Strip") unsupported(`a decoder of type ${String(type).slice(0, 40)}`, file);
  }
  if (byteLevel) return bytesOfCharacters;
  if (!byteFallback && replacements.length === 0) unsupported("no decoder", file);
  return (token) => {
    const byte = byteFallback && /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
    if (byte) return Uint8Array.of(Number.parseInt(byte[1] as string, 16));
    return utf8.encode(replacements.reduce((text, [from, to]) => replaceAll(text, from, to, file), token));
  };
}

interface Decoder {
  type?: unknown;
  replacement?: unknown;
  pattern?: { String?: unknown };
  content?: unknown;
}

function stepsOf(decoder: unknown, file: string): Decoder[] {
  const steps =
    (decoder as { type?: unknown; decoders?: unknown } | null | undefined)?.type === "Sequence"
      ? (decoder as { decoders?: unknown }).decoders
      : [decoder].filter((step) => step !== null && step !== undefined);
  if (Array.isArray(steps) && steps.every((step) => typeof step === "object" && step !== null)) return steps;
  return unsupported("a decoder that is none", file);
}

const isText = (value: unknown): value is string => typeof value === "string" && value !== "";

/** Some steps that each double a text would make gigabytes of it. */
function replaceAll(text: string, from: string, to: string, file: string): string {
  const replaced = text.replaceAll(from, to);
  if (replaced.length <= maxTokenBytes) return replaced;
  throw new SdarError(
    "TOKENIZER_INVALID",
    `${file}: the decoder makes more than ${maxTokenBytes} characters of one token`,
  );
}

function unsupported(what: string, file: string): never {
  const supported = "ByteLevel, ByteFallback, Metaspace, Replace of a string, Fuse and Strip";
  throw new SdarError("UNSUPPORTED_TOKENIZER", `${file} has ${what}; supported are ${supported}`);
}

/** Byte-level BPE writes each byte as one printable character: itself where it is one, else U+0100 and on, in order. */
export const byteCharacters: string[] = [];
for (let byte = 0, next = 0x100; byte < 256; byte++) {
  const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  byteCharacters.push(String.fromCharCode(printable ? byte : next++));
}

/** By character, -1 for those that stand for no byte. */
const byteOfCharacter = new Int16Array(0x10000).fill(-1);
for (const [byte, character] of byteCharacters.entries()) byteOfCharacter[character.charCodeAt(0)] = byte;

function bytesOfCharacters(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = byteOfCharacter[token.charCodeAt(i)] as number;
    if (byte < 0) return utf8.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}
