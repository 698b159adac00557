// Parts of answers that chat and text completions share: why they ended, usage, log-probabilities, what is the engine's own.
import type { Engine } from "../engine.js";
import type { Answer, Chunk, FinishReason, GenerateResult, Token, Usage } from "../types.js";
import type { SdarFields, SharedFields } from "./openai-fields.js";
import type { ServerEvent } from "./protocol.js";

/** An abort has no name there, and reaches nobody: who aborts does not read on. */
const reasons: Record<FinishReason, string> = { end: "stop", stop: "stop", length: "length", abort: "stop" };

export const finishOf = ({ finishReason }: Answer): string => reasons[finishReason];

export const answersOf = (result: GenerateResult): Answer[] => result.answers ?? [result];

/** Of all requests together. */
export function usageOf(results: readonly GenerateResult[]): object {
  const sum = (of: (usage: Usage) => number) => results.reduce((total, { usage }) => total + of(usage), 0);
  const prompt_tokens = sum(({ promptTokens }) => promptTokens);
  const completion_tokens = sum(({ completionTokens }) => completionTokens);
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    prompt_tokens_details: { cached_tokens: sum(({ cachedTokens }) => cachedTokens) },
  };
}

/** `sdar` of an answer, where it was asked for. */
export function sdarUsage(asked: SdarFields | null | undefined, results: readonly GenerateResult[]): object {
  if (!asked?.usage) return {};
  // As JSON has no numbers so large, a seed beyond them is text.
  const plain = results.map(({ usage, seed }) => ({ ...usage, seed: typeof seed === "bigint" ? String(seed) : seed }));
  return { sdar: { usage: plain.length === 1 ? plain[0] : plain } };
}

/** What a stream ends with: usage, and the engine's own, where they were asked for. */
export function lastEvents(
  { sdar, stream_options }: Pick<SharedFields, "sdar" | "stream_options">,
  results: readonly GenerateResult[],
  event: (fields: object) => ServerEvent,
): ServerEvent[] {
  const own = { ...(stream_options?.include_usage && { usage: usageOf(results) }), ...sdarUsage(sdar, results) };
  return [...(Object.keys(own).length > 0 ? [event({ choices: [], ...own })] : []), { data: "[DONE]" }];
}

/** `sdar` of a choice, where it was asked for. */
export function sdarChoice(asked: SdarFields | null | undefined, { tokens, draft }: Partial<Chunk>): object {
  const told = {
    ...(asked?.tokens && tokens?.length && { tokens }),
    ...(asked?.drafts && draft && { draft }),
  };
  return Object.keys(told).length > 0 ? { sdar: told } : {};
}

/** JSON has no infinity; vLLM writes this. */
export const finite = (logprob: number): number => (Number.isFinite(logprob) ? logprob : -9999);

/** The texts of tokens, each made once. */
export class TokenTexts {
  readonly #engine: Engine;
  readonly #texts = new Map<number, string>();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  of(id: number): string {
    let text = this.#texts.get(id);
    if (text === undefined) {
      text = this.#engine.detokenize([id]);
      this.#texts.set(id, text);
    }
    return text;
  }

  /** Whether a token is one that ends a generation, which is not part of the text. */
  ends({ id }: Token): boolean {
    return this.#engine.model.endTokenIds.includes(id);
  }
}

/** A token with its log-probability, as chat completions have it. */
export function chatLogprob(token: Token, texts: TokenTexts): object {
  const entry = (id: number, logprob: number) => {
    const text = texts.of(id);
    // Part of a character: which bytes it has is not known here.
    const bytes = text.includes("\ufffd") ? null : [...Buffer.from(text)];
    return { token: text, logprob: finite(logprob), bytes };
  };
  const top_logprobs = (token.topLogprobs ?? []).map(({ id, logprob }) => entry(id, logprob));
  return { ...entry(token.id, token.logprob), top_logprobs };
}
