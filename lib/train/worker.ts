// The thread that prepares a run: makes one file of samples out of the data. These are texts of strangers: reading, rendering
// and tokenizing them may take long. See prepare.ts for the side that starts it.
import { createHash } from "node:crypto";
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { SdarError, wrapError } from "../errors.js";
import { loadText } from "../text/files.js";
import { linesOf, maxLineBytes } from "./lines.js";
import { type ModelFacts, makeModelFiles } from "./model-files.js";
import type { Settings } from "./options.js";
import { writing } from "./paths.js";
import type { Hashes, Prepared, PrepareTask } from "./prepare.js";
import { type Sample, SampleMaker } from "./samples.js";

const { task, progress } = workerData as {
  task: PrepareTask;
  progress: Int32Array<SharedArrayBuffer>;
};

/** Bad lines that are told of at most. */
const mostBad = 20;
/** What is not a line's fault. */
const fatal: ReadonlySet<string> = new Set(["FILE_UNWRITABLE", "INTERNAL"]);
const magic = Buffer.from("SDARSMP1");

/** The file of samples, in the format of native/train/dataset.h. */
class SampleFile {
  readonly #path: string;
  readonly #fd: number;
  readonly #hash = createHash("sha256");
  #words: number[] = [];
  samples = 0;
  tokens = 0;
  answerTokens = 0;

  constructor(path: string) {
    this.#path = path;
    this.#fd = writing(path, () => openSync(path, "w"));
    this.#put(magic);
  }

  add(sample: Sample): void {
    this.#words.push(sample.length);
    for (const token of sample) {
      this.#words.push(token);
      this.answerTokens += token % 2;
    }
    this.samples++;
    this.tokens += sample.length;
    if (this.#words.length > 2 ** 18) this.#flush();
  }

  /** Its SHA-256. */
  finish(): string {
    this.#flush();
    const count = Buffer.alloc(8);
    count.writeBigInt64LE(BigInt(this.samples));
    this.#put(count);
    writing(this.#path, () => fsyncSync(this.#fd));
    closeSync(this.#fd);
    return this.#hash.digest("hex");
  }

  #flush(): void {
    const bytes = Buffer.from(Int32Array.from(this.#words).buffer);
    this.#words = [];
    this.#put(bytes);
  }

  #put(bytes: Buffer): void {
    this.#hash.update(bytes);
    for (let done = 0; done < bytes.length; ) done += writing(this.#path, () => writeSync(this.#fd, bytes, done));
  }
}

function makerOf(folder: string, { endIds, maskId }: ModelFacts): SampleMaker {
  const { tokenizer, template } = loadText(folder);
  tokenizer.addControl(maskId >= 0 ? [...endIds, maskId] : endIds);
  return new SampleMaker(tokenizer, template, endIds);
}

interface Counts {
  skipped: number;
  cut: number;
}

/** What becomes of a sample; undefined: it is left out. Throws DATA_INVALID. */
function fitted(
  sample: Sample,
  { context, blocks, vocabSize }: ModelFacts,
  tooLong: Settings["tooLong"],
  counts: Counts,
): Sample | undefined {
  const odd = sample.find((token) => token >= 2 * vocabSize);
  if (odd !== undefined)
    throw new SdarError("DATA_INVALID", `has token ${odd >> 1} of tokenizer.json; the model has ${vocabSize} tokens`);
  // The last block is filled up.
  const most = Math.min(...[1, ...blocks].map((block) => Math.floor(context / block) * block));
  let kept = sample;
  if (sample.length > most) {
    if (tooLong === "refuse")
      throw new SdarError(
        "DATA_INVALID",
        `has ${sample.length} tokens; at most ${most} are allowed by the context (or give tooLong: skip or cut)`,
      );
    if (tooLong === "skip") {
      counts.skipped++;
      return undefined;
    }
    counts.cut++;
    kept = sample.slice(0, most);
  }
  if (kept.some((token, at) => at > 0 && token % 2 === 1)) return kept;
  if (kept !== sample) {
    counts.cut--;
    counts.skipped++;
    return undefined;
  }
  throw new SdarError("DATA_INVALID", "has no token of an answer");
}

function prepare(): Prepared {
  const facts = makeModelFiles(task.source, task.settings, task.model);
  const file = new SampleFile(task.out);
  const counts = { skipped: 0, cut: 0 };
  const hashes = makeSamples(facts, file, counts);
  hashes[task.out] = file.finish();
  const { samples, tokens, answerTokens } = file;
  return { hashes, facts, samples, tokens, answerTokens, ...counts };
}

function makeSamples(facts: ModelFacts, samples: SampleFile, counts: Counts): Hashes {
  const maker = makerOf(task.model, facts);
  const hashes: Hashes = {};
  const bad: BadLine[] = [];
  let lines = 0;
  for (const [index, file] of task.data.entries()) {
    const hash = createHash("sha256");
    for (const { number, bytes } of linesOf(file, hash)) {
      lines++;
      Atomics.store(progress, 1, index);
      Atomics.store(progress, 2, number);
      Atomics.add(progress, 0, 1);
      try {
        if (!bytes) throw new SdarError("DATA_INVALID", `is longer than ${maxLineBytes} bytes`);
        for (const made of maker.make(bytes)) {
          const sample = fitted(made, facts, task.settings.tooLong, counts);
          if (sample) samples.add(sample);
        }
      } catch (error) {
        const { code, message } = wrapError(error);
        if (code === "TEMPLATE_MISSING") throw new SdarError(code, `${file}:${number}: ${message}: ${task.source}`);
        if (fatal.has(code)) throw error;
        if (code === "PROMPT_TOO_LONG" && task.settings.tooLong === "skip") {
          counts.skipped++;
          continue;
        }
        bad.push({ file, number, message });
        if (bad.length > mostBad) break;
      }
    }
    hashes[file] = hash.digest("hex");
  }
  refuse(bad);
  if (lines === 0)
    throw new SdarError("DATA_INVALID", `${task.data.join(", ")}: has no line; give JSONL with a sample a line`);
  if (samples.samples === 0)
    throw new SdarError("DATA_INVALID", `all ${counts.skipped} samples are longer than the context and were skipped`);
  return hashes;
}

interface BadLine {
  file: string;
  number: number;
  message: string;
}

function refuse(bad: readonly BadLine[]): void {
  const [first, ...others] = bad;
  if (!first) return;
  const numbers = new Map<string, number[]>();
  for (const { file, number } of others.slice(0, mostBad - 1))
    numbers.set(file, [...(numbers.get(file) ?? []), number]);
  const list = [...numbers].map(([file, lines]) => `${file}:${lines.join(",")}`);
  const more = others.length >= mostBad ? ", and more" : "";
  const rest = list.length > 0 ? `; also wrong: ${list.join(" ")}${more}` : "";
  throw new SdarError("DATA_INVALID", `${first.file}:${first.number}: ${first.message}${rest}`);
}

function work(): void {
  try {
    parentPort?.postMessage({ value: prepare() });
  } catch (error) {
    const { code, message } = wrapError(error);
    // What is wrong in the copies is wrong in the source.
    parentPort?.postMessage({ error: { code, message: message.replaceAll(task.model, task.source) } });
  }
}

work();
