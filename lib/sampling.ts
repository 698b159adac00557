// What of a request decides which token a position gets; docs/api.md has the order in which these apply.

export interface SamplingOptions {
  /** 0 (default) takes the most probable token; else 1e-6 to 100. */
  temperature?: number;
  /** Samples among the k most probable tokens; 0 (default) among all. */
  topK?: number;
  /**
   * Samples among the fewest tokens whose probability reaches this, above 0 to 1.
   *
   * @default 1
   */
  topP?: number;
  /**
   * Samples among tokens at least this many times as probable as the most probable one, 0 to 1; after `topK` and `topP`.
   *
   * @default 0
   */
  minP?: number;
  /**
   * Divides the logits above 0 of tokens of the prompt and of generated ones, and multiplies those below, 0.1 to 10. As
   * the other two it counts tokens whose positions are filled, in the active block on both sides; masked ones it does not.
   *
   * @default 1
   */
  repetitionPenalty?: number;
  /**
   * Taken off the logits of generated tokens, -2 to 2.
   *
   * @default 0
   */
  presencePenalty?: number;
  /**
   * Taken off the logits of generated tokens, -2 to 2, once for each time that one was generated.
   *
   * @default 0
   */
  frequencyPenalty?: number;
  /**
   * How many of the most probable tokens at each position are told, 0 to 20, as `token.topLogprobs`.
   *
   * @default 0
   */
  topLogprobs?: number;
  /**
   * Seed of sampling, 0 to 2^64 - 1; the same seed gives the same tokens.
   *
   * @default random, see `result.seed`
   */
  seed?: number | bigint;
  /** Added to the logits of token ids, -100 to 100; at most 1024 of them. */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /** Token ids that are never chosen, at most 1024. They keep their probability. */
  suppress?: readonly number[];
}
