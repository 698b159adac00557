// Files of prompts with their answers, and how many a model gets right.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot, readOptional } from "../checkpoint.js";
import { SdarError } from "../errors.js";
import { randomIntegers } from "./statistics.js";

export interface Sample {
  prompt: string;
  /** instead of the prompt, for a model without tokenizer */
  tokens?: number[];
  /** the text to be generated, exactly */
  answer?: string;
  /** samples of one task are also counted on their own */
  task?: string;
}

/** The 1000 samples that the shipped model was not trained on; part of the repository, not of the package. */
const heldOut = join(packageRoot, "test", "golden", "heldout.jsonl");

/** The samples of a file of JSON lines, at most `limit`; without a file the held-out samples. */
export function readSamples(file: string | undefined, limit = Number.POSITIVE_INFINITY): Sample[] {
  if (file === undefined && !existsSync(heldOut)) {
    const hint = "the held-out samples are in the project's repository, not in the package; give --prompts";
    throw new SdarError("FILE_NOT_FOUND", `no ${heldOut}: ${hint}`);
  }
  const path = file ?? heldOut;
  const text = readOptional(path);
  if (text === undefined) throw new SdarError("FILE_NOT_FOUND", `no file ${path}`);
  const samples = text
    .split("\n")
    .map((line, index) => ({ line, where: `${path}:${index + 1}` }))
    .filter(({ line }) => line.trim() !== "")
    .slice(0, limit)
    .map(({ line, where }) => parseSample(line, where));
  if (samples.length === 0) throw new SdarError("INVALID_OPTION", `${path} holds no prompts`);
  return samples;
}

function parseSample(line: string, where: string): Sample {
  let sample: Record<string, unknown> | undefined;
  try {
    sample = JSON.parse(line);
  } catch {
    // said below
  }
  const { prompt, answer, task } = sample ?? {};
  const optional = (value: unknown) => value === undefined || typeof value === "string";
  if (typeof prompt === "string" && optional(answer) && optional(task)) return { prompt, answer, task } as Sample;
  const wanted = 'an object with "prompt" and, if known, "answer" and "task", each a string';
  throw new SdarError("INVALID_OPTION", `${where}: each line must be ${wanted}`);
}

/** The same prompts of 64 random tokens each time. */
export function randomSamples(count: number, vocabSize: number): Sample[] {
  const random = randomIntegers();
  const tokens = () => Array.from({ length: 64 }, () => random(vocabSize));
  return Array.from({ length: count }, () => ({ prompt: "", tokens: tokens() }));
}

/** Percent of texts that are their sample's answer: of all samples that have one, and of each task. */
export function accuracy(samples: readonly Sample[], texts: readonly string[]): Record<string, number> {
  const counts = new Map<string, { right: number; of: number }>();
  for (const [index, { answer, task }] of samples.entries()) {
    if (answer === undefined) continue;
    for (const name of task === undefined ? ["all"] : ["all", task]) {
      const count = counts.get(name) ?? { right: 0, of: 0 };
      counts.set(name, { right: count.right + (texts[index] === answer ? 1 : 0), of: count.of + 1 });
    }
  }
  const percent = ({ right, of }: { right: number; of: number }) => Math.round((1000 * 100 * right) / of) / 1000;
  return Object.fromEntries([...counts].sort().map(([name, count]) => [name, percent(count)]));
}
