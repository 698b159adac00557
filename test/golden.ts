// Golden cases: what a float32 reference computes, see golden/README.md.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { shippedModelPath } from "../lib/checkpoint.js";
import type { GenerateRequest, GenerateResult, Strategy } from "../lib/types.js";

export interface GoldenCase {
  tokens: number[];
  B: number;
  strategy: Strategy;
  steps?: number;
  tau?: number;
  gamma?: number;
  max_tokens: number;
  output: number[];
  finish: "end" | "length";
  /** per active block and position: step and confidence, null where nothing was filled */
  trace: ([step: number, confidence: number] | null)[][];
}

export const goldenNames = ["tiny-dense", "tiny-f16-sharded", "tiny-tied", "tiny-moe", "sdar-nano", "shipped"];

const local = (path: string) => fileURLToPath(new URL(`golden/${path}`, import.meta.url));

export const goldenModel = (name: string) => (name === "shipped" ? shippedModelPath() : local(name));

export const goldenCases = (name: string): GoldenCase[] =>
  JSON.parse(readFileSync(local(`${name}.golden.json`), "utf8")).cases;

export function requestOf({ tokens, B, strategy, steps, tau, gamma, max_tokens }: GoldenCase): GenerateRequest {
  const denoise = { strategy, steps, threshold: tau, entropyBound: gamma };
  return { tokens, blockLength: B, denoise, maxTokens: max_tokens };
}

/** What differs between a result and the case, in words; empty when they agree. */
export function differences(golden: GoldenCase, { tokens, finishReason }: GenerateResult): string[] {
  const ids = tokens.map(({ id }) => id);
  if (ids.join() !== golden.output.join()) return [`tokens ${ids} instead of ${golden.output}`];
  const found: string[] = [];
  if (finishReason !== golden.finish) found.push(`finished by ${finishReason} instead of ${golden.finish}`);
  const first = Math.floor(golden.tokens.length / golden.B);
  for (const [i, { position, block, step, confidence }] of tokens.entries()) {
    if (position !== golden.tokens.length + i) found.push(`token ${i} is at position ${position}`);
    if (block !== Math.floor(position / golden.B)) found.push(`position ${position} is in block ${block}`);
    const expected = golden.trace[block - first]?.[position % golden.B];
    if (step !== expected?.[0]) found.push(`position ${position}: step ${step} instead of ${expected?.[0]}`);
    const error = Math.abs(confidence - (expected?.[1] ?? Number.NaN));
    if (!(error <= 1e-4)) found.push(`position ${position}: confidence ${confidence} instead of ${expected?.[1]}`);
  }
  return found;
}
