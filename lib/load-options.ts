// What `Engine.load` takes.
import type { KvFormat, WeightFormat } from "./binding.js";
import type { GenerateDefaults } from "./request.js";

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
    /**
     * @default f32 with f32 weights, else bf16
     */
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
   * removed, and after 90 days without use in any case.
   *
   * @default $SDAR_CACHE_BYTES, else 64 GiB
   */
  weightCacheBytes?: number;
  /**
   * Threads that compute, 1 to 1024.
   *
   * @default the physical cores this process may use
   */
  threads?: number;
  /**
   * Lossless speculation for an autoregressive model: an SDAR checkpoint of the same tokenizer proposes tokens, a block
   * at a time, and the model judges all of them in one forward. Tokens are those without a draft, bit for bit, also when
   * sampled; only `usage` tells the difference. A folder, `"sdar-nano"` or a hub id, like that of `Engine.load`.
   */
  draft?:
    | string
    /**
     * `weights` as above; positions drafted together, 2 to 64, by default the checkpoint's and at least 16;
     * `onlyIfFaster` to draft only for requests while those that were drafted for took less time a token, by the clock,
     * which leaves the tokens as they are but makes the numbers of `usage` depend on the machine
     */
    | { path: string; weights?: "auto" | WeightFormat; blockLength?: number; onlyIfFaster?: boolean };
  /**
   * Maximum of requests in one forward, 1 to 4096; more wait. A GPU takes 1024 at most.
   *
   * @default 64
   */
  maxConcurrent?: number;
  /**
   * Maximum of prompt positions in one step beside requests that generate, >= 1: fewer make their tokens come more evenly,
   * more bring prompts through sooner.
   *
   * @default so many that a step takes at most twice as long as without them
   */
  prefillTokens?: number;
  /**
   * Keeps keys and values of prompts and answers and shares them among requests that begin alike.
   *
   * @default true
   */
  prefixCache?: boolean;
  /**
   * Whether `stats().seconds` tells on a GPU, as it always does on the CPU, which kinds of work the steps' time went into.
   * The GPU then records events at every change, twice in each layer, which makes steps a little longer.
   *
   * @default false
   */
  timeSteps?: boolean;
  /**
   * Code for GPUs that is opt-in until it is measured; the results are the same. SDAR_CUDA_WARPGROUP_MMA=1,
   * SDAR_CUDA_PDL=1 and SDAR_CUDA_WIDE_EXPERTS=1 in the environment do the same.
   */
  cuda?: {
    /**
     * Matmuls by warpgroup MMA, on compute capability 9.0.
     *
     * @default false
     */
    warpgroupMma?: boolean;
    /**
     * Kernels that start while the one before still runs (programmatic dependent launch).
     *
     * @default false
     */
    dependentLaunch?: boolean;
    /**
     * Of a mixture of experts: an expert on which many tokens crowd is read once for 64 of them instead of 8.
     *
     * @default false
     */
    wideExperts?: boolean;
  };
  /**
   * Limits of what waits for a slot in the engine; beyond them `generate` rejects at once with QUEUE_FULL, whose
   * `retryAfterMs` tells when there is probably room. What can be started at once does not count.
   */
  queue?: {
    /**
     * Maximum of requests that wait, >= 0; one with `n` completions counts n times.
     *
     * @default 4096
     */
    maxRequests?: number;
    /**
     * Maximum of tokens of all that wait, >= 0: a request counts its prompt and `n` times `maxTokens`.
     *
     * @default no limit
     */
    maxTokens?: number;
    /**
     * Maximum of bytes of all that wait: prompts, stop strings and other lists.
     *
     * @default 256 MiB
     */
    maxBytes?: number;
    /**
     * Milliseconds of waiting that are worth one step of `priority`, >= 1.
     *
     * @default 1000
     */
    agingMs?: number;
    /**
     * Maximum of completions of one key that are held back because their readers lag behind, >= 0; beyond it the run whose
     * reader has stood still longest fails with READER_STALLED.
     *
     * @default 256
     */
    maxHeld?: number;
    /**
     * Milliseconds for which a reader that holds its run back may read nothing, else it fails with READER_STALLED.
     *
     * @default 60,000
     */
    heldMs?: number;
  };
  /**
   * Options for all requests that do not have their own; one that has `denoise` or `quality` takes neither from here.
   *
   * @example
   * await Engine.load("sdar-nano", { generate: { maxTokens: 256, quality: "fast" } });
   */
  generate?: GenerateDefaults;
  /**
   * Forces an instruction set, for measurements.
   *
   * @default the environment's SDAR_ISA, else the best this machine has
   */
  isa?: string;
  /** Called while weights are read, with bytes; the last time with `done` equal to `total`. */
  onProgress?: (progress: { done: number; total: number }) => void;
  /** Gives up loading: `Engine.load` rejects with ABORTED. */
  signal?: AbortSignal;
  /** Gets what there is to say about loading and running; nothing is printed otherwise. */
  log?: (level: "info" | "warn", message: string) => void;
}
