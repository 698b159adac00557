// How long a prompt may be, and what it leaves room for.
import type { NativeModelInfo } from "./binding.js";
import { SdarError } from "./errors.js";
import type { ParsedRequest } from "./options.js";

/** Refuses a prompt that leaves no room for one token of `model`'s context. */
export function checkPromptLength(tokens: number, blockLength: number, model: NativeModelInfo): void {
  if (tokens === 0) throw new SdarError("EMPTY_PROMPT", "the prompt is empty; give at least one token");
  const context = usableContext(blockLength, model);
  if (tokens >= context) throw promptTooLong(tokens, blockLength, model);
}

/** `promptTokens` is undefined where nobody counted further than that it is too long. */
export function promptTooLong(
  promptTokens: number | undefined,
  blockLength: number,
  model: NativeModelInfo,
): SdarError {
  const context = `the context of ${model.contextLength} in blocks of ${blockLength}`;
  const maxPromptTokens = usableContext(blockLength, model) - 1;
  const tokens = promptTokens ?? `more than ${maxPromptTokens}`;
  const message = `the prompt has ${tokens} tokens; ${context} takes at most ${maxPromptTokens}`;
  return new SdarError("PROMPT_TOO_LONG", message, {
    ...(promptTokens === undefined ? {} : { promptTokens }),
    maxPromptTokens,
  });
}

/**
 * How many of the tokens a request asks for its prompt leaves room for: what is left of the context and, unless it names
 * fewer, of the cache. Throws EMPTY_PROMPT, PROMPT_TOO_LONG, and CACHE_TOO_SMALL for what could not run with all pages to
 * itself.
 */
export function roomFor(prompt: number, request: ParsedRequest["native"], model: NativeModelInfo): number {
  const { blockLength } = request;
  checkPromptLength(prompt, blockLength, model);
  const left = usableContext(blockLength, model) - prompt;
  const { pages, tokens } = model.kv;
  // A block does not straddle pages.
  const capacity = pages * Math.floor(tokens / pages / blockLength) * blockLength;
  const maxTokens = request.maxTokens >= left ? Math.min(left, Math.max(capacity - prompt, 1)) : request.maxTokens;
  const needed = Math.ceil((prompt + maxTokens) / blockLength) * blockLength;
  if (needed <= capacity) return maxTokens;
  const message = `the request may need ${needed} tokens of KV cache; kvCache holds ${capacity}`;
  throw new SdarError("CACHE_TOO_SMALL", `${message}: lower maxTokens or raise kvCache`);
}

export const usableContext = (blockLength: number, { contextLength }: NativeModelInfo) =>
  Math.floor(contextLength / blockLength) * blockLength;
