// A run from its options to the finished model: prepares or goes on, takes the steps, writes what comes out.
import { mkdirSync, readdirSync, statfsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { findCheckpoint, readJson } from "../checkpoint.js";
import { invalidOption, SdarError } from "../errors.js";
import { drawCharts } from "../plot.js";
import { isAborted, onAbort } from "../signals.js";
import { loraTargets, type NativeStepReport, type NativeTrainOptions, Training } from "./binding.js";
import type { Job, Settings } from "./options.js";
import { checkFiles, checkFolders, nearest, writing } from "./paths.js";
import { hashesOf, type Prepared, prepare } from "./prepare.js";
import { checkSame, type LogEntry, RunFolder, type RunRecord } from "./run-folder.js";
import type { TrainProgress, TrainResult } from "./types.js";

/** Files of a checkpoint or tokenizer that results depend on. */
const sourceFiles = {
  adapt: /^(config|tokenizer.*|generation_config)\.json$|\.safetensors$/,
  pretrain: /^tokenizer.*\.json$/,
};

export async function train(asked: Job): Promise<TrainResult> {
  const to = resolve(asked.to);
  checkFolders(asked);
  const source = findCheckpoint(asked.source);
  const settings = { ...asked.settings, ...(asked.settings.kind === "adapt" && byModel(asked.settings, source)) };
  const job = { ...asked, settings };
  const { signal } = job;
  const folder = new RunFolder(resolve(job.run));
  const record = await begin(job, source, folder);
  throwIfAborted(signal, folder);
  const training = await opened(nativeOptions(job, source, folder, record), folder, signal);
  try {
    const info = training.info();
    const { ema } = settings;
    // The state is twice there while it is replaced.
    checkSpace(folder.path, (info.stepsDone > 0 ? 1 : 2) * (ema > 0 ? 16 : 12) * info.trained);
    checkSpace(dirname(to), (settings.dtype === "f32" ? 4 : 2) * info.parameters);
    const { skipped, cut } = record;
    const { mostRows: _, ...known } = info;
    job.onStart?.({ run: folder.path, resumed: info.stepsDone > 0, ...known, skipped, cut });
    const entries = folder.entries(info.stepsDone);
    folder.openLog(entries);
    await takeSteps(job, training, folder, entries);
    folder.replace("loss.svg", lossPlot(entries));
    writing(to, () => mkdirSync(dirname(to), { recursive: true }));
    await training.write(to, settings.dtype);
    return { folder: to, run: folder.path, steps: info.steps, ...summary(entries, info.steps) };
  } finally {
    folder.closeLog();
    training.close();
  }
}

async function opened(options: NativeTrainOptions, folder: RunFolder, signal: AbortSignal | undefined) {
  const { training, cancel } = Training.open(options);
  const stopListening = onAbort(signal, cancel);
  try {
    return await training;
  } catch (error) {
    if (SdarError.is(error, "ABORTED")) throwIfAborted(signal, folder, "while it was opened");
    throw error;
  } finally {
    stopListening();
  }
}

/**
 * Defaults that the model decides: a rate that trained widths of 128 and 256 well, and blocks that grow where the model has
 * not had any. What is wrong with its config.json is said later.
 */
function byModel(settings: Settings, source: string) {
  const config = readJson(join(source, "config.json"), "CONFIG_INVALID") ?? {};
  const width = Number(config.hidden_size) || 1024;
  const fresh = String(config.model_type).startsWith("qwen3");
  return {
    learningRate: settings.learningRate || Math.min(1e-3, 0.256 / width),
    growth: grows(settings, fresh),
  };
}

/** Whether blocks grow: as is asked for, else where a `fresh` model has had none. */
export const grows = ({ growth, recipe, blocks }: Settings, fresh: boolean): boolean =>
  growth ?? (recipe === "views" && fresh && blocks.length < 2);

/** What the run was begun with, after checking that it is the same; else it is begun. */
async function begin({ settings, data, signal }: Job, source: string, folder: RunFolder): Promise<RunRecord> {
  const begun = folder.record();
  const names = readdirSync(source).filter((name) => sourceFiles[settings.kind].test(name));
  const files = data.map((file) => resolve(file));
  const sourcePaths = names.map((name) => join(source, name));
  checkFiles([...sourcePaths, ...files]);
  const named = (hashes: Record<string, string>) =>
    Object.fromEntries(names.map((name, i) => [name, hashes[sourcePaths[i] as string] as string]));
  const listed = (hashes: Record<string, string>) =>
    files.map((file): [string, string] => [file, hashes[file] as string]);
  if (begun) {
    const hashes = await hashesOf([...sourcePaths, ...files, folder.samples], signal);
    checkSame(folder.path, begun, { settings, data: listed(hashes), source: named(hashes) });
    if (hashes[folder.samples] !== begun.samplesHash)
      throw new SdarError("CHECKPOINT_INVALID", `${folder.samples}: damaged; remove ${folder.path} and begin again`);
    return begun;
  }
  const fresh = folder.make();
  try {
    const sourceHashes = named(await hashesOf(sourcePaths, signal));
    const { model, samples: out } = fresh;
    const prepared = await prepare({ source, settings, model, data: files, out }, signal);
    checkLength(settings, prepared);
    const { facts, hashes, skipped, cut } = prepared;
    const record: RunRecord = {
      ...{ format: 1, settings, facts, data: listed(hashes) },
      ...{ source: sourceHashes, samplesHash: hashes[out] as string, skipped, cut },
    };
    folder.begin(fresh, record);
    return record;
  } catch (error) {
    throw folder.failed(fresh, error);
  } finally {
    folder.remove(fresh);
  }
}

/** Samples that a run may go through, each pass counted: its plan is in memory. */
const mostPlaces = 2 ** 27;

function checkLength({ epochs, tokens }: Settings, prepared: Prepared): void {
  const places = tokens > 0 ? (tokens / prepared.tokens) * prepared.samples : epochs * prepared.samples;
  if (places <= mostPlaces) return;
  const most = Math.floor(mostPlaces * (tokens > 0 ? prepared.tokens / prepared.samples : 1 / prepared.samples));
  const [name, value] = tokens > 0 ? ["tokens", tokens] : ["epochs", epochs];
  throw invalidOption(name, value, `at most ${most} with these ${prepared.samples} samples`);
}

/** Lengths of a block that grows up to `length`. */
export function growing(length: number): number[] {
  const lengths = [length];
  while (length > 3) {
    length = Math.ceil(length / 2);
    lengths.unshift(length);
  }
  return lengths;
}

function nativeOptions({ settings, activations, threads }: Job, source: string, folder: RunFolder, record: RunRecord) {
  // What has the same name and meaning natively goes as it is.
  const { kind, recipe, growth, lora, ...same } = settings;
  const targets = lora?.targets ?? (record.facts.sparse ? loraTargets.slice(0, 4) : loraTargets);
  return {
    ...same,
    ...{ model: folder.model, samples: folder.samples, folder: folder.path },
    parent: kind === "adapt" ? source : "",
    objective: recipe,
    blocks: Int32Array.from(growth ? growing(record.facts.blocks[0] ?? 1) : record.facts.blocks),
    padId: recipe === "autoregressive" ? -1 : record.facts.padId,
    growth: growth === true,
    ...{ loraRank: lora?.rank ?? 0, loraAlpha: lora?.alpha ?? 1, loraBf16: lora?.frozen === "bf16" },
    loraTargets: Int32Array.from(targets, (target) => loraTargets.indexOf(target)),
    ...{ activations, threads },
  };
}

async function takeSteps(job: Job, training: Training, folder: RunFolder, entries: LogEntry[]): Promise<void> {
  const { steps, stepsDone, heldOutSamples } = training.info();
  const every = job.evaluateEvery ?? Math.max(1, Math.ceil(steps / 20));
  const speed = new Speed();
  let saved = performance.now();
  for (let step = stepsDone; step < steps; ) {
    if (isAborted(job.signal)) {
      await training.save();
      throwIfAborted(job.signal, folder, `after step ${step} of ${steps}`);
    }
    const report = await takeStep(training, folder, step);
    step = report.step + 1;
    speed.add(report);
    const due = heldOutSamples > 0 && (step % every === 0 || step === steps);
    const heldOutLoss = due ? await evaluate(training, job.signal) : undefined;
    const entry = entryOf(report, heldOutLoss);
    folder.log(entry);
    entries.push(entry);
    try {
      job.onProgress?.(progressOf(entry, steps, speed));
    } catch (thrown) {
      await training.save();
      throw thrown;
    }
    if (step === steps || performance.now() - saved >= 1000 * job.saveSeconds) {
      await training.save();
      saved = performance.now();
    }
  }
}

async function takeStep(training: Training, folder: RunFolder, done: number): Promise<NativeStepReport> {
  try {
    return await training.step();
  } catch (cause) {
    if (!SdarError.is(cause, "NUMERIC_ERROR")) throw cause;
    // The step has changed nothing.
    await training.save();
    throw new SdarError("NUMERIC_ERROR", `${cause.message}; ${folder.path} keeps what ${done} steps have made`, {
      cause,
    });
  }
}

async function evaluate(training: Training, signal: AbortSignal | undefined): Promise<number | undefined> {
  const { loss, cancel } = training.evaluate();
  const stopListening = onAbort(signal, cancel);
  try {
    return await loss;
  } catch (error) {
    // The state is saved by whoever asks next.
    if (SdarError.is(error, "ABORTED") && isAborted(signal)) return undefined;
    throw error;
  } finally {
    stopListening();
  }
}

function entryOf(report: NativeStepReport, heldOutLoss: number | undefined): LogEntry {
  const { loss, norm, rate, tokens, answerTokens, rows, seconds } = report;
  return {
    step: report.step + 1,
    ...{ loss, norm, learningRate: rate, tokens, answerTokens, rows, seconds },
    ...(heldOutLoss !== undefined && { heldOutLoss }),
  };
}

/** Of the last steps, older ones counting less. */
class Speed {
  #tokens = 0;
  #steps = 0;
  #seconds = 0;

  add({ tokens, seconds }: NativeStepReport): void {
    this.#tokens = 0.95 * this.#tokens + tokens;
    this.#steps = 0.95 * this.#steps + 1;
    this.#seconds = 0.95 * this.#seconds + seconds;
  }
  get tokensPerSecond(): number {
    return this.#tokens / this.#seconds;
  }
  get secondsPerStep(): number {
    return this.#seconds / this.#steps;
  }
}

function progressOf({ answerTokens: _, ...entry }: LogEntry, steps: number, speed: Speed): TrainProgress {
  const etaSeconds = (steps - entry.step) * speed.secondsPerStep;
  return { ...entry, steps, tokensPerSecond: speed.tokensPerSecond, etaSeconds };
}

function summary(entries: readonly LogEntry[], steps: number): Pick<TrainResult, "loss" | "heldOutLoss" | "seconds"> {
  const last = entries.filter(({ step }) => step > steps - Math.max(1, Math.ceil(steps / 20)));
  return {
    loss: last.length > 0 ? last.reduce((sum, { loss }) => sum + loss, 0) / last.length : undefined,
    heldOutLoss: entries.at(-1)?.heldOutLoss,
    seconds: entries.reduce((sum, { seconds }) => sum + seconds, 0),
  };
}

/** Points of the line of losses: each the mean of some steps. */
const mostPoints = 200;

function lossPlot(entries: readonly LogEntry[]): string {
  const size = Math.ceil(entries.length / mostPoints);
  const points = [];
  for (let at = 0; at < entries.length; at += size) {
    const some = entries.slice(at, at + size);
    const mean = some.reduce((sum, { loss }) => sum + loss, 0) / some.length;
    points.push({ x: (some.at(-1) as LogEntry).step, y: mean });
  }
  const heldOut = entries.flatMap(({ step, heldOutLoss }) =>
    heldOutLoss === undefined ? [] : [{ x: step, y: heldOutLoss }],
  );
  const series = [{ name: "training", points }];
  if (heldOut.length > 0) series.push({ name: "held out", points: heldOut });
  return drawCharts([
    { title: "Loss", x: { label: "step" }, y: { label: "nats per token" }, series, legend: "top right" },
  ]);
}

function checkSpace(folder: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(nearest(folder));
  const size = (n: number) => (n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`);
  if (bavail * bsize < bytes)
    throw new SdarError(
      "FILE_UNWRITABLE",
      `${folder}: the run needs ${size(bytes)} there, and ${size(bavail * bsize)} are free`,
    );
}

function throwIfAborted(signal: AbortSignal | undefined, folder: RunFolder, when = "before its first step"): void {
  if (isAborted(signal))
    throw new SdarError("ABORTED", `the run was aborted ${when}; ${folder.path} has it, and the same call goes on`);
}
