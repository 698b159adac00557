// The dial between accuracy and forwards: strategies of denoising and the settings that `quality` stands for.
import { invalidOption } from "./errors.js";
import type { DenoiseOptions, Quality, RequestFields } from "./types.js";

/** In the order of native/denoise/strategy.h. */
export const strategies = [
  "low_confidence_dynamic",
  "low_confidence_static",
  "sequential",
  "entropy_bounded",
  "pairwise_factor",
  "self_verified",
] as const;
export type Strategy = (typeof strategies)[number];

/** As the command line has them. */
export const shortNames = {
  low_confidence_dynamic: "dynamic",
  low_confidence_static: "static",
  sequential: "sequential",
  entropy_bounded: "entropy",
  pairwise_factor: "pairwise",
  self_verified: "verified",
} as const satisfies Record<Strategy, string>;

/** The strategy that a short or a whole name means; undefined for none. */
export const strategyOf = (name: string): Strategy | undefined =>
  strategies.find((strategy) => strategy === name || shortNames[strategy] === name);

/** Members of `denoise`, where a place has them beside other options. */
export const denoiseNames = [
  "strategy",
  "steps",
  "threshold",
  "entropyBound",
  "factor",
  "confidence",
] as const satisfies (keyof DenoiseOptions)[];

/** Chosen on the tuning half of the held-out samples: bench/results/dial-sdar-nano.json. */
export const presets: Record<Quality, DenoiseOptions> = {
  exact: { strategy: "entropy_bounded", entropyBound: 0.1 },
  balanced: { strategy: "pairwise_factor", factor: 2 },
  fast: { strategy: "pairwise_factor", factor: 5 },
};

export const qualities = Object.keys(presets) as Quality[];

/** Throws INVALID_OPTION when a request has both `quality` and `denoise`. */
export function denoiseOf({ quality, denoise }: Pick<RequestFields, "quality" | "denoise">): DenoiseOptions {
  if (quality === undefined) return denoise ?? {};
  if (denoise !== undefined) throw invalidOption("quality", quality, "either quality or denoise, not both");
  return presets[quality];
}

/** Throws INVALID_OPTION for what only a model that denoises blocks can do. */
export function refuseBlockOptions(r: Pick<RequestFields, "blockLength" | "denoise" | "quality" | "drafts">): void {
  for (const option of ["blockLength", "denoise", "quality", "drafts"] as const) {
    if (r[option] === undefined || r[option] === false) continue;
    throw invalidOption(option, r[option], "nothing: the model is autoregressive and has no blocks");
  }
}
