// Scores: what the model makes of a text that is given.
import type { GenerateOptions, PromptOptions } from "./request.js";
import type { GenerateResult, RequestFields } from "./types.js";

type SharedOptions = "blockLength" | "logitBias" | "priority" | "key" | "deadline" | "cache" | "signal" | "whenFull";

/** What `engine.score` takes: a prompt as `engine.generate` does, and what follows it. */
export type ScoreRequest = PromptOptions &
  Pick<GenerateOptions, SharedOptions> & {
    /** a text, as the tokenizer splits it by itself, or token ids */
    completion: string | NonNullable<RequestFields["tokens"]>;
    /**
     * Whether the checkpoint's end token is scored after it.
     *
     * @default false
     */
    endToken?: boolean;
  };

export interface Score {
  /** the sum of its tokens' log-probabilities, natural */
  logprob: number;
  tokens: { id: number; logprob: number }[];
  usage: GenerateResult["usage"];
}

/** One of the texts of a `choice`. */
export interface ScoredChoice {
  text: string;
  /** 0 to 1; those of all choices are 1 together */
  probability: number;
  /** of the text and the end token after it; -Infinity of one that the context or the cache has no room for */
  logprob: number;
}

export const scoreOf = ({ tokens, usage }: GenerateResult): Score => ({
  logprob: tokens.reduce((sum, { logprob }) => sum + logprob, 0),
  tokens: tokens.map(({ id, logprob }) => ({ id, logprob })),
  usage,
});

/** In their order. */
export function scoredChoices(texts: readonly string[], scores: readonly Pick<Score, "logprob">[]): ScoredChoice[] {
  const logprobs = scores.map(({ logprob }) => logprob);
  const best = Math.max(...logprobs);
  const weights = logprobs.map((logprob) => (logprob > Number.NEGATIVE_INFINITY ? Math.exp(logprob - best) : 0));
  const sum = weights.reduce((a, b) => a + b, 0) || 1;
  return texts.map((text, i) => ({
    text,
    probability: (weights[i] as number) / sum,
    logprob: logprobs[i] as number,
  }));
}
