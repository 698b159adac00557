// What pretrain() and adapt() take and give.
import type { ComputeFormat, Decay, LoraTarget, Optimizer } from "./binding.js";

/** What both have in common. Results are a function of these options, the data and the checkpoint, not of `threads`. */
export interface TrainOptions {
  /** JSONL files; docs/adaptation.md has their format */
  data: string | readonly string[];
  /** folder of the finished model, which must not exist */
  to: string;
  /**
   * Folder of the run: settings, log, state. Where it is there already, the run goes on.
   *
   * @default `to` with `.run` behind it
   */
  run?: string;
  /**
   * Passes over the samples.
   *
   * @default 1
   */
  epochs?: number;
  /** Tokens of samples to train on, instead of `epochs`. */
  tokens?: number;
  /**
   * Share of the samples that is never trained on, but evaluated; 0 to 0.5, rounded down to whole samples.
   *
   * @default 0.01
   */
  heldOut?: number;
  /**
   * Most rows of a batch: a row is a position of a sample, or of a noisy view of it.
   *
   * @default 4096 of pretrain; 1024 of adapt, to which many small steps do more good than few large ones
   */
  rows?: number;
  /**
   * Batches whose gradients are averaged for a step.
   *
   * @default 1
   */
  accumulate?: number;
  /**
   * The highest one.
   *
   * @default 6e-3 of pretrain; of adapt what the width asks for, 0.256 / hidden size, at most 1e-3
   */
  learningRate?: number;
  /**
   * Share of the steps in which the learning rate rises, 0 to 0.9.
   *
   * @default 0.01
   */
  warmup?: number;
  /**
   * What becomes of the learning rate afterwards; it falls to 0.
   *
   * @default "linear"
   */
  decay?: Decay;
  /**
   * Largest norm of the gradients; more is scaled down.
   *
   * @default 1
   */
  clip?: number;
  /**
   * Of matrices; norms have none.
   *
   * @default 0.05 of pretrain, 0.01 of adapt
   */
  weightDecay?: number;
  /**
   * `"muon"` is for the matrices of layers; AdamW has the rest. One learning rate serves both.
   *
   * @default "muon" of pretrain, "adamw" of adapt
   */
  optimizer?: Optimizer;
  /**
   * Muon's.
   *
   * @default 0.95
   */
  momentum?: number;
  /**
   * Decay, per step, of a running average of the weights, which is then what is evaluated and written; 0: none.
   *
   * @default 0
   */
  ema?: number;
  /** AdamW's, 0.9, 0.95 and 1e-8 by default. */
  beta1?: number;
  beta2?: number;
  epsilon?: number;
  /**
   * Of the order of samples, what is held out, noise, and initial weights.
   *
   * @default 0
   */
  seed?: number;
  /**
   * What becomes of samples longer than the context: the data is refused, they are left out, or cut.
   *
   * @default "refuse"
   */
  tooLong?: "refuse" | "skip" | "cut";
  /**
   * Of the finished model's weights. They are trained as f32.
   *
   * @default "bf16"
   */
  dtype?: "bf16" | "f32";
  /**
   * What products are computed of: with `"bf16"` operands are rounded, sums and weights stay f32. It is faster where the
   * processor has instructions for it.
   *
   * @default "f32"
   */
  compute?: ComputeFormat;
  /**
   * What the backward pass needs of the forward pass is kept, or computed again, which takes a third more time and much less
   * memory. The results are the same.
   *
   * @default "auto": kept where there is the memory
   */
  activations?: "auto" | "keep" | "recompute";
  /**
   * Threads that compute, 1 to 1024.
   *
   * @default the physical cores this process may use
   */
  threads?: number;
  /**
   * Steps between two evaluations of what is held out.
   *
   * @default a twentieth of the run
   */
  evaluateEvery?: number;
  /**
   * Seconds after which the state is written again; what is computed after the last time is computed again by a run that was
   * killed.
   *
   * @default 120
   */
  saveSeconds?: number;
  /** Called once before the first step. */
  onStart?: (start: TrainStart) => void;
  /** Called after each step. */
  onProgress?: (progress: TrainProgress) => void;
  /** Ends the run after the step under way and saves it: the promise rejects with ABORTED, and the same call goes on. */
  signal?: AbortSignal;
}

export interface AdaptOptions extends TrainOptions {
  /** Checkpoint to begin with: a folder, `"sdar-nano"` or a hub id in the local cache. */
  from: string;
  /**
   * What is learnt: `"sdar"`, to denoise blocks by the published objective; `"views"`, the same with several noisy copies of
   * each answer behind one clean one; `"autoregressive"`, the next token, which leaves the kind of model as it is.
   *
   * @default "views"
   */
  recipe?: "sdar" | "views" | "autoregressive";
  /**
   * Positions that are denoised together, 1 to 64; of several, each sample draws one, and the first is the finished model's.
   *
   * @default the checkpoint's, else 4
   */
  blockLength?: number | readonly number[];
  /**
   * Begins with blocks of 2 positions, which double over the run until they have the block length.
   *
   * @default true with `recipe: "views"` and one block length, where the checkpoint is autoregressive
   */
  growth?: boolean;
  /**
   * Noisy copies of an answer, with `recipe: "views"`; 1 to 64.
   *
   * @default 2
   */
  views?: number;
  /**
   * Every second view masks what the one before it shows, with `recipe: "views"`.
   *
   * @default true
   */
  complementary?: boolean;
  /**
   * The first view masks all of the answer in each block, which is what decoding begins with, and the others any part of it; with
   * `recipe: "views"` and at least 2 views.
   *
   * @default true there
   */
  fullMask?: boolean;
  /**
   * Share of the blocks in which the answer's last positions are masked instead of any, with `recipe: "views"`; 0 to 1. A model that
   * was trained from left to right mostly fills its blocks so.
   *
   * @default 0
   */
  suffix?: number;
  /**
   * Name of the token that is to be the mask.
   *
   * @default the tokenizer's mask token, else `<|MASK|>`, which gets the first free id where it has none
   */
  maskToken?: string;
  /** Trains low-rank adapters, and the mask's row of the embedding, instead of all weights; the finished model has them merged. */
  lora?: LoraOptions;
}

export interface LoraOptions {
  /**
   * Rank of each adapter, 1 to the hidden size.
   *
   * @default 16
   */
  rank?: number;
  /**
   * Adapters count alpha / rank times.
   *
   * @default twice the rank
   */
  alpha?: number;
  /**
   * Matrices of a layer that have one.
   *
   * @default all; of mixtures of experts q, k, v, o
   */
  targets?: readonly LoraTarget[];
  /**
   * How the other weights of layers are held.
   *
   * @default "f32"
   */
  frozen?: "f32" | "bf16";
}

/** The sizes of a network. */
export interface Shape {
  layers: number;
  hidden: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  /** positions of the longest sequence */
  context: number;
  /**
   * Whether the lm_head is the embedding.
   *
   * @default true
   */
  tied?: boolean;
  /**
   * Base of the rotary positions.
   *
   * @default 10000
   */
  ropeTheta?: number;
}

export interface PretrainOptions extends TrainOptions {
  /** `"nano"` or sizes */
  shape: "nano" | Shape;
  /** Folder of tokenizer.json, with the chat template and what else belongs to it. */
  tokenizer: string;
  /**
   * Ids of the model, at least as many as the tokenizer's.
   *
   * @default as many as the tokenizer has, and room for a mask token where it has none
   */
  vocabSize?: number;
}

/** What is known before the first step. */
export interface TrainStart {
  /** folder of the run, and whether it goes on there */
  run: string;
  resumed: boolean;
  parameters: number;
  /** of them, or of adapters */
  trained: number;
  samples: number;
  heldOutSamples: number;
  /** of all samples, and those of them in answers */
  tokens: number;
  answerTokens: number;
  /** samples longer than the context that were left out, and that were cut */
  skipped: number;
  cut: number;
  steps: number;
  stepsDone: number;
  /** that the run takes, and its parts as text */
  memoryBytes: number;
  memory: string;
  threads: number;
}

export interface TrainProgress {
  /** steps done, and all there are */
  step: number;
  steps: number;
  loss: number;
  /** of the gradients, before clipping */
  norm: number;
  learningRate: number;
  /** of the samples held out, where they were evaluated after this step */
  heldOutLoss?: number;
  /** of samples, in this step */
  tokens: number;
  rows: number;
  seconds: number;
  /** of samples, lately */
  tokensPerSecond: number;
  etaSeconds: number;
}

export interface TrainResult {
  /** folder of the finished model */
  folder: string;
  run: string;
  steps: number;
  /** mean of the last twentieth of the steps; undefined where the run's log of them is gone */
  loss: number | undefined;
  /** undefined where nothing is held out, or the log is gone */
  heldOutLoss: number | undefined;
  /** of steps, in this process and in those before */
  seconds: number;
}
