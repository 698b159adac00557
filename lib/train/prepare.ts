// Starts the thread that prepares a run, and watches that it goes on.
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { packageRoot } from "../checkpoint.js";
import { type ErrorCode, SdarError, wrapError } from "../errors.js";
import { isAborted, onAbort } from "../signals.js";
import type { ModelFacts } from "./model-files.js";
import type { Settings } from "./options.js";
import { unreadable } from "./paths.js";

/** SHA-256 of files, by their paths. */
export type Hashes = Record<string, string>;

/** Plain data: it crosses threads. */
export interface PrepareTask {
  /** folder of the checkpoint, or of the tokenizer */
  source: string;
  settings: Settings;
  /** folder of the finished model's small files, which is made */
  model: string;
  data: string[];
  /** file of samples, which is made */
  out: string;
}

export interface Prepared {
  facts: ModelFacts;
  /** of `data` and `out` */
  hashes: Hashes;
  samples: number;
  tokens: number;
  answerTokens: number;
  /** samples longer than the context that were left out, and that were cut */
  skipped: number;
  cut: number;
}

/** Milliseconds that a line may take: more than the longest of them does. */
const lineMs = 60_000;
const heapMb = 4096;

/** The package's own threads are in dist/, also where its sources are run. */
const workerFile = join(packageRoot, "dist", "train", "worker.js");

/** Rejects with FILE_NOT_FOUND, FILE_UNREADABLE, ABORTED. */
export async function hashesOf(files: readonly string[], signal?: AbortSignal): Promise<Hashes> {
  const hashes: Hashes = {};
  for (const file of files) {
    const hash = createHash("sha256");
    try {
      for await (const bytes of createReadStream(file, { highWaterMark: 2 ** 20, signal })) hash.update(bytes);
    } catch (cause) {
      if (isAborted(signal)) throw aborted();
      throw unreadable(file, cause as Error);
    }
    hashes[file] = hash.digest("hex");
  }
  return hashes;
}

const aborted = () => new SdarError("ABORTED", "the run was aborted before its first step; the same call begins again");

/** Makes the model's files and the samples. Rejects with what is wrong with the data, and with ABORTED. */
export function prepare(task: PrepareTask, signal?: AbortSignal): Promise<Prepared> {
  // A count that goes on, the file, and its line.
  const progress = new Int32Array(new SharedArrayBuffer(12));
  return new Promise((resolve, reject) => {
    const worker = new Worker(workerFile, {
      workerData: { task, progress },
      execArgv: [],
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: heapMb },
    });
    const end = (tell: () => void) => {
      clearInterval(watch);
      stopListening();
      worker.removeAllListeners();
      worker.terminate().then(tell, tell);
    };
    const fail = (code: ErrorCode, message: string, cause?: unknown) =>
      end(() => reject(new SdarError(code, message, cause === undefined ? {} : { cause })));
    const place = () => `${task.data[Atomics.load(progress, 1)]}:${Atomics.load(progress, 2)}`;
    let seen = -1;
    const watch = setInterval(() => {
      const now = Atomics.load(progress, 0);
      if (now === seen) fail("DATA_INVALID", `${place()}: took more than ${lineMs / 1000} s and was stopped`);
      seen = now;
    }, lineMs);
    const stopListening = onAbort(signal, () => end(() => reject(aborted())));
    worker.on("message", ({ value, error }: { value?: Prepared; error?: { code: ErrorCode; message: string } }) => {
      if (error) fail(error.code, error.message);
      else end(() => resolve(value as Prepared));
    });
    worker.on("error", (cause) => {
      const full = (cause as { code?: unknown } | null)?.code === "ERR_WORKER_OUT_OF_MEMORY";
      if (full) fail("DATA_INVALID", `${place()}: took more than ${heapMb} MB of memory and was stopped`, cause);
      else end(() => reject(wrapError(cause)));
    });
    worker.on("exit", () => fail("INTERNAL", "the thread that prepares data has ended"));
  });
}
