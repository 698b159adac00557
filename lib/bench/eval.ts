// How many answers of models and settings are right, each setting on the same prompts.
import { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import type { GenerateDefaults, GenerateRequest, LoadOptions, Usage } from "../types.js";
import { type EvalItem, requestOf } from "./eval-items.js";

/** A model and options of its answers. */
export interface EvalVariant {
  /** as it is shown */
  name: string;
  model: string;
  options: GenerateDefaults;
}

/** What became of an item. */
export interface EvalAnswer {
  item: EvalItem;
  index: number;
  texts: string[];
  right: boolean[];
  /** whether the text that came most often is right */
  majority: boolean;
  usage?: Usage;
  /** why there is no text, or none that could be judged; it counts as wrong */
  error?: string;
}

export interface EvalRun {
  variant: EvalVariant;
  /** folder of the checkpoint */
  path: string;
  weights: string;
  device: string;
  answers: EvalAnswer[];
  /** of all answers together */
  seconds: number;
}

export interface EvalOptions {
  items: readonly EvalItem[];
  variants: readonly EvalVariant[];
  /** answers to each prompt, 1 to 64 */
  samples: number;
  /** prompts in flight */
  concurrency: number;
  /** what a model is loaded with */
  load(model: string): LoadOptions;
  onAnswer?: (variant: EvalVariant, answer: EvalAnswer, done: number) => void;
  /** ends it with what was measured so far */
  signal: AbortSignal;
}

/** A run for each variant, one after the other; fewer, and the last one cut short, when it was aborted. */
export async function evaluate(options: EvalOptions): Promise<EvalRun[]> {
  const { variants, load, signal } = options;
  const runs: EvalRun[] = [];
  let engine: Engine | undefined;
  let loaded: string | undefined;
  try {
    for (const variant of variants) {
      if (loaded !== variant.model) {
        await engine?.dispose();
        engine = undefined;
        engine = await Engine.load(variant.model, { ...load(variant.model), signal });
        loaded = variant.model;
      }
      runs.push(await runVariant(engine as Engine, variant, options));
      if (signal.aborted) break;
    }
  } catch (error) {
    // Interrupted while a model was loaded.
    if (!(signal.aborted && SdarError.is(error, "ABORTED"))) throw error;
  } finally {
    await engine?.dispose();
  }
  return runs;
}

async function runVariant(engine: Engine, variant: EvalVariant, options: EvalOptions): Promise<EvalRun> {
  const { items, samples, concurrency, onAnswer, signal } = options;
  // Refuses what no item could be answered with.
  engine.chat({ generate: variant.options });
  const { hasChatTemplate, path, weights, device } = engine.model;
  const answers: EvalAnswer[] = [];
  const began = performance.now();
  const toRequest = (item: EvalItem) =>
    ({ ...variant.options, n: samples, ...requestOf(item, hasChatTemplate) }) as GenerateRequest;
  try {
    for await (const { item, index, result, error } of engine.map(items, toRequest, {
      concurrency,
      ordered: false,
      signal,
    })) {
      const texts = result ? (result.answers ?? [result]).map(({ text }) => text) : [];
      const judged = judge(item, index, texts, samples);
      const answer = { ...judged, ...(result && { usage: result.usage }), ...(error && { error: error.message }) };
      answers.push(answer);
      onAnswer?.(variant, answer, answers.length);
    }
  } catch (error) {
    if (!(signal.aborted && SdarError.is(error, "ABORTED"))) throw error;
  }
  const seconds = (performance.now() - began) / 1000;
  return { variant, path, weights, device, answers: answers.sort((a, b) => a.index - b.index), seconds };
}

function judge(item: EvalItem, index: number, texts: string[], samples: number): EvalAnswer {
  try {
    const right = texts.length > 0 ? texts.map((text) => item.judge(text)) : Array(samples).fill(false);
    return { item, index, texts, right, majority: right[texts.indexOf(mostOften(texts))] === true };
  } catch (error) {
    const wrong = Array(samples).fill(false);
    return { item, index, texts, right: wrong, majority: false, error: (error as Error).message };
  }
}

/** The first of those that come most often, but for white space around them. */
export function mostOften(texts: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text.trim(), (counts.get(text.trim()) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return texts.find((text) => counts.get(text.trim()) === most) ?? "";
}
