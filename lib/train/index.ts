// sdar-engine/train: makes small autoregressive models, and models that denoise blocks out of autoregressive ones.
import { parseAdapt, parsePretrain } from "./options.js";
import { train } from "./run.js";
import type { AdaptOptions, PretrainOptions, TrainResult } from "./types.js";

export { type GradientCase, type LossAndGradients, lossAndGradients } from "./gradients.js";
export type {
  AdaptOptions,
  LoraOptions,
  PretrainOptions,
  Shape,
  TrainOptions,
  TrainProgress,
  TrainResult,
  TrainStart,
} from "./types.js";

/**
 * Makes an SDAR checkpoint out of an autoregressive one, or trains a checkpoint further. A run that was killed or aborted goes
 * on with the same call, and ends with the same bits.
 *
 * Rejects with INVALID_OPTION (also for a folder that exists, and a run that was begun otherwise), DATA_INVALID (naming file
 * and line), MODEL_NOT_FOUND and what is wrong with a checkpoint, TOKENIZER_INVALID (no id for the mask), FILE_UNWRITABLE,
 * OUT_OF_MEMORY, NUMERIC_ERROR (a loss that is no number; what was made before is kept), ABORTED.
 *
 * @example
 * await adapt({ from: "Qwen3-0.6B", data: "chats.jsonl", to: "my-sdar", onProgress: ({ step, loss }) => console.log(step, loss) });
 */
export async function adapt(options: AdaptOptions): Promise<TrainResult> {
  return train(parseAdapt(options));
}

/**
 * Makes an autoregressive checkpoint of a given shape from random weights. Rejects and goes on as `adapt` does.
 *
 * @example
 * await pretrain({ shape: "nano", tokenizer: "my-tokenizer", data: ["a.jsonl", "b.jsonl"], epochs: 3, to: "my-parent" });
 */
export async function pretrain(options: PretrainOptions): Promise<TrainResult> {
  return train(parsePretrain(options));
}
