// The one place where options of pretrain() and adapt() are judged.
import { z } from "zod";
import { invalidOption } from "../errors.js";
import { isPath } from "../limits.js";
import { boolean, callback, check, integer, number, oneOf, signal, strictObject, text } from "../schema.js";
import {
  type ComputeFormat,
  computeFormats,
  type Decay,
  decays,
  type LoraTarget,
  loraTargets,
  type Objective,
  type Optimizer,
  objectives,
  optimizers,
} from "./binding.js";
import type { AdaptOptions, LoraOptions, PretrainOptions, Shape, TrainOptions } from "./types.js";

const path = z.custom<string>(isPath, { error: "a path" });
const share = (most: number) => number(`a number from 0 to ${most}`, (v) => v >= 0 && v <= most);
const below1 = number("a number from 0 to below 1", (v) => v >= 0 && v < 1);
const block = integer(1, 64);

const common = {
  data: z.preprocess(
    (v) => (typeof v === "string" ? [v] : v),
    z.array(path, { error: "a file, or a list of files" }).min(1, { error: "at least one file" }),
  ) as unknown as z.ZodType<string[]>,
  to: path,
  run: path.optional(),
  epochs: integer(1, 100_000).optional(),
  tokens: integer(1, Number.MAX_SAFE_INTEGER).optional(),
  heldOut: share(0.5).optional(),
  rows: integer(1, 2 ** 24).optional(),
  accumulate: integer(1, 2 ** 20).optional(),
  learningRate: number("a number above 0, up to 1", (v) => v > 0 && v <= 1).optional(),
  warmup: share(0.9).optional(),
  decay: oneOf(...decays).optional(),
  clip: number("a number above 0", (v) => v > 0 && v <= 1e30).optional(),
  weightDecay: share(100).optional(),
  optimizer: oneOf(...optimizers).optional(),
  momentum: below1.optional(),
  ema: below1.optional(),
  beta1: below1.optional(),
  beta2: below1.optional(),
  epsilon: number("a number above 0, below 1", (v) => v > 0 && v < 1).optional(),
  seed: integer(0, Number.MAX_SAFE_INTEGER).optional(),
  tooLong: oneOf("refuse", "skip", "cut").optional(),
  dtype: oneOf("bf16", "f32").optional(),
  compute: oneOf(...computeFormats).optional(),
  activations: oneOf("auto", "keep", "recompute").optional(),
  threads: integer(1, 1024).optional(),
  evaluateEvery: integer(1).optional(),
  saveSeconds: number("a number >= 0", (v) => v >= 0).optional(),
  onStart: callback<NonNullable<TrainOptions["onStart"]>>().optional(),
  onProgress: callback<NonNullable<TrainOptions["onProgress"]>>().optional(),
  signal: signal.optional(),
} satisfies Record<keyof TrainOptions, z.ZodType>;

const loraSchema = strictObject({
  rank: integer(1, 2 ** 18),
  alpha: number("a number above 0, up to 1e6", (v) => v > 0 && v <= 1e6),
  targets: z
    .array(oneOf(...loraTargets), { error: `a list of ${loraTargets.join(", ")}` })
    .min(1, { error: "at least one matrix" })
    .refine((list) => new Set(list).size === list.length, { error: "each once" }),
  frozen: oneOf("f32", "bf16"),
} satisfies Record<keyof LoraOptions, z.ZodType>).partial();

const adaptSchema = strictObject({
  ...common,
  from: path,
  recipe: oneOf(...objectives).optional(),
  blockLength: z.preprocess(
    (v) => (typeof v === "number" ? [v] : v),
    z.array(block, { error: "an integer from 1 to 64, or a list of them" }).min(1).max(64).optional(),
  ),
  growth: boolean.optional(),
  views: integer(1, 64).optional(),
  complementary: boolean.optional(),
  fullMask: boolean.optional(),
  suffix: number("a number from 0 to 1", (v) => v >= 0 && v <= 1).optional(),
  maskToken: text(256).min(1, { error: "a token's name" }).optional(),
  lora: loraSchema.optional(),
} satisfies Record<keyof AdaptOptions, z.ZodType>);

const shapeSchema = strictObject({
  layers: integer(1, 1024),
  hidden: integer(1, 2 ** 18),
  heads: integer(1, 1024),
  kvHeads: integer(1, 1024),
  headDim: integer(2, 1024),
  intermediate: integer(1, 2 ** 18),
  context: integer(1, 2 ** 20),
  tied: boolean.optional(),
  ropeTheta: number("a number above 0", (v) => v > 0 && v <= 1e12).optional(),
} satisfies Record<keyof Shape, z.ZodType>);

const pretrainSchema = strictObject({
  ...common,
  shape: z.union([z.literal("nano"), shapeSchema], { error: '"nano", or an object of sizes' }),
  tokenizer: path,
  vocabSize: integer(1, 2 ** 22).optional(),
} satisfies Record<keyof PretrainOptions, z.ZodType>);

/** That of native/bench/shapes.cc. */
const nano: Shape = { layers: 6, hidden: 256, heads: 4, kvHeads: 2, headDim: 64, intermediate: 640, context: 1024 };

/** What results depend on: a run goes on only with the same. */
export interface Settings {
  kind: "adapt" | "pretrain";
  recipe: Objective;
  /** empty where autoregressive */
  blocks: number[];
  /** undefined, until the model is known: where it has had no blocks */
  growth: boolean | undefined;
  views: number;
  complementary: boolean;
  fullMask: boolean;
  suffix: number;
  maskToken: string | undefined;
  /** undefined: all weights are trained; of its targets: the default */
  lora: { rank: number; alpha: number; targets: LoraTarget[] | undefined; frozen: "f32" | "bf16" } | undefined;
  shape: Required<Shape> | undefined;
  vocabSize: number | undefined;
  epochs: number;
  /** 0: `epochs` decide */
  tokens: number;
  heldOut: number;
  rows: number;
  accumulate: number;
  /** 0, until the model is known: what its width asks for */
  learningRate: number;
  warmup: number;
  decay: Decay;
  clip: number;
  weightDecay: number;
  optimizer: Optimizer;
  momentum: number;
  ema: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  seed: number;
  tooLong: "refuse" | "skip" | "cut";
  dtype: "bf16" | "f32";
  compute: ComputeFormat;
}

/** What is asked for, checked and complete. */
export interface Job {
  settings: Settings;
  /** folder of the checkpoint, or of the tokenizer */
  source: string;
  data: string[];
  to: string;
  run: string;
  activations: "auto" | "keep" | "recompute";
  threads: number;
  evaluateEvery: number | undefined;
  saveSeconds: number;
  onStart: TrainOptions["onStart"];
  onProgress: TrainOptions["onProgress"];
  signal: AbortSignal | undefined;
}

type Checked = Omit<TrainOptions, "data"> & { data: string[] };

function commonSettings(
  given: Checked,
  defaults: Pick<Settings, "learningRate" | "weightDecay" | "optimizer" | "rows">,
) {
  if (given.epochs !== undefined && given.tokens !== undefined)
    throw invalidOption("tokens", given.tokens, "either it or epochs");
  return {
    epochs: given.epochs ?? 1,
    tokens: given.tokens ?? 0,
    heldOut: given.heldOut ?? 0.01,
    rows: given.rows ?? defaults.rows,
    accumulate: given.accumulate ?? 1,
    learningRate: given.learningRate ?? defaults.learningRate,
    warmup: given.warmup ?? 0.01,
    decay: given.decay ?? "linear",
    clip: given.clip ?? 1,
    weightDecay: given.weightDecay ?? defaults.weightDecay,
    optimizer: given.optimizer ?? defaults.optimizer,
    momentum: given.momentum ?? 0.95,
    ema: given.ema ?? 0,
    beta1: given.beta1 ?? 0.9,
    beta2: given.beta2 ?? 0.95,
    epsilon: given.epsilon ?? 1e-8,
    seed: given.seed ?? 0,
    tooLong: given.tooLong ?? "refuse",
    dtype: given.dtype ?? "bf16",
    compute: given.compute ?? "f32",
  } satisfies Partial<Settings>;
}

function jobOf(given: Checked, source: string, settings: Settings): Job {
  const { data, to, run = `${to.replace(/\/+$/, "")}.run`, activations = "auto", threads = 0 } = given;
  const { evaluateEvery, saveSeconds = 120, onStart, onProgress, signal } = given;
  const how = { activations, threads, evaluateEvery, saveSeconds, onStart, onProgress, signal };
  return { settings, source, data, to, run, ...how };
}

function loraOf({ rank = 16, alpha = 2 * rank, targets, frozen = "f32" }: LoraOptions): Settings["lora"] {
  return { rank, alpha, targets: targets && [...targets], frozen };
}

/** Throws INVALID_OPTION. */
export function parseAdapt(options: AdaptOptions): Job {
  const given = check(adaptSchema, options, "options") as unknown as Checked &
    Omit<AdaptOptions, "data" | "blockLength"> & { blockLength?: number[] };
  const {
    from,
    recipe = "views",
    blockLength,
    growth,
    views,
    complementary,
    fullMask,
    suffix,
    maskToken,
    lora,
  } = given;
  if (recipe === "autoregressive") {
    const name = (["blockLength", "growth", "maskToken"] as const).find((each) => given[each] !== undefined);
    if (name) throw invalidOption(name, given[name], "it with a recipe that denoises blocks");
  }
  const several = blockLength !== undefined && blockLength.length > 1;
  if (growth && several) throw invalidOption("growth", growth, "it with one block length");
  for (const [name, value] of Object.entries({ views, complementary, fullMask, suffix }))
    if (value !== undefined && recipe !== "views") throw invalidOption(name, value, 'it with recipe: "views"');
  if (fullMask && views === 1) throw invalidOption("fullMask", fullMask, "it with 2 views or more");
  return jobOf(given, from, {
    kind: "adapt",
    recipe,
    blocks: blockLength ?? [],
    growth,
    views: views ?? 2,
    complementary: complementary ?? recipe === "views",
    fullMask: fullMask ?? (recipe === "views" && views !== 1),
    suffix: suffix ?? 0,
    maskToken,
    lora: lora && loraOf(lora),
    shape: undefined,
    vocabSize: undefined,
    ...commonSettings(given, { learningRate: 0, weightDecay: 0.01, optimizer: "adamw", rows: 1024 }),
  });
}

/** Throws INVALID_OPTION. */
export function parsePretrain(options: PretrainOptions): Job {
  const given = check(pretrainSchema, options, "options") as unknown as Checked & Omit<PretrainOptions, "data">;
  const shape = { tied: true, ropeTheta: 1e4, ...(given.shape === "nano" ? nano : given.shape) };
  if (shape.heads % shape.kvHeads !== 0)
    throw invalidOption("shape.kvHeads", shape.kvHeads, `a divisor of heads, ${shape.heads}`);
  if (shape.headDim % 2 !== 0) throw invalidOption("shape.headDim", shape.headDim, "an even number");
  return jobOf(given, given.tokenizer, {
    kind: "pretrain",
    recipe: "autoregressive",
    blocks: [],
    growth: false,
    views: 1,
    complementary: false,
    fullMask: false,
    suffix: 0,
    maskToken: undefined,
    lora: undefined,
    shape,
    vocabSize: given.vocabSize,
    ...commonSettings(given, { learningRate: 6e-3, weightDecay: 0.05, optimizer: "muon", rows: 4096 }),
  });
}
