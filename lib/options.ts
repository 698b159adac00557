// The one place where what callers pass is judged: Engine.load's options and generate's request.
import { randomInt } from "node:crypto";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { z } from "zod";
import {
  kvFormats,
  type NativeLoadOptions,
  type NativeModelInfo,
  type NativeRequest,
  weightFormats,
} from "./binding.js";
import { invalidOption, SdarError } from "./errors.js";
import { denoiseOf, qualities, strategies } from "./quality.js";
import type { QueueLimits } from "./queue.js";
import { boolean, callback, check, int32Max, integer, number, oneOf, signal, strictObject } from "./schema.js";
import type { DenoiseOptions, DisposeOptions, GenerateRequest, LoadOptions, Message } from "./types.js";

const kvCacheSchema = strictObject({
  dtype: oneOf("auto", ...kvFormats).optional(),
  bytes: integer(1, Number.MAX_SAFE_INTEGER).optional(),
  tokens: integer(1).optional(),
} satisfies Record<keyof NonNullable<LoadOptions["kvCache"]>, z.ZodType>);

const queueSchema = strictObject({
  maxRequests: integer(0),
  maxTokens: integer(0, Number.MAX_SAFE_INTEGER),
  agingMs: integer(1),
} satisfies Record<keyof NonNullable<LoadOptions["queue"]>, z.ZodType>).partial();

const cudaSchema = strictObject({
  warpgroupMma: boolean,
  dependentLaunch: boolean,
} satisfies Record<keyof NonNullable<LoadOptions["cuda"]>, z.ZodType>).partial();

const loadSchema = strictObject({
  device: z.custom<string>((v) => typeof v === "string" && /^(auto|cpu|cuda(:\d+)?)$/.test(v), {
    error: "one of auto, cpu, cuda, cuda:N",
  }),
  weights: oneOf("auto", ...weightFormats),
  kvCache: kvCacheSchema,
  weightCache: z.custom<boolean | string>((v) => typeof v === "boolean" || (typeof v === "string" && v !== ""), {
    error: "true, false or a folder",
  }),
  threads: integer(1, 1024),
  maxConcurrent: integer(1, 4096),
  prefillTokens: integer(1),
  prefixCache: boolean,
  timeSteps: boolean,
  cuda: cudaSchema,
  queue: queueSchema,
  isa: z.string({ error: "the name of an instruction set" }).min(1, { error: "the name of an instruction set" }),
  onProgress: callback<NonNullable<LoadOptions["onProgress"]>>(),
  signal,
  log: callback<NonNullable<LoadOptions["log"]>>(),
} satisfies Record<keyof LoadOptions, z.ZodType>).partial();

const messageSchema = strictObject({
  role: z.string({ error: "a string" }).min(1, { error: "a role such as user" }),
  content: z.string({ error: "a string" }),
} satisfies Record<keyof Message, z.ZodType>);

const denoiseSchema = strictObject({
  strategy: oneOf(...strategies),
  steps: integer(1, 64),
  threshold: number("a number from 0 to 1", (v) => v >= 0 && v <= 1),
  entropyBound: number("a number from 0 to 1e9", (v) => v >= 0 && v <= 1e9),
  factor: number("a number from 0 to 1e9", (v) => v >= 0 && v <= 1e9),
  confidence: oneOf("model", "sampled"),
} satisfies Record<keyof DenoiseOptions, z.ZodType>).partial();

const cacheSchema = strictObject({
  salt: z.string({ error: "a string" }),
  pin: boolean,
} satisfies Record<keyof NonNullable<GenerateRequest["cache"]>, z.ZodType>).partial();

const stopText = z.string({ error: "a string, or a list of strings" }).min(1, { error: "text that is not empty" });
const tokenList = z.custom<ArrayLike<number>>(
  (v) => Array.isArray(v) || v instanceof Int32Array || v instanceof Uint32Array || v instanceof Uint16Array,
  { error: "a list of token ids" },
);

const requestSchema = strictObject({
  prompt: z.string({ error: "a string" }),
  messages: z.array(messageSchema, { error: "a list of messages" }).min(1, { error: "at least one message" }),
  tokens: tokenList,
  parseSpecial: boolean,
  maxTokens: integer(1),
  blockLength: integer(1, 64),
  denoise: denoiseSchema,
  quality: oneOf(...qualities),
  temperature: number("0 or a number from 1e-6 to 100", (v) => v === 0 || (v >= 1e-6 && v <= 100)),
  topK: integer(0),
  topP: number("a number above 0, up to 1", (v) => v > 0 && v <= 1),
  seed: z.custom<number | bigint>(
    (v) => (typeof v === "bigint" ? v >= 0n && v < 1n << 64n : Number.isSafeInteger(v) && (v as number) >= 0),
    { error: "an integer from 0 to 2^53 - 1, or a bigint from 0n to 2n**64n - 1n" },
  ),
  stop: z.preprocess(
    (v) => (typeof v === "string" ? [v] : v),
    z.array(stopText, { error: "a string or a list of strings" }),
  ),
  stopTokens: tokenList,
  ignoreEos: boolean,
  minTokens: integer(0),
  logitBias: z.custom<NonNullable<GenerateRequest["logitBias"]>>(
    (v) => typeof v === "object" && v !== null && !Array.isArray(v),
    { error: "an object or a Map from token ids to numbers from -100 to 100" },
  ),
  drafts: boolean,
  n: integer(1, 64),
  priority: integer(-100, 100),
  key: z.string({ error: "a string" }).min(1, { error: "a name that is not empty" }),
  deadline: integer(1),
  cache: cacheSchema,
  highWaterMark: integer(1),
  signal,
} satisfies Record<keyof GenerateRequest, z.ZodType>).partial();

/** Load options in the addon's terms, without the path. */
export interface ParsedLoadOptions {
  native: Omit<NativeLoadOptions, "path">;
  queue: QueueLimits;
  onProgress?: LoadOptions["onProgress"];
  signal?: AbortSignal | undefined;
  log: NonNullable<LoadOptions["log"]>;
}

/** Where packed weights are kept; "" for nowhere. */
function cacheFolder(weightCache: boolean | string): string {
  if (weightCache === false) return "";
  if (weightCache !== true) return resolve(weightCache);
  const { SDAR_CACHE_DIR, XDG_CACHE_HOME } = process.env;
  return SDAR_CACHE_DIR || join(XDG_CACHE_HOME || join(homedir(), ".cache"), "sdar-engine");
}

/** Throws INVALID_OPTION. Whether there is such a device the addon knows. */
export function parseLoadOptions(input: LoadOptions = {}): ParsedLoadOptions {
  const options = check(loadSchema, input, "options");
  const { device = "auto", kvCache = {}, isa = "", threads = 0, maxConcurrent = 64, queue = {}, cuda = {} } = options;
  if (kvCache.bytes !== undefined && kvCache.tokens !== undefined) {
    throw invalidOption("kvCache", kvCache, "either bytes or tokens, not both");
  }
  const dtype = kvCache.dtype ?? "auto";
  return {
    native: {
      device,
      weights: options.weights ?? "auto",
      threads,
      isa,
      maxConcurrent,
      cacheFolder: cacheFolder(options.weightCache ?? true),
      kvTokens: kvCache.tokens ?? 0,
      kvBytes: kvCache.bytes ?? 0,
      kvDtype: dtype === "auto" ? "" : dtype,
      prefillTokens: options.prefillTokens ?? 0,
      prefixCache: options.prefixCache ?? true,
      timeSteps: options.timeSteps ?? false,
      cudaWarpgroupMma: cuda.warpgroupMma ?? false,
      cudaDependentLaunch: cuda.dependentLaunch ?? false,
    },
    queue: {
      maxRequests: queue.maxRequests ?? 4096,
      maxTokens: queue.maxTokens ?? Number.MAX_SAFE_INTEGER,
      agingMs: queue.agingMs ?? 1000,
    },
    onProgress: options.onProgress,
    signal: options.signal,
    log: options.log ?? (() => {}),
  };
}

const disposeSchema = strictObject({ drain: boolean } satisfies Record<keyof DisposeOptions, z.ZodType>).partial();

/** Throws INVALID_OPTION. */
export const parseDisposeOptions = (input: DisposeOptions): DisposeOptions => check(disposeSchema, input, "options");

/** A request in the addon's terms, but for the prompt, which may still be text. */
export interface ParsedRequest {
  prompt: string | Message[] | Int32Array;
  /** undefined: in `prompt`, not in `messages` */
  parseSpecial: boolean | undefined;
  native: Omit<NativeRequest, "id" | "tokens" | "answer" | "group" | "rank" | "deadlineMs">;
  stop: string[];
  /** by the id of a token that a stop string names: that string, see Texts.stopsAtTokens */
  stopNames: ReadonlyMap<number, string>;
  seed: number | bigint;
  n: number;
  key: string | undefined;
  /** milliseconds from the call */
  deadline: number | undefined;
  highWaterMark: number;
  signal?: AbortSignal | undefined;
}

/** Throws INVALID_OPTION, TOKEN_OUT_OF_RANGE or EMPTY_PROMPT. */
export function parseRequest(input: GenerateRequest, model: NativeModelInfo): ParsedRequest {
  const r = check(requestSchema, input, "request");
  const given = [r.prompt, r.messages, r.tokens].filter((v) => v !== undefined);
  if (given.length !== 1) {
    const allowed = "exactly one of prompt, messages, tokens";
    const message = `${given.length === 0 ? "no prompt" : "more than one prompt"}; give ${allowed}`;
    throw new SdarError("INVALID_OPTION", message, { option: "prompt", allowed });
  }
  if (r.tokens && r.parseSpecial !== undefined)
    throw invalidOption("parseSpecial", r.parseSpecial, "it with prompt or messages");
  const blockLength = r.blockLength ?? model.blockLength;
  // Anything above the context means the rest of it.
  const maxTokens = Math.min(r.maxTokens ?? int32Max, model.contextLength);
  const minTokens = r.minTokens ?? 0;
  if (minTokens > (r.maxTokens ?? int32Max)) throw invalidOption("minTokens", minTokens, "at most maxTokens");
  const seed = r.seed ?? randomInt(2 ** 48 - 1);
  const bias = parseBias(r.logitBias ?? {}, model.vocabSize);
  const {
    strategy = "low_confidence_dynamic",
    steps = 0,
    threshold = 0.9,
    entropyBound = 0.35,
    factor = 2,
    confidence,
  } = denoiseOf(r);
  const encoder = new TextEncoder();
  const stop = r.stop ?? [];
  return {
    prompt: r.tokens ? tokenIds(r.tokens, "tokens", model.vocabSize) : (r.messages ?? (r.prompt as string)),
    parseSpecial: r.parseSpecial,
    native: {
      maxTokens,
      blockLength,
      strategy: strategies.indexOf(strategy),
      steps,
      threshold,
      entropyBound,
      factor,
      temperature: r.temperature ?? 0,
      topK: r.topK ?? 0,
      topP: r.topP ?? 1,
      seed: BigInt(seed),
      sampledConfidence: confidence === "sampled",
      stop: stop.map((text) => encoder.encode(text)),
      stopTokens: tokenIds(r.stopTokens ?? [], "stopTokens", model.vocabSize),
      ignoreEos: r.ignoreEos ?? false,
      minTokens: Math.min(minTokens, model.contextLength),
      biasIds: Int32Array.from(bias, ([id]) => id),
      biasValues: Float32Array.from(bias, ([, value]) => value),
      drafts: r.drafts ?? false,
      priority: r.priority ?? 0,
      salt: r.cache?.salt ?? "",
      pin: r.cache?.pin ?? false,
    },
    stop,
    stopNames: new Map(),
    seed,
    n: r.n ?? 1,
    key: r.key,
    deadline: r.deadline,
    highWaterMark: r.highWaterMark ?? 256,
    signal: r.signal,
  };
}

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
 * How many of the tokens a request asks for its prompt leaves room for. Throws EMPTY_PROMPT, PROMPT_TOO_LONG, and
 * CACHE_TOO_SMALL for what could not run with all pages to itself, as the addon would when its turn has come.
 */
export function roomFor(prompt: number, request: ParsedRequest["native"], model: NativeModelInfo): number {
  const { blockLength } = request;
  checkPromptLength(prompt, blockLength, model);
  const maxTokens = Math.min(request.maxTokens, usableContext(blockLength, model) - prompt);
  const needed = Math.ceil((prompt + maxTokens) / blockLength) * blockLength;
  const { pages, tokens } = model.kv;
  // A block does not straddle pages.
  const capacity = pages * Math.floor(tokens / pages / blockLength) * blockLength;
  if (needed <= capacity) return maxTokens;
  const message = `the request may need ${needed} tokens of KV cache; kvCache holds ${capacity}`;
  throw new SdarError("CACHE_TOO_SMALL", `${message}: lower maxTokens or raise kvCache`);
}

export const usableContext = (blockLength: number, { contextLength }: NativeModelInfo) =>
  Math.floor(contextLength / blockLength) * blockLength;

function tokenIds(ids: ArrayLike<number>, option: string, vocabSize: number): Int32Array {
  const allowed = `an integer from 0 to ${vocabSize - 1}`;
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as number;
    if (!Number.isSafeInteger(id)) throw invalidOption(`${option}[${i}]`, id, allowed);
    if (id >= 0 && id < vocabSize) continue;
    const message = `${option}[${i}]: ${id} is not a token of this model; give ${allowed}`;
    throw new SdarError("TOKEN_OUT_OF_RANGE", message, { option: `${option}[${i}]`, value: id, allowed });
  }
  return Int32Array.from(ids);
}

/** Pairs of id and value, ids ascending. */
function parseBias(bias: NonNullable<GenerateRequest["logitBias"]>, vocabSize: number): [number, number][] {
  const entries: [unknown, unknown][] = bias instanceof Map ? [...bias] : Object.entries(bias);
  const pairs = entries.map(([key, value]): [number, number] => {
    const id = typeof key === "string" && /^\d+$/.test(key) ? Number(key) : (key as number);
    tokenIds([id], "logitBias", vocabSize);
    if (typeof value === "number" && value >= -100 && value <= 100) return [id, value];
    throw invalidOption(`logitBias[${id}]`, value, "a number from -100 to 100");
  });
  return pairs.sort(([a], [b]) => a - b);
}
