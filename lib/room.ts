// How long a prompt may be, and what it leaves room for.
import type { NativeModelInfo } from "./binding.js";
import { SdarError } from "./errors.js";
import type { ParsedRequest } from "./options.js";

/** Refuses a prompt that leaves no room for one token of `model`'s context. */
export function checkPromptLength(tokens: number, blockLength: number, model: NativeModelInfo): void {
  if (tokens === 0) throw new SdarError("EMPTY_PROMPT", "the prompt is empty; give at least one token");
  const context = usableContext(blockLength, model);
  if (tokens >= context) throw promptTooLong(String(tokens), blockLength, model);
}

/** `tokens` says how many the prompt has, as far as it is known. */
export function promptTooLong(tokens: string, blockLength: number, model: NativeModelInfo): SdarError {
  const context = `the context of ${model.contextLength} in blocks of ${blockLength}`;
  const most = usableContext(blockLength, model) - 1;
  return new SdarError("PROMPT_TOO_LONG", `the prompt has ${tokens} tokens; ${context} takes at most ${most}`);
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
