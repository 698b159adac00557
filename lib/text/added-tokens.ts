// Added tokens: found in a text before everything else, the longest at each place.

import { SdarError } from "../errors.js";
import { checkTokenId } from "./bpe.js";

/** An entry of `added_tokens` in tokenizer.json. */
export interface AddedToken {
  content: string;
  id: number;
  special: boolean;
  /** looked for in the text after normalization */
  normalized: boolean;
  /** takes the white space before or after it along */
  lstrip: boolean;
  rstrip: boolean;
}

const maxTokens = 2 ** 17;
const maxLength = 1024;

/** The list in tokenizer.json; `file` is for messages. Throws TOKENIZER_INVALID. */
export function parseAddedTokens(list: unknown, file: string): AddedToken[] {
  const invalid = (what: string) => new SdarError("TOKENIZER_INVALID", `${file}: ${what}`);
  if (list === undefined || list === null) return [];
  if (!Array.isArray(list)) throw invalid("added_tokens must be a list");
  if (list.length > maxTokens) throw invalid(`${list.length} added tokens; at most ${maxTokens} are allowed`);
  return list.map((token: Partial<AddedToken> | null, i) => {
    const { content, id, special = false, lstrip = false, rstrip = false } = token ?? {};
    if (typeof content !== "string" || content === "" || content.length > maxLength) {
      throw invalid(`added_tokens[${i}].content must be text of 1 to ${maxLength} characters`);
    }
    const normalized = token?.normalized ?? !special;
    return { content, id: checkTokenId(id, content, file), special, normalized, lstrip, rstrip };
  });
}

interface Node {
  readonly next: Map<number, Node>;
  token: AddedToken | undefined;
}

const newNode = (): Node => ({ next: new Map(), token: undefined });

/** A set of added tokens that finds them in texts. */
export class TokenFinder {
  readonly #root = newNode();

  constructor(tokens: Iterable<AddedToken>) {
    for (const token of tokens) {
      let node = this.#root;
      for (let i = 0; i < token.content.length; i++) {
        const unit = token.content.charCodeAt(i);
        let next = node.next.get(unit);
        if (!next) {
          next = newNode();
          node.next.set(unit, next);
        }
        node = next;
      }
      node.token = token;
    }
  }

  /** The longest token that stands at a place of the text. */
  at(text: string, place: number): AddedToken | undefined {
    let found: AddedToken | undefined;
    let node = this.#root.next.get(text.charCodeAt(place));
    for (let i = place + 1; node; i++) {
      found = node.token ?? found;
      node = node.next.get(text.charCodeAt(i));
    }
    return found;
  }

  /** Tokens and the texts between them, none empty. */
  split(text: string): (string | AddedToken)[] {
    const parts: (string | AddedToken)[] = [];
    let start = 0;
    const between = (end: number) => {
      const last = parts.at(-1);
      let piece = text.slice(start, end);
      if (typeof last === "object" && last.rstrip) piece = piece.trimStart();
      return piece;
    };
    for (let place = 0; place < text.length; ) {
      const token = this.at(text, place);
      if (!token) {
        place++;
        continue;
      }
      const piece = token.lstrip ? between(place).trimEnd() : between(place);
      if (piece !== "") parts.push(piece);
      parts.push(token);
      place += token.content.length;
      start = place;
    }
    const rest = between(text.length);
    if (rest !== "") parts.push(rest);
    return parts;
  }
}
