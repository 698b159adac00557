// What native/bench/addon.cc offers to the commands that measure.
import { loadBinding, type NativeLoadOptions, type NativeModelInfo } from "../binding.js";
import { wrapError } from "../errors.js";

export interface NativeBenchOptions extends NativeLoadOptions {
  /** random weights of this shape instead of the checkpoint at `path`; "" for none */
  shape: string;
  /** of the shape; 0: all */
  layers: number;
  randomSeed: number;
  /** most positions in the cache before a forward */
  context: number;
  /** positions of the largest forward */
  tokens: number;
}

/** One number for each round; an operation is half a multiply-add. */
export interface NativeRounds {
  /** as asked for */
  contexts: {
    seconds: Float64Array;
    /** the same forward with all logits written out */
    logitsSeconds: Float64Array;
    /** a forward of one position, if asked for */
    singleSeconds: Float64Array;
    /** what one forward must read and compute */
    weightBytes: number;
    kvBytes: number;
    operations: number;
    /** of a mixture of experts: how many of a layer the forward read, on average; else 0 */
    expertsPerLayer: number;
  }[];
  /** limits of the machine: bytes per second; operations per second with the weights, and with keys and values */
  readBandwidth: Float64Array;
  multiplyRate: Float64Array;
  attentionRate: Float64Array;
  /** the instruction that multiplies weights */
  instruction: string;
}

/** A denoising step to be computed again: all tokens up to the end of the active block, the mask id where masked. */
export interface NativeStep {
  tokens: Int32Array;
  blockLength: number;
  /** offsets in the active block, the last one of `tokens` */
  masked: Int32Array;
}

/** Sums over the masked positions of some steps. */
export interface NativeDivergence {
  positions: number;
  /** nats */
  kl: number;
  sameArgmax: number;
}

export interface NativeBench {
  info(): NativeModelInfo;
  /** Each round: the limits if asked for; with each context a forward and, if asked for, one with logits and a single one. */
  run(options: {
    tokens: number;
    contexts: Int32Array;
    runs: number;
    logits: boolean;
    limits: boolean;
    single: boolean;
  }): Promise<NativeRounds>;
  /** How far `other`'s distributions are from this one's. */
  compare(other: NativeBench, steps: NativeStep[]): Promise<NativeDivergence>;
  /** Frees the model. */
  close(): void;
}

export interface NativeWriteOptions {
  folder: string;
  shape: string;
  layers: number;
  dtype: "bf16" | "f32";
  randomSeed: number;
  overwrite: boolean;
  threads: number;
}

type Progress = (done: number, total: number) => void;

export interface BenchBinding {
  openBench(options: NativeBenchOptions, onProgress?: Progress): Promise<NativeBench>;
  writeCheckpoint(
    options: NativeWriteOptions,
    onProgress?: Progress,
  ): Promise<{ parameters: number; bytes: number; files: number }>;
}

const binding = () => loadBinding() as unknown as BenchBinding;

/** Options that are not given are automatic. Rejects with an SdarError. */
export async function openBench(
  options: Pick<NativeBenchOptions, "path" | "shape" | "weights" | "context" | "tokens"> & Partial<NativeBenchOptions>,
  onProgress?: Progress,
): Promise<NativeBench> {
  const automatic = {
    device: "cpu",
    threads: 0,
    isa: "",
    maxConcurrent: 1,
    cacheFolder: "",
    cacheBytes: 0,
    kvTokens: 0,
    kvBytes: 0,
  };
  try {
    return await binding().openBench(
      {
        ...automatic,
        kvDtype: "",
        draftPath: "",
        draftWeights: "auto",
        draftBlockLength: 0,
        draftOnlyIfFaster: false,
        prefillTokens: 0,
        prefixCache: false,
        timeSteps: false,
        cudaWarpgroupMma: false,
        cudaDependentLaunch: false,
        cudaWideExperts: false,
        layers: 0,
        randomSeed: 1,
        ...options,
      },
      onProgress,
    );
  } catch (error) {
    throw wrapError(error);
  }
}

/** Rejects with an SdarError. */
export async function writeCheckpoint(...args: Parameters<BenchBinding["writeCheckpoint"]>) {
  try {
    return await binding().writeCheckpoint(...args);
  } catch (error) {
    throw wrapError(error);
  }
}
