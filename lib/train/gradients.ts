// The loss of given samples and its gradients, to compare with those of other programs.
import { z } from "zod";
import { loadBinding } from "../binding.js";
import { findCheckpoint } from "../checkpoint.js";
import { invalidOption } from "../errors.js";
import { check, integer, number, oneOf, strictObject } from "../schema.js";
import { told } from "./binding.js";

/** Samples, and of `"sdar"` what is masked of them. Lists are as long as the samples' ids. */
export interface GradientCase {
  kind: "autoregressive" | "sdar";
  ids: number[][];
  /** 1 where a position is part of the answer */
  answer: number[][];
  block?: number;
  /** 1 where x_t has the mask */
  masked?: number[][];
  /** noise level of each sample */
  p?: number[];
  mask_id?: number;
}

export interface LossAndGradients {
  loss: number;
  /** of each tensor by its name in the checkpoint: the norm, and the first eight elements */
  gradients: Record<string, { norm: number; first: number[] }>;
}

const list = <T>(of: z.ZodType<T>) => z.array(of, { error: "a list" });
const schema = strictObject({
  kind: oneOf("autoregressive", "sdar"),
  ids: list(list(integer(0))),
  answer: list(list(integer(0, 1))),
  block: integer(1, 1024).optional(),
  masked: list(list(integer(0, 1))).optional(),
  p: list(number("a number above 0, up to 1", (v) => v > 0 && v <= 1)).optional(),
  mask_id: integer(0).optional(),
  // What the golden files have besides.
  loss: z.unknown(),
  gradients: z.unknown(),
}).partial({ loss: true, gradients: true });

/**
 * Loss and gradients of a checkpoint's network in f32: the mean cross-entropy of the answers' tokens, or the published
 * objective of SDAR. Rejects with INVALID_OPTION and what is wrong with a checkpoint.
 */
export async function lossAndGradients(model: string, given: GradientCase): Promise<LossAndGradients> {
  const { kind, ids, answer, block, masked = [], p = [], mask_id } = check(schema, given, "case");
  const noisy = kind === "sdar";
  if (noisy && (block === undefined || mask_id === undefined))
    throw invalidOption(block === undefined ? "block" : "mask_id", undefined, "it with kind: sdar");
  const lengths = (lists: number[][]) => lists.map(({ length }) => length).join();
  for (const [name, lists] of Object.entries({ answer, ...(noisy && { masked }) }))
    if (lengths(lists) !== lengths(ids)) throw invalidOption(name, lists, "lists as long as those of ids");
  if (noisy && p.length !== ids.length) throw invalidOption("p", p, "a number for each sample");
  const { lossAndGradients: compute } = loadBinding() as unknown as {
    lossAndGradients(task: object): Promise<LossAndGradients>;
  };
  return told(() =>
    compute({
      folder: findCheckpoint(model),
      lengths: Int32Array.from(ids, ({ length }) => length),
      ids: Int32Array.from(ids.flat()),
      answer: Int32Array.from(answer.flat()),
      masked: Int32Array.from(noisy ? masked.flat() : []),
      levels: Float64Array.from(noisy ? p : []),
      block: block ?? 1,
      maskId: mask_id ?? -1,
    }),
  );
}
