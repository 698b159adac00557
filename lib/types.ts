// The types of the public API.
import type { NativeModelInfo } from "./binding.js";
import type { ConversationFields, Message, ToolCall } from "./conversation.js";
import type { Strategy } from "./quality.js";
import type { SamplingOptions } from "./sampling.js";
import type { ScoredChoice } from "./score.js";

export type { Message, MessageToolCall, TextPart, Tool, ToolCall, ToolChoice, ToolFunction } from "./conversation.js";
export type { LoadOptions } from "./load-options.js";
export type { GenerateDefaults, GenerateOptions, GenerateRequest } from "./request.js";
export type { Strategy };

export type Quality = "exact" | "balanced" | "fast";

/** How positions of a block are chosen for filling. */
export interface DenoiseOptions {
  /**
   * `low_confidence_dynamic`: every position whose confidence is above `threshold`, at least as many as
   * `low_confidence_static` would fill; that one fills the most confident, `sequential` the leftmost, both in equal
   * shares per step; `entropy_bounded` those of least entropy while its sum stays below `entropyBound`;
   * `pairwise_factor` the most confident, the k-th while k(k-1)/2 · (1 - confidence) stays below `factor`: the fewer
   * are filled together, the less sure they need be; `self_verified` drafts all of the block, and where a second
   * forward is expected to pay has it judged from the left as in blocks of one position: what agrees is kept, the
   * first token that does not is replaced; else it fills as `low_confidence_dynamic` does. On the CPU only.
   *
   * @default "low_confidence_dynamic"
   */
  strategy?: Strategy;
  /**
   * Maximum of steps for a block, 1 to 64.
   *
   * @default the block length, one position a step
   */
  steps?: number;
  /**
   * For `low_confidence_dynamic` and `self_verified`, a probability from 0 to 1.
   *
   * @default 0.9
   */
  threshold?: number;
  /**
   * For `entropy_bounded`, in nats, 0 to 1e9.
   *
   * @default 0.35
   */
  entropyBound?: number;
  /**
   * For `pairwise_factor`, 0 to 1e9; larger fills more at once.
   *
   * @default 2
   */
  factor?: number;
  /** The token's probability before (`"model"`, default) or after top-k and top-p (`"sampled"`). */
  confidence?: "model" | "sampled";
}

/** A schema of zod 4. */
export interface ZodSchema<Value> {
  readonly _zod: { readonly output: Value };
}

/**
 * What an answer must look like; its text always does, whatever the model, and `result.value` is what it says.
 * - a zod schema: JSON that it takes; `value` is what it makes of it
 * - `"json_schema"`: JSON that is valid by a JSON Schema, draft 2020-12
 * - `"json"`: any JSON
 * - `"regex"`: text that matches the whole of a regular expression (JavaScript's, flag `u`)
 * - `"choice"`: one of some texts
 * - `"grammar"`: text of a grammar in GBNF, as llama.cpp documents it
 *
 * `whitespace` says where JSON has some: `"none"` as JSON.stringify writes it; `"space"` (the default with a schema) after each
 * comma and colon, as Python writes it and most models have learnt it; `"some"` (the default with `"json"`) wherever JSON lets a
 * space or a line break stand.
 */
export type Format<Value = unknown> =
  | ZodSchema<Value>
  | { type: "json_schema"; schema: object | boolean; whitespace?: "none" | "space" | "some" }
  | { type: "json"; whitespace?: "none" | "space" | "some" }
  | { type: "regex"; pattern: string | RegExp }
  | {
      type: "choice";
      choices: readonly string[];
      /**
       * Whether `result.choices` tells how probable each is: a forward for each, or several.
       *
       * @default true with at most 64
       */
      probabilities?: boolean;
    }
  | { type: "grammar"; grammar: string };

/** Everything that a request may have; which of them exclude each other says `GenerateRequest`. */
export interface RequestFields extends ConversationFields, SamplingOptions {
  /** text as it is, without chat template */
  prompt?: string;
  /** a conversation, turned into text by the checkpoint's chat template */
  messages?: readonly Message[];
  /** token ids as they are */
  tokens?: readonly number[] | Int32Array | Uint32Array | Uint16Array;
  /**
   * Whether names of special tokens, such as `<|im_end|>`, are read as those tokens. In `messages` they are text wherever a
   * message holds them, so that nobody can end their own turn and begin another's. Added tokens that are not special, such as
   * `<think>`, are read as tokens always. Not with `tokens`.
   *
   * @default true with `prompt`, false with `messages`
   */
  parseSpecial?: boolean;
  /** Maximum of tokens to generate, >= 1, the end token included. Default, and at most: what is left of the context, and of a smaller cache. */
  maxTokens?: number;
  /**
   * Positions denoised together, 1 to 64.
   *
   * @default the checkpoint's
   */
  blockLength?: number;
  denoise?: DenoiseOptions;
  /**
   * Instead of `denoise`, a setting of it; measured on the shipped model by `sdar bench dial`.
   * - `"exact"`: the most accurate, whatever it takes: `entropy_bounded`, `entropyBound` 0.1
   * - `"balanced"`: about the default's accuracy and forwards; fewer with less trained models: `pairwise_factor`, `factor` 2
   * - `"fast"`: fewer still, for about a point of accuracy: `pairwise_factor`, `factor` 5
   *
   * @default none of these but `low_confidence_dynamic`, `threshold` 0.9
   */
  quality?: Quality;
  /**
   * Text that ends the generation and is not part of the result's text: one string or up to 64, of 1 to 1024 bytes each. A
   * string that begins with the name of a special token ends it at that token, too; one that has such a name further
   * inside is refused.
   */
  stop?: string | readonly string[];
  /** Token ids that end the generation, besides the checkpoint's own; at most 256. */
  stopTokens?: readonly number[];
  /**
   * Goes on past the checkpoint's end tokens.
   *
   * @default false
   */
  ignoreEos?: boolean;
  /**
   * No end token, stop token or stop string ends the generation before so many tokens.
   *
   * @default 0
   */
  minTokens?: number;
  /**
   * The form of the answer. The generation ends where the text is complete, and never later than `maxTokens`; a form that needs
   * more is refused. Not with `ignoreEos` and `minTokens`. A stop string or an abort may still cut the text short.
   *
   * @example
   * const { value } = await engine.generate({ prompt, format: z.object({ name: z.string(), age: z.int() }) }).result();
   */
  format?: Format;
  /**
   * Also gives the active block after every step, as chunks with `draft`.
   *
   * @default false
   */
  drafts?: boolean;
  /**
   * Completions to generate for the one prompt, 1 (default) to 64. They share the prompt's pages and the seed, and differ only when
   * `temperature` is above 0. They are one request: chunks tell which one (`answer`) they belong to, the run ends with the last of
   * them, an abort ends all that still run, and when one fails the run fails. Each needs a slot in the engine.
   */
  n?: number;
  /**
   * An integer from -100 to 100, default 0; higher goes first among the waiting requests of the same `key`. A step of it is
   * worth `queue.agingMs` of waiting, so that low ones do not wait for ever. It does not let one key go before another: those
   * share the engine evenly. When pages run out, requests of low priority of the key that holds most are preempted first.
   */
  priority?: number;
  /**
   * Whom the request is for, such as a tenant; any string but "". Keys get even shares of the engine, counted
   * in what is computed. They share cached prefixes: who must not needs a `cache.salt`. One that had nothing waiting begins with a head start. Without it, requests share one key.
   */
  key?: string;
  /**
   * Milliseconds from the call, >= 1, within which the whole answer must be there, else the run rejects with
   * DEADLINE_EXCEEDED.
   *
   * @default none
   */
  deadline?: number;
  /** How the request uses the prefix cache. */
  cache?: {
    /**
     * Pages are shared only among requests of the same salt.
     *
     * @default ""
     */
    salt?: string;
    /**
     * Pages of this prompt are evicted only when there is nothing else to evict.
     *
     * @default false
     */
    pin?: boolean;
  };
  /**
   * Once a run is iterated: unread tokens above which it is held back until half of them are read, >= 1, default 256.
   * Positions of drafts count too. See `Run`.
   */
  highWaterMark?: number;
  /** Ends the generation like `run.abort()`, also while it waits. */
  signal?: AbortSignal;
  /**
   * What happens when the queue is full: `"reject"` (default) rejects with QUEUE_FULL; `"wait"` waits for room, in order of
   * arrival within its `key`, and outside of the queue's limits. `deadline` and `signal` hold meanwhile.
   *
   * @default "reject"
   */
  whenFull?: "reject" | "wait";
}

/** A generated token. */
export interface Token {
  id: number;
  /** counted from the start of the prompt */
  position: number;
  /** index of its block, counted from the start of the prompt */
  block: number;
  /** denoising step of its block that filled it, from 0 */
  step: number;
  /** see `DenoiseOptions.confidence` */
  confidence: number;
  /** natural logarithm of its probability, untempered and untruncated */
  logprob: number;
  /**
   * With `topLogprobs`: the most probable tokens of its position in the step that filled it, whether or not they could be
   * chosen, most probable first; none of a token that the format alone decided.
   */
  topLogprobs?: { id: number; logprob: number }[];
}

/** The active block as a denoising step left it, for display. */
export interface Draft {
  block: number;
  step: number;
  /** of its first token */
  position: number;
  /** by position: null where still masked; `step` is null for tokens of the prompt; `text` is empty for special tokens */
  tokens: ({ id: number; step: number | null; text: string } | null)[];
}

/** What a run gives as it goes. Texts and tokens of all chunks, one after the other, are those of the result. */
export interface Chunk {
  /** which of `n` completions it belongs to, from 0 */
  answer: number;
  /** Whole characters; may be empty while a character, a possible stop string, or what may begin a call is incomplete. */
  text: string;
  /** text of the answer's `<think>` part, see `Answer.reasoning` */
  reasoning?: string;
  /** calls that became whole */
  toolCalls?: ToolCall[];
  /** tokens that became final, in order of position */
  tokens: Token[];
  /** only with `drafts: true`, in chunks of their own */
  draft?: Draft;
}

export interface Usage {
  promptTokens: number;
  /** tokens of the prompt that were not computed again */
  cachedTokens: number;
  completionTokens: number;
  /**
   * Denoising steps; of an autoregressive model, forwards that decided tokens, one each unless a draft was kept, and those
   * of the draft. The prompt's are not counted.
   */
  forwards: number;
  /** completionTokens / forwards */
  tokensPerForward: number;
  /** with `LoadOptions.draft`: tokens that it proposed and the model judged, and those of them that were kept */
  drafted?: number;
  accepted?: number;
  /** the draft's forwards, and the model's; together `forwards` */
  draftForwards?: number;
  verifyForwards?: number;
}

/**
 * Why a generation ended: `"end"` at an end token of the checkpoint, `"stop"` at a stop string or stop token, `"length"` at
 * `maxTokens` or the end of the context or the cache, `"abort"` because it was aborted.
 */
export type FinishReason = "end" | "stop" | "length" | "abort";

/** One of the completions of a run. */
export interface Answer<Value = unknown> {
  /** without `reasoning` and `toolCalls` */
  text: string;
  /**
   * What the answer has in `<think>` before everything else, where the chat template of `messages` knows such parts; without
   * the line ends around it
   */
  reasoning?: string;
  /** with `tools`: the calls in `<tool_call>`. What is no call of one of them stays text. */
  toolCalls?: ToolCall[];
  /** all generated tokens, the one that ended the generation included */
  tokens: Token[];
  usage: Usage;
  finishReason: FinishReason;
  /** with `"stop"`: the stop string or the id of the stop token */
  stopMatched?: string | number;
  /** with `format`, unless the text was cut short: what it says, JSON parsed, other texts as they are */
  value?: Value;
  /** in the place of `value`: why a zod schema refuses the text for what JSON Schema cannot say, such as a refinement */
  valueError?: Error;
}

/** What a run comes to: the first completion, and with `n` above 1 the `usage` of all, the prompt counted once. */
export interface GenerateResult<Value = unknown> extends Answer<Value> {
  /** as given, or the one that was drawn */
  seed: number | bigint;
  /**
   * With a `format` of at most 64 choices: how probable each of them is, the others being impossible. Scored as `engine.score`
   * does it, the end token after each included; in what the engine counts and tells, each is a request of its own. Not after
   * reasoning or with tools.
   */
  choices?: ScoredChoice[];
  /** all completions, with `n` above 1 */
  answers?: Answer<Value>[];
}

/**
 * A generation that has begun. Its chunks can be iterated once, from the first one on whenever that starts; leaving the
 * loop early aborts the generation. `result()` works with or without iterating. Errors, bad options among them, come
 * from the iterator and from `result()`; one that nobody asks for is never an unhandled rejection.
 *
 * A run whose reader lags behind by more than `highWaterMark` tokens is held back until it has caught up; meanwhile its
 * slot and its memory may go to others, which costs time, not tokens, and its `deadline` goes on. Nothing is held back before the
 * iterator is opened, or with `result()` alone; nor, once `result()` was called, for a reader that has read nothing for a
 * second, so that waiting for the result without reading on ends. A run that is held back keeps the process, and
 * fails with READER_STALLED after `queue.heldMs` without a read, or when more than `queue.maxHeld` of its key are. An iterator that is
 * garbage-collected holds nothing back any more; its run goes on to its end.
 */
export interface Run<Value = unknown> extends AsyncIterable<Chunk> {
  /** Resolves when the generation has ended, also by abort; rejects with an SdarError when it failed. */
  result(): Promise<GenerateResult<Value>>;
  /** Ends the generation with what it has: `result()` resolves with `finishReason` `"abort"`. */
  abort(): void;
  /**
   * Resolves once the request is accepted: its options and its prompt can run, and it waits for its turn within the queue's
   * limits, or runs. Rejects with the SdarError that says why not, as QUEUE_FULL or PROMPT_TOO_LONG. What goes wrong later is
   * told by `result()` and the iterator; one that nobody asks for is never an unhandled rejection.
   *
   * @example
   * await run.started; // else an error that httpStatusOf() turns into a status
   * response.writeHead(200);
   */
  readonly started: Promise<void>;
  /**
   * The whole text: `result()` without the rest.
   *
   * @example
   * const answer = await engine.generate({ prompt: "1 + 1 =" }).text();
   */
  text(): Promise<string>;
  /**
   * The text as it comes, whole characters, of the first completion: an async iterable, and a stream for `pipeTo` and
   * `pipeThrough`. It is the run's iterator in another form: once only, and cancelling it or leaving the loop aborts.
   *
   * @example
   * for await (const text of run.textStream) process.stdout.write(text);
   */
  readonly textStream: TextStream;
  /**
   * The same as UTF-8, such as for the body of a `Response`. Cancelling it aborts the run.
   *
   * @example
   * return new Response(run.toReadableStream(), { headers: { "content-type": "text/plain; charset=utf-8" } });
   */
  toReadableStream(): ReadableStream<Uint8Array>;
}

/** A stream of strings that `for await` reads, too. */
export type TextStream = ReadableStream<string> & AsyncIterable<string>;

/** What `engine.dispose` takes. */
export interface DisposeOptions {
  /** Lets what was accepted come to its end first, but for runs held back by readers that stand still. Default false. */
  drain?: boolean;
}

/** What is loaded. Sizes are in bytes, tokens or parameters as named. */
export interface ModelInfo extends Readonly<NativeModelInfo> {
  /** folder of the checkpoint */
  readonly path: string;
  /** folder of the one that drafts for it */
  readonly draft?: string;
  /** whether `prompt` can be used */
  readonly hasTokenizer: boolean;
  /** whether `messages` can be used */
  readonly hasChatTemplate: boolean;
}
