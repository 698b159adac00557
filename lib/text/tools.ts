// What an engine does with texts besides generating: tokens of a text, the text of tokens, messages as text.
import type { ConversationFields } from "../conversation.js";
import { SdarError } from "../errors.js";

import type { Texts } from "./texts.js";

/** What `engine.tokenize` and `engine.countTokens` take besides; all but `parseSpecial` with messages only. */
export interface TokenizeOptions extends RenderOptions {
  /**
   * Whether names of special tokens are read as those tokens.
   *
   * @default true in a text, false in messages
   */
  parseSpecial?: boolean;
}

/** What `engine.renderMessages` takes besides. */
export interface RenderOptions extends Pick<ConversationFields, "tools" | "templateOptions" | "continueFinalMessage"> {
  /**
   * Whether the text ends with what asks for the assistant's answer.
   *
   * @default true, false with `continueFinalMessage`
   */
  addGenerationPrompt?: boolean;
}

/** The text of ids, whole: an incomplete character is U+FFFD. Throws TOKENIZER_MISSING. */
export function detokenize(ids: Int32Array, { tokenBytes }: Texts): string {
  if (!tokenBytes)
    throw new SdarError("TOKENIZER_MISSING", "the checkpoint has no tokenizer.json: its tokens have no text");
  const { bytes, offsets } = tokenBytes;
  const pieceOf = (id: number) => bytes.subarray(offsets[id] ?? 0, offsets[id + 1] ?? 0);
  const size = ids.reduce((sum, id) => sum + pieceOf(id).length, 0);
  const text = new Uint8Array(size);
  let at = 0;
  for (const id of ids) {
    const piece = pieceOf(id);
    text.set(piece, at);
    at += piece.length;
  }
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(text);
}
