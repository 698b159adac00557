// What native/addon/train.cc offers to training.
import { loadBinding } from "../binding.js";
import { wrapError } from "../errors.js";

// The names in native/train: recipe.h, optimizer.h.
export const objectives = ["autoregressive", "sdar", "views"] as const;
export const decays = ["constant", "linear", "cosine"] as const;
export const optimizers = ["adamw", "muon"] as const;
// kernels/formats.h
export const computeFormats = ["f32", "bf16"] as const;
// lora.h
export const loraTargets = ["q", "k", "v", "o", "gate", "up", "down"] as const;
export type Optimizer = (typeof optimizers)[number];
export type LoraTarget = (typeof loraTargets)[number];
export type ComputeFormat = (typeof computeFormats)[number];
export type Objective = (typeof objectives)[number];
export type Decay = (typeof decays)[number];

/** All fields are required and already validated by options.ts. */
export interface NativeTrainOptions {
  /** folder with the config.json of the network that is trained */
  model: string;
  /** folder of the tensors that it begins with; "": random ones */
  parent: string;
  /** the file that the worker wrote */
  samples: string;
  /** where its state is kept */
  folder: string;
  objective: Objective;
  /** lengths of a block; each sample draws one */
  blocks: Int32Array;
  views: number;
  growth: boolean;
  complementary: boolean;
  /** the first view masks all of the answer */
  fullMask: boolean;
  /** share of blocks of which the last positions are masked */
  suffix: number;
  /** fills an answer's last block; -1: it stays short */
  padId: number;
  /** of the operands of products */
  compute: ComputeFormat;
  optimizer: Optimizer;
  /** Muon's */
  momentum: number;
  /** decay of the weights' average; 0: none */
  ema: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  learningRate: number;
  decay: Decay;
  clip: number;
  /** batches whose gradients are averaged for a step */
  accumulate: number;
  seed: number;
  /** share of the steps */
  warmup: number;
  /** of a batch at most */
  rows: number;
  epochs: number;
  /** of samples in the whole run; 0: `epochs` decide */
  tokens: number;
  /** share of the samples */
  heldOut: number;
  activations: "auto" | "keep" | "recompute";
  /** 0: all weights are trained */
  loraRank: number;
  loraAlpha: number;
  /** indices into `loraTargets` */
  loraTargets: Int32Array;
  /** frozen matrices are held as bf16 */
  loraBf16: boolean;
  threads: number;
}

export interface NativeTrainInfo {
  parameters: number;
  /** of them, or of adapters */
  trained: number;
  samples: number;
  /** of all samples, and those of answers */
  tokens: number;
  answerTokens: number;
  heldOutSamples: number;
  /** of the largest batch */
  mostRows: number;
  steps: number;
  stepsDone: number;
  memoryBytes: number;
  /** its parts, as text */
  memory: string;
  threads: number;
}

export interface NativeStepReport {
  /** from 0 */
  step: number;
  loss: number;
  /** of the gradients, before clipping */
  norm: number;
  rate: number;
  rows: number;
  tokens: number;
  answerTokens: number;
  seconds: number;
}

interface NativeTraining {
  /** while no other call is under way */
  info(): NativeTrainInfo;
  step(): Promise<NativeStepReport>;
  /** loss of the samples held out; NaN without any */
  evaluate(): { promise: Promise<number>; cancel(): void };
  save(): Promise<void>;
  /** a new checkpoint, whole or not at all, with all files of `model` */
  write(options: { folder: string; dtype: "bf16" | "f32" }): Promise<void>;
  close(): void;
}

interface TrainBinding {
  openTraining(options: NativeTrainOptions): { promise: Promise<NativeTraining>; cancel(): void };
}

/** A run on the native side, with errors as SdarErrors. */
export class Training {
  readonly #native: NativeTraining;

  private constructor(native: NativeTraining) {
    this.#native = native;
  }

  /** Begins, or goes on where the folder has a state. Rejects with ABORTED where it was cancelled in time. */
  static open(options: NativeTrainOptions): { training: Promise<Training>; cancel(): void } {
    const { openTraining } = loadBinding() as unknown as TrainBinding;
    const { promise, cancel } = openTraining(options);
    return { training: told(async () => new Training(await promise)), cancel };
  }

  info = (): NativeTrainInfo => this.#native.info();
  step = (): Promise<NativeStepReport> => told(() => this.#native.step());
  save = (): Promise<void> => told(() => this.#native.save());
  write = (folder: string, dtype: "bf16" | "f32"): Promise<void> => told(() => this.#native.write({ folder, dtype }));
  close = (): void => this.#native.close();

  evaluate(): { loss: Promise<number>; cancel(): void } {
    const { promise, cancel } = this.#native.evaluate();
    return { loss: told(() => promise), cancel };
  }
}

/** With errors as SdarErrors. */
export async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw wrapError(error);
  }
}
