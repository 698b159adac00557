// The types of the public API.
import type { KvFormat, NativeModelInfo, WeightFormat } from "./binding.js";
import type { Strategy } from "./quality.js";
import type { GenerateDefaults } from "./request.js";

export type { GenerateDefaults, GenerateOptions, GenerateRequest } from "./request.js";
export type { Strategy };

export type Quality = "exact" | "balanced" | "fast";

/** Options of `Engine.load`. All are optional; an unknown one is refused. */
export interface LoadOptions {
  /**
   * Where the model runs. `"cuda"` is the first NVIDIA GPU that can be used (compute capability 8.0 or newer), `"cuda:N"` a
   * certain one; UNSUPPORTED_DEVICE says what is missing. `"auto"` (default) takes a GPU when one can be used and runs this
   * model, weights and kvCache.dtype, else the CPU; also when the GPU turns out to have too little memory or to fail, which
   * `log` and `model.cardProblem` tell. A GPU holds weights as bf16, int8 or int4 and the cache as bf16.
   */
  device?: "auto" | "cpu" | "cuda" | `cuda:${number}`;
  /**
   * How weights are held; fewer bits are read faster. `"auto"` (default) is f32 for checkpoints stored as f32 unless
   * `device` names a GPU, bf16 for all others. With int4 the embedding and the lm_head have 8 bits.
   */
  weights?: "auto" | WeightFormat;
  /** The key/value cache. `bytes` and `tokens` exclude each other; the default is chosen from the memory there is. */
  kvCache?: {
    /** Default: f32 with f32 weights, else bf16. */
    dtype?: "auto" | KvFormat;
    /** size in bytes */
    bytes?: number;
    /** size in positions, shared by everything that runs */
    tokens?: number;
  };
  /**
   * Packed weights of 64 MB and more are kept in a file, so that the next load maps them instead of packing again: `true`
   * (the default) in $SDAR_CACHE_DIR, else sdar-engine in $XDG_CACHE_HOME or ~/.cache; a folder; or `false`. A file that
   * is damaged, belongs to other contents or another user, or can be written by others is not used; one that cannot be
   * written is no error. Weights of up to 1 GiB are written after the load, in the background: that keeps a process that
   * comes to its end alive until it is done, and ends at once with `process.exit()`. More are written while they are
   * packed, so that a load takes little memory, and mapped; a load waits for another that writes the same.
   */
  weightCache?: boolean | string;
  /**
   * Bytes that packed weights in the folder of `weightCache` may take together; beyond them the longest unused files are
   * removed, and after 90 days without use in any case. Default: $SDAR_CACHE_BYTES, else 64 GiB.
   */
  weightCacheBytes?: number;
  /** Threads that compute, 1 to 1024. Default: the physical cores this process may use. */
  threads?: number;
  /**
   * Lossless speculation for an autoregressive model: an SDAR checkpoint of the same tokenizer proposes tokens, a block
   * at a time, and the model judges all of them in one forward. Tokens are those without a draft, bit for bit, also when
   * sampled; only `usage` tells the difference. A folder, `"sdar-nano"` or a hub id, like that of `Engine.load`.
   */
  draft?:
    | string
    /** `weights` as above; positions drafted together, 2 to 64, by default the checkpoint's and at least 16 */
    | { path: string; weights?: "auto" | WeightFormat; blockLength?: number };
  /** Maximum of requests in one forward, 1 to 4096; more wait. A GPU takes 1024 at most. Default 64. */
  maxConcurrent?: number;
  /**
   * Maximum of prompt positions in one step beside requests that generate, >= 1: fewer make their tokens come more evenly,
   * more bring prompts through sooner. Default: so many that a step takes at most twice as long as without them.
   */
  prefillTokens?: number;
  /** Keeps keys and values of prompts and answers and shares them among requests that begin alike. Default true. */
  prefixCache?: boolean;
  /**
   * Whether `stats().seconds` tells on a GPU, as it always does on the CPU, which kinds of work the steps' time went into.
   * The GPU then records events at every change, twice in each layer, which makes steps a little longer. Default false.
   */
  timeSteps?: boolean;
  /**
   * Code for GPUs that is opt-in until it is measured; the results are the same. SDAR_CUDA_WARPGROUP_MMA=1 and
   * SDAR_CUDA_PDL=1 in the environment do the same.
   */
  cuda?: {
    /** Matmuls by warpgroup MMA, on compute capability 9.0. Default false. */
    warpgroupMma?: boolean;
    /** Kernels that start while the one before still runs (programmatic dependent launch). Default false. */
    dependentLaunch?: boolean;
  };
  /**
   * Limits of what waits for a slot in the engine; beyond them `generate` rejects at once with QUEUE_FULL, whose
   * `retryAfterMs` tells when there is probably room. What can be started at once does not count.
   */
  queue?: {
    /** Maximum of requests that wait, >= 0; one with `n` completions counts n times. Default 4096. */
    maxRequests?: number;
    /** Maximum of tokens of all that wait, >= 0: a request counts its prompt and `n` times `maxTokens`. Default: no limit. */
    maxTokens?: number;
    /** Maximum of bytes of all that wait: prompts, stop strings and other lists. Default 256 MiB. */
    maxBytes?: number;
    /** Milliseconds of waiting that are worth one step of `priority`, >= 1. Default 1000. */
    agingMs?: number;
    /**
     * Maximum of completions of one key that are held back because their readers lag behind, >= 0; beyond it the run whose
     * reader has stood still longest fails with READER_STALLED. Default 256.
     */
    maxHeld?: number;
    /** Milliseconds for which a reader that holds its run back may read nothing, else it fails with READER_STALLED. Default 60,000. */
    heldMs?: number;
  };
  /**
   * Options for all requests that do not have their own; one that has `denoise` or `quality` takes neither from here.
   *
   * @example
   * await Engine.load("sdar-nano", { generate: { maxTokens: 256, quality: "fast" } });
   */
  generate?: GenerateDefaults;
  /** Forces an instruction set, for measurements. Default: the environment's SDAR_ISA, else the best this machine has. */
  isa?: string;
  /** Called while weights are read, with bytes; the last time with `done` equal to `total`. */
  onProgress?: (progress: { done: number; total: number }) => void;
  /** Gives up loading: `Engine.load` rejects with ABORTED. */
  signal?: AbortSignal;
  /** Gets what there is to say about loading and running; nothing is printed otherwise. */
  log?: (level: "info" | "warn", message: string) => void;
}

/** One message of a conversation, for the checkpoint's chat template. */
export interface Message {
  /** `"system"`, `"user"`, `"assistant"`, or another role that the template knows */
  role: string;
  content: string;
}

/** How positions of a block are chosen for filling. */
export interface DenoiseOptions {
  /**
   * Default `"low_confidence_dynamic"`: every position whose confidence is above `threshold`, at least as many as
   * `low_confidence_static` would fill; that one fills the most confident, `sequential` the leftmost, both in equal
   * shares per step; `entropy_bounded` those of least entropy while its sum stays below `entropyBound`;
   * `pairwise_factor` the most confident, the k-th while k(k-1)/2 · (1 - confidence) stays below `factor`: the fewer
   * are filled together, the less sure they need be.
   */
  strategy?: Strategy;
  /** Maximum of steps for a block, 1 to 64. Default: the block length, one position a step. */
  steps?: number;
  /** For `low_confidence_dynamic`, a probability from 0 to 1. Default 0.9. */
  threshold?: number;
  /** For `entropy_bounded`, in nats, 0 to 1e9. Default 0.35. */
  entropyBound?: number;
  /** For `pairwise_factor`, 0 to 1e9; larger fills more at once. Default 2. */
  factor?: number;
  /** The token's probability before (`"model"`, default) or after top-k and top-p (`"sampled"`). */
  confidence?: "model" | "sampled";
}

/** Everything that a request may have; which of them exclude each other says `GenerateRequest`. */
export interface RequestFields {
  /** text as it is, without chat template */
  prompt?: string;
  /** a conversation, turned into text by the checkpoint's chat template */
  messages?: readonly Message[];
  /** token ids as they are */
  tokens?: readonly number[] | Int32Array | Uint32Array | Uint16Array;
  /**
   * Whether names of special tokens, such as `<|im_end|>`, are read as those tokens. Default: in `prompt` they are, in `messages`
   * they are text wherever a message holds them, so that nobody can end their own turn and begin another's. Added tokens
   * that are not special, such as `<think>`, are read as tokens always. Not with `tokens`.
   */
  parseSpecial?: boolean;
  /** Maximum of tokens to generate, >= 1, the end token included. Default, and at most: what is left of the context, and of a smaller cache. */
  maxTokens?: number;
  /** Positions denoised together, 1 to 64. Default: the checkpoint's. */
  blockLength?: number;
  denoise?: DenoiseOptions;
  /**
   * Instead of `denoise`, a setting of it; measured on the shipped model by `sdar bench dial`.
   * - `"exact"`: the most accurate, whatever it takes: `entropy_bounded`, `entropyBound` 0.1
   * - `"balanced"`: about the default's accuracy in fewer forwards: `pairwise_factor`, `factor` 2
   * - `"fast"`: fewer still, for about a point of accuracy: `pairwise_factor`, `factor` 5
   *
   * Default: none of these but `low_confidence_dynamic`, `threshold` 0.9.
   */
  quality?: Quality;
  /** 0 (default) takes the most probable token; else 1e-6 to 100. */
  temperature?: number;
  /** Samples among the k most probable tokens; 0 (default) among all. */
  topK?: number;
  /** Samples among the fewest tokens whose probability reaches this, above 0 to 1. Default 1. */
  topP?: number;
  /** Seed of sampling, 0 to 2^64 - 1; the same seed gives the same tokens. Default: random, see `result.seed`. */
  seed?: number | bigint;
  /**
   * Text that ends the generation and is not part of the result's text: one string or up to 64, of 1 to 1024 bytes each. A
   * string that begins with the name of a special token ends it at that token, too; one that has such a name further
   * inside is refused.
   */
  stop?: string | readonly string[];
  /** Token ids that end the generation, besides the checkpoint's own; at most 256. */
  stopTokens?: readonly number[];
  /** Goes on past the checkpoint's end tokens. Default false. */
  ignoreEos?: boolean;
  /** No end token, stop token or stop string ends the generation before so many tokens. Default 0. */
  minTokens?: number;
  /** Added to the logits of token ids, -100 to 100; at most 1024 of them. */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /** Also gives the active block after every step, as chunks with `draft`. Default false. */
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
   * DEADLINE_EXCEEDED. Default: none.
   */
  deadline?: number;
  /** How the request uses the prefix cache. */
  cache?: {
    /** Pages are shared only among requests of the same salt. Default "". */
    salt?: string;
    /** Pages of this prompt are evicted only when there is nothing else to evict. Default false. */
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
  /** Whole characters; may be empty while a character or a possible stop string is incomplete. */
  text: string;
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
export interface Answer {
  text: string;
  /** all generated tokens, the one that ended the generation included */
  tokens: Token[];
  usage: Usage;
  finishReason: FinishReason;
  /** with `"stop"`: the stop string or the id of the stop token */
  stopMatched?: string | number;
}

/** What a run comes to: the first completion, and with `n` above 1 the `usage` of all, the prompt counted once. */
export interface GenerateResult extends Answer {
  /** as given, or the one that was drawn */
  seed: number | bigint;
  /** all completions, with `n` above 1 */
  answers?: Answer[];
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
export interface Run extends AsyncIterable<Chunk> {
  /** Resolves when the generation has ended, also by abort; rejects with an SdarError when it failed. */
  result(): Promise<GenerateResult>;
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
