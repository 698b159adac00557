// The native addon's surface, as native/addon implements it, and how the addon is found. Internal: users see engine.ts.
import { createRequire } from "node:module";
import { packageRoot } from "./checkpoint.js";
import { SdarError } from "./errors.js";

// The names in native/backend/formats.h.
export const weightFormats = ["f32", "bf16", "int8", "int4"] as const;
export const kvFormats = ["f32", "bf16", "int8"] as const;
export type WeightFormat = (typeof weightFormats)[number];
export type KvFormat = (typeof kvFormats)[number];

/** What Engine.load hands down; 0 means automatic. */
export interface NativeLoadOptions {
  path: string;
  device: string;
  weights: WeightFormat;
  threads: number;
  isa: string;
  maxConcurrent: number;
  /** where packed weights are kept for the next load; "" for nowhere */
  cacheFolder: string;
  kvTokens: number;
  kvBytes: number;
  /** "" is automatic: f32 with f32 weights, else bf16 */
  kvDtype: "" | KvFormat;
  /** most prompt positions in one step beside running requests; 0: so many that a step takes at most twice as long */
  prefillTokens: number;
  /** keep and share committed pages by content */
  prefixCache: boolean;
  /** `seconds` of the counters on a card, too */
  timeSteps: boolean;
}

export interface NativeModelInfo {
  modelType: string;
  device: string;
  /** why device "auto" computes on the CPU although a card answers; else "" */
  cardProblem: string;
  isa: string;
  threads: number;
  weights: WeightFormat;
  parameters: number;
  weightBytes: number;
  layers: number;
  hiddenSize: number;
  vocabSize: number;
  contextLength: number;
  blockLength: number;
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
  seed: bigint;
  /** confidence is the probability after truncation */
  sampledConfidence: boolean;
  stop: Uint8Array[];
  stopTokens: Int32Array;
  ignoreEos: boolean;
  minTokens: number;
  biasIds: Int32Array;
  biasValues: Float32Array;
  drafts: boolean;
  /** index among the `n` answers of one prompt; part of the key of the random numbers */
  answer: number;
  /**
   * 0 for none, else the id of the first of several answers of one prompt: the others wait until that one has brought the
   * prompt into the cache. All of a group are submitted one after the other, answer 0 first.
   */
  group: number;
  /** order among the admitted that wait, lower first; any finite number */
  rank: number;
  /** when pages run out, the lowest priority gives them up first, then the highest rank */
  priority: number;
  /** milliseconds from submit until it fails with DEADLINE_EXCEEDED; 0 for none */
  deadlineMs: number;
  /** cached pages are shared among requests of equal salt; "" for none */
  salt: string;
  /** pages of the prompt are evicted only when nothing else is left to evict */
  pin: boolean;
}

/**
 * Events since the last call, oldest first, as one flat array of records [kind, request, length, ...payload]:
 *  kind 1 tokens:  payload = [releasedBytes, then per token id, position, block, step, confidence, logprob];
 *                  tokens come in order of position; releasedBytes counts bytes of text from the start of the generation
 *                  that can no longer become part of a stop string
 *  kind 2 finished: payload = [reason, textBytes, promptTokens, cachedTokens, completionTokens, forwards];
 *                  reason 0 end, 1 stop, 2 length, 3 abort; text ends after textBytes bytes
 *  kind 3 failed:  payload = [index into errors]
 *  kind 4 draft:   payload = [block, step, first position, then per position of the active block: id or -1 when masked, step or -1]
 *  kind 5 started: payload = [cachedTokens], once, when the request first takes part in a step
 *  kind 6 preempted: payload = []; it lost its pages and waits to be resumed
 */
export interface NativeEvents {
  records: Float64Array;
  errors: { code: string; message: string }[];
}

export interface NativeStats {
  running: number;
  /** handed over to the native side and not running */
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
  /** prompt tokens of all that were handed over, and those of them found in the prefix cache */
  promptTokens: number;
  cachedTokens: number;
  /** times a request lost its pages to others, tokens computed again for that, cached pages that were given up */
  preemptions: number;
  recomputedTokens: number;
  evictions: number;
  finished: { end: number; stop: number; length: number; abort: number; error: number; deadline: number };
  /** seconds of the native thread in steps, and in scheduling around them */
  stepSeconds: number;
  schedulerSeconds: number;
  /**
   * stepSeconds in parts: the prompts' share of attention and products, the rest's, the head, choosing positions. What is
   * left is laying out the step, on a card also copies and waiting for its start. All 0 on a card unless `timeSteps`.
   */
  seconds: { prefill: number; attention: number; gemm: number; head: number; denoise: number };
  /** [k]: denoising steps of a request that filled k tokens, k = 0 to 64 */
  tokensPerForward: number[];
  /** why the device can no longer compute (DEVICE_FAILED); "" while it can */
  failure: string;
}

export interface NativeEngine {
  /** Bytes of token i are bytes[offsets[i] .. offsets[i + 1]); special tokens have none. Before the first submit. */
  setTokenBytes(bytes: Uint8Array, offsets: Uint32Array): void;
  info(): NativeModelInfo;
  submit(request: NativeRequest): void;
  abort(id: number): void;
  /** Takes no part in steps until resume(id); its pages may be given up meanwhile. Unknown ids are ignored. */
  pause(id: number): void;
  resume(id: number): void;
  takeEvents(): NativeEvents;
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
  /** `capability` as "9.0", `memory` in bytes, `problem` why it cannot be used or "" */
  cards: { name: string; capability: string; memory: number; problem: string }[];
  /** why no card can be used, and what to do; "" when one can */
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
  /** opens the CUDA library and asks the driver, which may take a moment */
  examineCuda(): NativeCuda;
}

/** A record of NativeEvents, taken apart; `values` is the payload. */
export interface NativeEvent {
  kind: number;
  request: number;
  values: Float64Array;
}

/** Kinds of records in NativeEvents. */
export const eventKind = { tokens: 1, finished: 2, failed: 3, draft: 4, started: 5, preempted: 6 } as const;

export function* readEvents(records: Float64Array): Generator<NativeEvent> {
  for (let at = 0; at < records.length; ) {
    const [kind, request, length] = records.subarray(at, at + 3) as unknown as [number, number, number];
    yield { kind, request, values: records.subarray(at + 3, at + 3 + length) };
    at += 3 + length;
  }
}

/**
 * Loads the addon: the one built from source under build/Release, else a prebuilt one that fits this machine.
 * Throws NATIVE_MISSING when there is none or it does not load, with what to do about it.
 */
export function loadBinding(root = packageRoot): Binding & { file: string } {
  const require = createRequire(import.meta.url);
  const finder = require("node-gyp-build") as { resolve(root: string): string };
  let file = "";
  try {
    file = finder.resolve(root);
    return { ...(require(file) as Binding), file };
  } catch (cause) {
    const target = `${process.platform}-${process.arch}`;
    const reason = file ? `${file} does not load: ${(cause as Error).message}` : `none found for ${target} in ${root}`;
    throw new SdarError(
      "NATIVE_MISSING",
      `the native addon is missing (${reason}); build it with "npm run build:native" in ${root}: that needs CMake >= 3.20 and a C++20 compiler`,
      { cause },
    );
  }
}
