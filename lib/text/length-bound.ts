// How many tokens a text has at least, told without tokenizing it.
import type { TokenBytes } from "./token-bytes.js";

/** What is known of a tokenizer for that. Plain data: it crosses threads. */
export interface LengthBound {
  /** at each byte, 1 / the bytes of the longest token that holds it */
  shares: Float64Array;
  /** 1 / the bytes of the longest token */
  least: number;
  /** the normalizer makes a text at most so many times shorter, and leaves ASCII that is followed by ASCII; 1: there is none */
  shrink: number;
}

/** More UTF-16 units than anybody's prompt; what is not refused by a bound is refused by this. */
export const maxTextLength = 2 ** 23;

/**
 * How many times fewer bytes a normalizer of tokenizer.json can leave; undefined where nobody knows. Composing saves most
 * with Hangul (three jamo of 3 bytes to a syllable of 3), mapping a character with ASCII in compatibility forms (4 bytes
 * to 1). ASCII is changed by what follows it at most: e and U+0301, 3 bytes, become é, 2 bytes.
 */
export function shrinkOf(normalizer: { type?: unknown } | null | undefined): number | undefined {
  if (!normalizer) return 1;
  switch (normalizer.type) {
    case "NFC":
    case "NFD":
      return 3;
    case "NFKC":
    case "NFKD":
      // A composed character out of characters that are compatible with ASCII and Latin: 4 · 3 is beyond all there are.
      return 12;
    default:
      return undefined;
  }
}

/** From the bytes of all tokens, and the names of added ones. */
export function boundOf({ bytes, offsets }: TokenBytes, added: Uint8Array[]): LengthBound {
  const longest = new Float64Array(256).fill(1);
  let most = 1;
  const take = (token: Uint8Array) => {
    most = Math.max(most, token.length);
    for (const byte of token) if (token.length > (longest[byte] as number)) longest[byte] = token.length;
  };
  for (let id = 0; id + 1 < offsets.length; id++) take(bytes.subarray(offsets[id], offsets[id + 1]));
  for (const name of added) take(name);
  return { shares: longest.map((length) => 1 / length), least: 1 / most, shrink: 1 };
}

/**
 * Whether the text has more than `limit` tokens for sure. Each byte counts its share of the longest token that holds it:
 * over the bytes of one token these come to 1 at most.
 */
export function surelyExceeds(text: string, limit: number, { shares, least, shrink }: LengthBound): boolean {
  // As many bytes as tokens at most.
  if (3 * text.length <= limit) return false;
  if ((text.length * least) / shrink > limit) return true;
  const other = least / shrink;
  // Rounding must not refuse what fits to the last byte.
  const enough = limit * (1 + 1e-9);
  let sum = 0;
  let unit = text.charCodeAt(0);
  for (let i = 0; i < text.length; i++) {
    const next = i + 1 < text.length ? text.charCodeAt(i + 1) : 0;
    if (unit < 0x80) sum += shrink === 1 || next < 0x80 ? (shares[unit] as number) : other;
    else if (unit < 0x800 || (unit >= 0xd800 && unit < 0xe000)) sum += 2 * other;
    else sum += 3 * other;
    if (sum > enough) return true;
    unit = next;
  }
  return false;
}
