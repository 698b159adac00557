// The one place where what callers pass is judged: Engine.load's options and generate's request.

import { randomInt } from "node:crypto";
import { types } from "node:util";
import { z } from "zod";
import {
  kvFormats,
  type NativeLoadOptions,
  type NativeModelInfo,
  type NativeRequest,
  weightFormats,
} from "./binding.js";
import { cacheBytes, cacheFolder } from "./cache-folder.js";
import { findCheckpoint } from "./checkpoint.js";
import { type Conversation, type ConversationFields, conversationNames } from "./conversation.js";
import {
  conversationSchemas,
  messagesSchema,
  parseConversation,
  parseTools,
  refuseWithoutMessages,
  type ToolUse,
} from "./conversation-schema.js";
import { defined } from "./defined.js";
import { invalidOption, SdarError } from "./errors.js";
import { formatOf, type ParsedFormat } from "./format.js";
import type { HeldLimits } from "./held.js";
import { bounds, isPath, queueDefaults } from "./limits.js";
import { denoiseOf, qualities, refuseBlockOptions, strategies } from "./quality.js";
import type { QueueLimits } from "./queue.js";
import { checkPromptLength } from "./room.js";
import {
  boolean,
  callback,
  check,
  int32Max,
  integer,
  number,
  oneOf,
  reading,
  signal,
  strictObject,
  text,
} from "./schema.js";
import { checkSomeAllowed, isTokenList, parseBias, tokenIds } from "./token-lists.js";
import type {
  DenoiseOptions,
  DisposeOptions,
  Format,
  GenerateDefaults,
  GenerateRequest,
  LoadOptions,
  RequestFields,
} from "./types.js";

const kvCacheSchema = strictObject({
  dtype: oneOf("auto", ...kvFormats).optional(),
  bytes: integer(1, Number.MAX_SAFE_INTEGER).optional(),
  tokens: integer(1).optional(),
} satisfies Record<keyof NonNullable<LoadOptions["kvCache"]>, z.ZodType>);

const queueSchema = strictObject({
  maxRequests: integer(0),
  maxTokens: integer(0, Number.MAX_SAFE_INTEGER),
  maxBytes: integer(0, Number.MAX_SAFE_INTEGER),
  agingMs: integer(1),
  maxHeld: integer(0),
  heldMs: integer(1),
} satisfies Record<keyof NonNullable<LoadOptions["queue"]>, z.ZodType>).partial();

const cudaSchema = strictObject({
  warpgroupMma: boolean,
  dependentLaunch: boolean,
  wideExperts: boolean,
} satisfies Record<keyof NonNullable<LoadOptions["cuda"]>, z.ZodType>).partial();

const draftSchema = strictObject({
  path: z.custom<string>(isPath, { error: "a folder or a hub id" }),
  weights: oneOf("auto", ...weightFormats).optional(),
  blockLength: integer(2, 64).optional(),
  onlyIfFaster: boolean.optional(),
} satisfies Record<keyof Exclude<NonNullable<LoadOptions["draft"]>, string>, z.ZodType>);

const denoiseSchema = strictObject({
  strategy: oneOf(...strategies),
  steps: integer(1, 64),
  threshold: number("a number from 0 to 1", (v) => v >= 0 && v <= 1),
  entropyBound: number("a number from 0 to 1e9", (v) => v >= 0 && v <= 1e9),
  factor: number("a number from 0 to 1e9", (v) => v >= 0 && v <= 1e9),
  confidence: oneOf("model", "sampled"),
} satisfies Record<keyof DenoiseOptions, z.ZodType>).partial();

const cacheSchema = strictObject({
  salt: text(bounds.salt),
  pin: boolean,
} satisfies Record<keyof NonNullable<RequestFields["cache"]>, z.ZodType>).partial();

const stopText = z
  .string({ error: "a string, or a list of strings" })
  .min(1, { error: "text that is not empty" })
  .refine((v) => v.length <= bounds.stopBytes && Buffer.byteLength(v) <= bounds.stopBytes, {
    error: `at most ${bounds.stopBytes} bytes`,
  });
const tokenList = z.custom<ArrayLike<number>>(isTokenList, { error: "a list of token ids" });

const { continueFinalMessage, ...conversationDefaults } = conversationSchemas;

const defaultFields = {
  ...conversationDefaults,
  parseSpecial: boolean,
  maxTokens: integer(1),
  blockLength: integer(1, 64),
  denoise: denoiseSchema,
  quality: oneOf(...qualities),
  temperature: number("0 or a number from 1e-6 to 100", (v) => v === 0 || (v >= 1e-6 && v <= 100)),
  topK: integer(0),
  topP: number("a number above 0, up to 1", (v) => v > 0 && v <= 1),
  minP: number("a number from 0 to 1", (v) => v >= 0 && v <= 1),
  repetitionPenalty: number("a number from 0.1 to 10", (v) => v >= 0.1 && v <= 10),
  presencePenalty: number("a number from -2 to 2", (v) => v >= -2 && v <= 2),
  frequencyPenalty: number("a number from -2 to 2", (v) => v >= -2 && v <= 2),
  topLogprobs: integer(0, 20),
  seed: z.custom<number | bigint>(
    (v) => (typeof v === "bigint" ? v >= 0n && v < 1n << 64n : Number.isSafeInteger(v) && (v as number) >= 0),
    { error: "an integer from 0 to 2^53 - 1, or a bigint from 0n to 2n**64n - 1n" },
  ),
  stop: z.preprocess(
    (v) => (typeof v === "string" ? [v] : v),
    z.array(stopText, { error: "a string or a list of strings" }).max(bounds.stop, {
      error: `at most ${bounds.stop} strings`,
    }),
  ),
  stopTokens: tokenList,
  suppress: tokenList,
  ignoreEos: boolean,
  minTokens: integer(0),
  logitBias: z.custom<NonNullable<RequestFields["logitBias"]>>(
    (v) => types.isMap(v) || Object.prototype.toString.call(v) === "[object Object]",
    { error: "an object or a Map from token ids to numbers from -100 to 100" },
  ),
  drafts: boolean,
  n: integer(1, 64),
  priority: integer(-100, 100),
  key: text(bounds.key).min(1, { error: "a name that is not empty" }),
  deadline: integer(1),
  cache: cacheSchema,
  highWaterMark: integer(1),
  whenFull: oneOf("reject", "wait"),
} satisfies Record<keyof GenerateDefaults, z.ZodType>;

export const defaultsSchema = strictObject(defaultFields).partial();

const requestSchema = strictObject({
  prompt: z.string({ error: "a string" }),
  messages: messagesSchema,
  tokens: tokenList,
  ...defaultFields,
  format: z.unknown() as z.ZodType<Format>,
  continueFinalMessage,
  signal,
} satisfies Record<keyof GenerateRequest, z.ZodType>).partial();

const loadSchema = strictObject({
  device: z.custom<string>((v) => typeof v === "string" && /^(auto|cpu|cuda(:\d{1,4})?)$/.test(v), {
    error: "one of auto, cpu, cuda, cuda:N",
  }),
  weights: oneOf("auto", ...weightFormats),
  kvCache: kvCacheSchema,
  weightCache: z.custom<boolean | string>((v) => typeof v === "boolean" || isPath(v), {
    error: "true, false or a folder",
  }),
  weightCacheBytes: integer(0, Number.MAX_SAFE_INTEGER),
  threads: integer(1, 1024),
  draft: z.preprocess((v) => (typeof v === "string" ? { path: v } : v), draftSchema),
  maxConcurrent: integer(1, 4096),
  prefillTokens: integer(1),
  prefixCache: boolean,
  timeSteps: boolean,
  cuda: cudaSchema,
  queue: queueSchema,
  generate: defaultsSchema,
  isa: text(bounds.path, "the name of an instruction set").min(1, { error: "the name of an instruction set" }),
  onProgress: callback<NonNullable<LoadOptions["onProgress"]>>(),
  signal,
  log: callback<NonNullable<LoadOptions["log"]>>(),
} satisfies Record<keyof LoadOptions, z.ZodType>).partial();

/** Load options in the addon's terms, without the path. */
export interface ParsedLoadOptions {
  native: Omit<NativeLoadOptions, "path">;
  queue: QueueLimits & HeldLimits;
  onProgress?: LoadOptions["onProgress"];
  signal?: AbortSignal | undefined;
  log: NonNullable<LoadOptions["log"]>;
  /** checked, but for what depends on the model */
  generate: Defaults;
}

/** What a schema made of `generate`. */
export type Defaults = z.infer<typeof loadSchema>["generate"];

/** Throws INVALID_OPTION. Whether there is such a device the addon knows. */
export function parseLoadOptions(input: LoadOptions = {}): ParsedLoadOptions {
  const options = check(loadSchema, input, "options");
  const { device = "auto", kvCache = {}, isa = "", threads = 0, maxConcurrent = 64, queue = {}, cuda = {} } = options;
  if (kvCache.bytes !== undefined && kvCache.tokens !== undefined) {
    throw invalidOption("kvCache", kvCache, "either bytes or tokens, not both");
  }
  const dtype = kvCache.dtype ?? "auto";
  const { draft } = options;
  return {
    native: {
      device,
      weights: options.weights ?? "auto",
      threads,
      isa,
      maxConcurrent,
      cacheFolder: cacheFolder(options.weightCache ?? true),
      cacheBytes: cacheBytes(options.weightCacheBytes),
      kvTokens: kvCache.tokens ?? 0,
      kvBytes: kvCache.bytes ?? 0,
      draftPath: draft ? findCheckpoint(draft.path) : "",
      draftWeights: draft?.weights ?? "auto",
      draftBlockLength: draft?.blockLength ?? 0,
      draftOnlyIfFaster: draft?.onlyIfFaster ?? false,
      kvDtype: dtype === "auto" ? "" : dtype,
      prefillTokens: options.prefillTokens ?? 0,
      prefixCache: options.prefixCache ?? true,
      timeSteps: options.timeSteps ?? false,
      cudaWarpgroupMma: cuda.warpgroupMma ?? false,
      cudaDependentLaunch: cuda.dependentLaunch ?? false,
      cudaWideExperts: cuda.wideExperts ?? false,
    },
    queue: { ...queueDefaults, ...queue },
    onProgress: options.onProgress,
    signal: options.signal,
    log: options.log ?? (() => {}),
    generate: options.generate,
  };
}

const disposeSchema = strictObject({ drain: boolean } satisfies Record<keyof DisposeOptions, z.ZodType>).partial();

/** Throws INVALID_OPTION. */
export const parseDisposeOptions = (input: DisposeOptions): DisposeOptions => check(disposeSchema, input, "options");

/** A request in the addon's terms, but for the prompt, which may still be text. */
export interface ParsedRequest {
  prompt: string | Conversation | Int32Array;
  tools: ToolUse | undefined;
  /** undefined: in `prompt`, not in `messages` */
  parseSpecial: boolean | undefined;
  native: Omit<NativeRequest, "id" | "tokens" | "answer" | "group" | "rank" | "tenant" | "deadlineMs">;
  format: ParsedFormat | undefined;
  stop: string[];
  /** by the id of a token that a stop string names: that string, see Texts.stopsAtTokens */
  stopNames: ReadonlyMap<number, string>;
  seed: number | bigint;
  n: number;
  key: string | undefined;
  /** milliseconds from the call */
  deadline: number | undefined;
  highWaterMark: number;
  whenFull: "reject" | "wait";
  signal?: AbortSignal | undefined;
}

/** What a request says, and for the rest the defaults. */
function withDefaults(request: z.infer<typeof requestSchema>, defaults: Defaults): typeof request {
  const { quality, denoise, parseSpecial, ...rest } = defaults ?? {};
  const dial = request.quality === undefined && request.denoise === undefined ? { quality, denoise } : {};
  if (!request.messages) for (const name of conversationNames) delete (rest as ConversationFields)[name];
  return { ...rest, ...dial, ...(request.tokens ? {} : { parseSpecial }), ...defined(request) };
}

/** Throws INVALID_OPTION, TOKEN_OUT_OF_RANGE or EMPTY_PROMPT. */
export function parseRequest(input: RequestFields, model: NativeModelInfo, defaults?: Defaults): ParsedRequest {
  const r = withDefaults(check(requestSchema, input, "request"), defaults);
  const given = [r.prompt, r.messages, r.tokens].filter((v) => v !== undefined);
  if (given.length !== 1) {
    const allowed = "exactly one of prompt, messages, tokens";
    const message = `${given.length === 0 ? "no prompt" : "more than one prompt"}; give ${allowed}`;
    throw new SdarError("INVALID_OPTION", message, { option: "prompt", allowed });
  }
  if (r.tokens && r.parseSpecial !== undefined)
    throw invalidOption("parseSpecial", r.parseSpecial, "it with prompt or messages");
  if (!r.messages) refuseWithoutMessages(r);
  if (model.decoding === "autoregressive") refuseBlockOptions(r);
  const blockLength = r.blockLength ?? model.blockLength;
  // Anything above the context means the rest of it.
  const maxTokens = Math.min(r.maxTokens ?? int32Max, model.contextLength);
  const minTokens = r.minTokens ?? 0;
  if (minTokens > (r.maxTokens ?? int32Max)) throw invalidOption("minTokens", minTokens, "at most maxTokens");
  const seed = r.seed ?? randomInt(2 ** 48 - 1);
  const bias = reading("logitBias", () => parseBias(r.logitBias ?? {}, model.vocabSize));
  const stopTokens = tokenIds(r.stopTokens ?? [], "stopTokens", model.vocabSize, bounds.stopTokens);
  const suppress = tokenIds(r.suppress ?? [], "suppress", model.vocabSize, bounds.suppress);
  checkSomeAllowed("suppress", suppress, [], model);
  if (minTokens > 0) {
    const ends = r.ignoreEos ? [] : model.endTokenIds;
    checkSomeAllowed("stopTokens", stopTokens, [...ends, ...suppress], model);
  }
  const {
    strategy = "low_confidence_dynamic",
    steps = 0,
    threshold = 0.9,
    entropyBound = 0.35,
    factor = 2,
    confidence,
  } = denoiseOf(r);
  if (strategy === "self_verified" && model.device !== "cpu") {
    throw invalidOption("denoise.strategy", strategy, `any other on ${model.device}: only the CPU verifies`);
  }
  const encoder = new TextEncoder();
  const stop = r.stop ?? [];
  return {
    prompt: r.tokens
      ? promptIds(r.tokens, blockLength, model)
      : r.messages
        ? parseConversation(r.messages, r)
        : (r.prompt as string),
    tools: parseTools(r),
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
      minP: r.minP ?? 0,
      repetitionPenalty: r.repetitionPenalty ?? 1,
      presencePenalty: r.presencePenalty ?? 0,
      frequencyPenalty: r.frequencyPenalty ?? 0,
      topLogprobs: r.topLogprobs ?? 0,
      seed: BigInt(seed),
      sampledConfidence: confidence === "sampled",
      stop: stop.map((text) => encoder.encode(text)),
      stopTokens: Int32Array.from(new Set(stopTokens)),
      suppress: Int32Array.from(new Set(suppress)),
      ignoreEos: r.ignoreEos ?? false,
      minTokens: Math.min(minTokens, model.contextLength),
      biasIds: Int32Array.from(bias, ([id]) => id),
      biasValues: Float32Array.from(bias, ([, value]) => value),
      drafts: r.drafts ?? false,
      priority: r.priority ?? 0,
      // Lone surrogates would all become U+FFFD on the way: two strings are the same only when their code units are.
      salt: Buffer.from(r.cache?.salt ?? "", "utf16le").toString("latin1"),
      pin: r.cache?.pin ?? false,
    },
    format: formatOf(r),
    stop,
    stopNames: new Map(),
    seed,
    n: r.n ?? 1,
    key: r.key,
    deadline: r.deadline,
    highWaterMark: r.highWaterMark ?? 256,
    whenFull: r.whenFull ?? "reject",
    signal: r.signal,
  };
}

function promptIds(ids: ArrayLike<number>, blockLength: number, model: NativeModelInfo): Int32Array {
  // Before anything that takes longer the longer it is.
  if (ids.length > 0) checkPromptLength(ids.length, blockLength, model);
  return tokenIds(ids, "tokens", model.vocabSize, model.contextLength);
}
