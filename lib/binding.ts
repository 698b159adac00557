// The native addon's surface, as native/addon implements it, and how the addon is found. Internal: users see engine.ts.
import { createRequire } from "node:module";
import { findAddon, platformName } from "./addon-file.js";
import { packageRoot } from "./checkpoint.js";
import { SdarError } from "./errors.js";
import { decodeEvents, type NativeRecords } from "./records.js";
import type { FinishReason, Token } from "./types.js";

const require = createRequire(import.meta.url);

// The names in native/backend/formats.h.
export const weightFormats = ["f32", "bf16", "int8", "int4"] as const;
export const kvFormats = ["f32", "bf16", "int8"] as const;
export type WeightFormat = (typeof weightFormats)[number];
export type KvFormat = (typeof kvFormats)[number];
// The names in native/model/config.h.
export const decodings = ["block_diffusion", "autoregressive"] as const;
export type Decoding = (typeof decodings)[number];

/** What Engine.load hands down; 0 means automatic. */
export interface NativeLoadOptions {
  path: string;
  device: string;
  /** "auto": as the checkpoint is stored, bf16 on a GPU */
  weights: WeightFormat | "auto";
  threads: number;
  isa: string;
  maxConcurrent: number;
  /** where packed weights are kept for the next load; "" for nowhere */
  cacheFolder: string;
  /** bytes of all packed weights kept there together */
  cacheBytes: number;
  kvTokens: number;
  kvBytes: number;
  /** "" is automatic: f32 with f32 weights, else bf16 */
  kvDtype: "" | KvFormat;
  /** maximum of prompt positions in one step beside running requests; 0: so many that a step takes at most twice as long */
  prefillTokens: number;
  /** keep and share committed pages by content */
  prefixCache: boolean;
  /** folder of a checkpoint that drafts for this one; "" for none */
  draftPath: string;
  draftWeights: WeightFormat | "auto";
  /** 0: its own, at least 16 */
  draftBlockLength: number;
  draftOnlyIfFaster: boolean;
  /** `seconds` of the counters on a GPU, too */
  timeSteps: boolean;
  /** code for GPUs that is off until it is measured */
  cudaWarpgroupMma: boolean;
  cudaDependentLaunch: boolean;
  cudaWideExperts: boolean;
}

export interface NativeModelInfo {
  modelType: string;
  /** how it writes: blocks that are denoised, or a token at a time, from left to right */
  decoding: Decoding;
  device: string;
  /** why device "auto" computes on the CPU although a GPU answers; else "" */
  cardProblem: string;
  /** a message about tensors of the checkpoint that are not part of the model; else "" */
  passedOver: string;
  isa: string;
  threads: number;
  weights: WeightFormat;
  parameters: number;
  weightBytes: number;
  layers: number;
  hiddenSize: number;
  vocabSize: number;
  contextLength: number;
  /** 1 where autoregressive */
  blockLength: number;
  /** -1: autoregressive, without one */
  maskTokenId: number;
  endTokenIds: number[];
  kv: { dtype: string; pages: number; tokens: number; bytes: number };
}

/** All fields are required and already validated by options.ts; the addon still refuses what would be unsafe. */
export interface NativeRequest {
  /** chosen by the caller, unique among what runs */
  id: number;
  tokens: Int32Array;
  maxTokens: number;
  blockLength: number;
  /** index into `strategies` of quality.ts */
  strategy: number;
  /** 0 means blockLength */
  steps: number;
  threshold: number;
  entropyBound: number;
  factor: number;
  temperature: number;
  /** 0 means all */
  topK: number;
  topP: number;
  /** 0 means all */
  minP: number;
  /** 1 means none */
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  topLogprobs: number;
  seed: bigint;
  /** confidence is the probability after truncation */
  sampledConfidence: boolean;
  stop: Uint8Array[];
  stopTokens: Int32Array;
  suppress: Int32Array;
  ignoreEos: boolean;
  minTokens: number;
  biasIds: Int32Array;
  biasValues: Float32Array;
  drafts: boolean;
  /** index of the completion among the `n` of one prompt; part of the key of the random numbers */
  answer: number;
  /**
   * 0 for none, else the id of the first of several completions of one prompt: the others wait until that one has brought
   * the prompt into the cache. All of a group are submitted one after the other, `answer` 0 first.
   */
  group: number;
  /** order among the admitted that wait, lower first; any finite number */
  rank: number;
  /** when pages run out, the lowest priority is preempted first, then the highest rank */
  priority: number;
  /** whom it is for, by number: steps are shared evenly among tenants */
  tenant: number;
  /** milliseconds from submit until it fails with DEADLINE_EXCEEDED; 0 for none */
  deadlineMs: number;
  /** cached pages are shared among requests of equal salt; "" for none */
  salt: string;
  /** pages of the prompt are evicted only when nothing else is left to evict */
  pin: boolean;
  /** of `NativeForm`, by the same engine */
  form?: unknown;
  /** the text itself, to be scored: `maxTokens` are as many, and `ignoreEos` is set */
  given?: Int32Array;
}

/** A compiled form of answers. */
export interface NativeForm {
  form: unknown;
  /** that a whole text takes, the end token not counted */
  leastTokens: number;
  /** what it holds in memory, about */
  bytes: number;
  /** texts that must come as they are somewhere in it, for setSplits */
  runs: string[];
}

/** What became of a request since the last look; `request` is its id. */
export type NativeEvent = { request: number } & (
  | {
      /** in order of position; `releasedBytes` counts those of the text from its start that no stop string can take back */
      kind: "tokens";
      releasedBytes: number;
      tokens: Token[];
      /** so far */
      forwards: number;
      computed: Computed;
    }
  | ({ kind: "finished" } & NativeFinish)
  | { kind: "failed"; code: string; message: string; computed: Computed }
  | {
      /** the active block: null where masked; `step` is null for tokens of the prompt */
      kind: "draft";
      block: number;
      step: number;
      position: number;
      slots: ({ id: number; step: number | null } | null)[];
    }
  /** it first takes part in a step */
  | { kind: "started"; cachedTokens: number }
  /** it lost its pages and waits to be resumed */
  | { kind: "preempted" }
);

/** What a request took: rows that were computed, and steps in which it had a slot, whether or not it was in them. */
export interface Computed {
  rows: number;
  steps: number;
}

export interface NativeFinish {
  reason: FinishReason;
  /** the text ends after so many */
  textBytes: number;
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  forwards: number;
  computed: Computed;
  /** only with a draft model: its forwards, of all; tokens that it proposed and the model judged; those that were kept */
  draftForwards?: number;
  drafted?: number;
  accepted?: number;
}

export interface NativeStats {
  running: number;
  /** submitted and not running */
  waiting: number;
  /** held back because their readers lag behind */
  paused: number;
  /** free + cached + active = total; `cached` are held by the prefix cache alone, `pinned` are those of it under `cache.pin` */
  pages: { total: number; free: number; cached: number; active: number; pinned: number };
  steps: number;
  /** rows (positions) and sequences over all steps, and the largest step */
  rows: number;
  sequences: number;
  maxSequences: number;
  /** denoising forwards, tokens filled, prompt tokens prefilled */
  forwards: number;
  filledTokens: number;
  prefillTokens: number;
  /** prompt tokens of all that were submitted, and those of them found in the prefix cache */
  promptTokens: number;
  cachedTokens: number;
  /** with a draft model: its steps and their seconds, which are not part of stepSeconds, and its forwards for requests */
  draftSteps: number;
  draftSeconds: number;
  draftForwards: number;
  /** tokens that it proposed and the model judged, and those of them that were kept */
  draftedTokens: number;
  acceptedTokens: number;
  /** times a request was preempted, tokens computed again for that, cached pages that were evicted */
  preemptions: number;
  recomputedTokens: number;
  evictions: number;
  finished: { end: number; stop: number; length: number; abort: number; error: number; deadline: number };
  /** seconds of the native thread in steps, and in scheduling around them */
  stepSeconds: number;
  schedulerSeconds: number;
  /**
   * stepSeconds in parts: the prompts' share of attention and matmuls, the rest's, the lm_head, select and unmask. What is
   * left is laying out the step, on a GPU also copies and waiting for its start. All 0 on a GPU unless `timeSteps`.
   */
  seconds: { prefill: number; attention: number; gemm: number; head: number; denoise: number };
  /** at index k: denoising steps of a request that filled k tokens, k = 0 to 64 */
  tokensPerForward: number[];
  /** why the device can no longer compute (DEVICE_FAILED); "" while it can */
  failure: string;
}

export interface NativeEngine {
  /** Bytes of token i are bytes[offsets[i] .. offsets[i + 1]); special tokens have none. Before the first submit. */
  setTokenBytes(bytes: Uint8Array, offsets: Uint32Array): void;
  /** Ids that end a generation, in the place of info().endTokenIds. Before the first submit. */
  setEndTokens(ids: Int32Array): void;
  info(): NativeModelInfo;
  /** On a thread of its own; rejects with INVALID_OPTION. `json`: native/form/form.h says what it may be. */
  compileForm(json: string): Promise<NativeForm>;
  /** The tokenizer's ids of the form's `runs`, one after the other, and how many each has. Before the form is used. */
  setSplits(form: unknown, ids: Int32Array, counts: Int32Array): void;
  submit(request: NativeRequest): void;
  abort(id: number): void;
  /** Takes no part in steps until resume(id); it may be preempted meanwhile. Unknown ids are ignored. */
  pause(id: number): void;
  resume(id: number): void;
  /** Events since the last call, oldest first. */
  takeEvents(): NativeEvent[];
  stats(): NativeStats;
  /** Fails what runs with DISPOSED, joins the thread, frees. Idempotent. */
  close(): Promise<void>;
}

/** What the machine has for device "cuda". */
export interface NativeCuda {
  /** the library of the kernels that was opened; "" for none */
  library: string;
  /** versions of CUDA: what the driver knows, what the library was built with; "" where unknown */
  driver: string;
  runtime: string;
  /** `capability` as "9.0", `memory` in bytes, `problem` the reason that it is unavailable or "" */
  cards: { name: string; capability: string; memory: number; problem: string }[];
  /** the reason that no GPU is available, and what to do; "" when one is */
  problem: string;
}

export interface Binding {
  /**
   * Loads off the JavaScript thread. onProgress gets (doneBytes, totalBytes); cancel() on the returned handle makes the
   * promise reject with ABORTED. onWake is called, coalesced, whenever takeEvents() has something.
   * Errors carry `code` as native/util/error.h lists them.
   */
  load(
    options: NativeLoadOptions,
    onProgress: (done: number, total: number) => void,
    onWake: () => void,
  ): { promise: Promise<NativeEngine>; cancel: () => void };
  /** instruction sets this machine runs, best first */
  instructionSets(): string[];
  /** opens the CUDA library and probes the driver, which may take a moment */
  probeCuda(): NativeCuda;
}

/** The addon's engine, with events decoded. */
function withEvents(engine: Omit<NativeEngine, "takeEvents"> & { takeRecords(): NativeRecords }): NativeEngine {
  return Object.assign(engine, { takeEvents: () => decodeEvents(engine.takeRecords()) });
}

/**
 * Loads the addon: the one built from source under build/Release, else a prebuilt one that fits this machine.
 * Throws NATIVE_MISSING when there is none or it does not load, with what to do about it.
 */
export function loadBinding(root = packageRoot): Binding & { file: string } {
  let file = "";
  try {
    file = findAddon(root);
    const addon = require(file) as Omit<Binding, "load"> & {
      load(...args: Parameters<Binding["load"]>): {
        promise: Promise<Parameters<typeof withEvents>[0]>;
        cancel(): void;
      };
    };
    const load: Binding["load"] = (...args) => {
      const { promise, cancel } = addon.load(...args);
      return { promise: promise.then(withEvents), cancel };
    };
    return { ...addon, load, file };
  } catch (cause) {
    const reason = file
      ? `${file} does not load: ${(cause as Error).message}`
      : `none found for ${platformName()} in ${root}`;
    throw new SdarError(
      "NATIVE_MISSING",
      `the native addon is missing (${reason}); build it with "npx sdar build" (in a clone "npm run build:native"): that needs CMake >= 3.20 and a C++20 compiler`,
      { cause },
    );
  }
}
