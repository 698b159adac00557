// One thread for texts, and those that wait for it. It is started when it is needed, stopped when a text or a file keeps it
// for too long or takes too much memory, and started again for the next text.
import { statSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { packageRoot } from "../checkpoint.js";
import { type ErrorCode, SdarError, wrapError } from "../errors.js";
import {
  type Answer,
  type ModelIds,
  type Stage,
  stages,
  type Task,
  type TextFiles,
  type WorkerData,
} from "./protocol.js";

/** Heap of a thread in MB: about six times what a tokenizer.json of 150,000 tokens takes while it is read. */
const heapMb = 768;
/** For a thread to take up what it was told to do, on a machine that has no time for it. */
const maxStartMs = 30_000;
const waitingStage = stages.indexOf("waiting");

/** The library's own threads are in dist/, also where its sources are run. */
const workerFile = join(packageRoot, "dist", "text", "worker.js");

/** Short texts go to the thread together: waking it takes as long as one of them. */
const batchTasks = 32;
const batchSize = 8192;

interface Turn {
  limitMs: number;
  resolve(value: unknown): void;
  reject(error: SdarError): void;
}

interface Waiting extends Turn {
  task: Task;
  /** in characters */
  size: number;
}

/** How long texts and files may take; for tests shorter. */
export interface LaneTimes {
  /** for a text, and for the files, before what their size is allowed on top */
  textMs: number;
  filesMs: number;
  /** without a text, after which the thread is given up; infinite for never */
  idleMs: number;
}

export class TextLane {
  readonly #folder: string;
  readonly #times: LaneTimes;
  /** shared with the thread: what of its work it has begun */
  #stage = newStage();
  #model: ModelIds | undefined;
  #worker: Worker | undefined;
  /** what the thread does now, one after the other */
  #batch: Turn[] = [];
  /** were with one that had to be stopped */
  readonly #again: Waiting[] = [];
  /** by key, in the order of their turns */
  readonly #waiting = new Map<string, Waiting[]>();
  #count = 0;
  #timer: NodeJS.Timeout | undefined;
  #closed: SdarError | undefined;

  constructor(folder: string, times: LaneTimes, model?: ModelIds) {
    this.#folder = folder;
    this.#times = times;
    this.#model = model;
  }

  /** that wait for their turn */
  get waiting(): number {
    return this.#count;
  }

  /** Starts the thread, which reads the files. Rejects with what is wrong with them. */
  load(): Promise<TextFiles> {
    return new Promise((resolve, reject) => this.#start({ resolve: resolve as (value: unknown) => void, reject }));
  }

  /** Does a task when its turn has come; keys take turns. `cancel` takes it out, or lets its answer be dropped. */
  run<T>(task: Task, size: number, key = ""): { answer: Promise<T>; cancel(): void } {
    if (task.kind === "describe") this.#model = task.model;
    // 4 µs a character are several times what the slowest texts take.
    const limitMs = this.#times.textMs + size / 250;
    let cancel = () => {};
    const answer = new Promise<T>((resolve, reject) => {
      const waiting = { task, size, limitMs, resolve: resolve as (value: unknown) => void, reject };
      if (this.#closed) return reject(this.#closed);
      const same = this.#waiting.get(key);
      if (same) same.push(waiting);
      else this.#waiting.set(key, [waiting]);
      this.#count++;
      cancel = () => this.#cancel(key, waiting);
    });
    this.#next();
    return { answer, cancel };
  }

  /** Ends the thread; what waits rejects with the error. */
  close(error: SdarError): void {
    this.#closed = error;
    this.#stop(error);
    this.#rejectWaiting(error);
  }

  #cancel(key: string, waiting: Waiting): void {
    for (const same of [this.#again, this.#waiting.get(key) ?? []]) {
      const at = same.indexOf(waiting);
      if (at < 0) continue;
      same.splice(at, 1);
      this.#count--;
    }
    if (this.#waiting.get(key)?.length === 0) this.#waiting.delete(key);
  }

  /** The next in turn, unless it is longer than that. */
  #take(longest = Number.POSITIVE_INFINITY): Waiting | undefined {
    const turn = this.#waiting.entries().next();
    if (turn.done) return undefined;
    const [key, same] = turn.value;
    if ((same[0] as Waiting).size > longest) return undefined;
    const first = same.shift();
    this.#waiting.delete(key);
    if (same.length > 0) this.#waiting.set(key, same);
    this.#count--;
    return first;
  }

  #takeBatch(): Waiting[] {
    // Alone: then whoever stops the thread again is known.
    const again = this.#again.shift();
    if (again) {
      this.#count--;
      return [again];
    }
    const batch: Waiting[] = [];
    let left = batchSize;
    for (let next = this.#take(); next; next = batch.length < batchTasks ? this.#take(left) : undefined) {
      batch.push(next);
      left -= next.size;
    }
    return batch;
  }

  #next(): void {
    if (this.#batch.length > 0 || this.#closed) return;
    if (!this.#worker) {
      // Files that cannot be read any more are the error of all who wait.
      if (this.#count > 0) this.#start({ resolve() {}, reject: (error) => this.#rejectWaiting(error) });
      return;
    }
    const batch = this.#takeBatch();
    if (batch.length === 0) {
      this.#worker.unref();
      if (Number.isFinite(this.#times.idleMs)) this.#timer = setTimeout(() => this.#stop(), this.#times.idleMs).unref();
      return;
    }
    this.#worker.ref();
    Atomics.store(this.#stage, 0, waitingStage);
    Atomics.store(this.#stage, 1, 0);
    try {
      this.#worker.postMessage(batch.map(({ task }) => task));
    } catch (error) {
      if (batch.length === 1) batch[0]?.reject(wrapError(error));
      else this.#doAgain(batch);
      this.#next();
      return;
    }
    this.#begin(batch);
  }

  #start(files: { resolve(value: unknown): void; reject(error: SdarError): void }): void {
    // Its own, since a thread that is being stopped may still write to its one.
    this.#stage = newStage();
    const workerData: WorkerData = { folder: this.#folder, stage: this.#stage, model: this.#model };
    // Of the process's own flags some are not for threads. What a library prints is not the caller's to see.
    const options = {
      workerData,
      execArgv: [],
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: heapMb },
    };
    let worker: Worker;
    try {
      worker = new Worker(workerFile, options);
    } catch (error) {
      files.reject(wrapError(error));
      return;
    }
    this.#worker = worker;
    const mine = (act: () => void) => () => worker === this.#worker && act();
    worker.on("message", (answers: Answer[]) => mine(() => this.#answered(answers))());
    worker.on("error", (error) => mine(() => this.#stop(this.#failure(error)))());
    worker.on(
      "exit",
      mine(() => this.#stop(new SdarError("INTERNAL", "the thread for texts has ended"))),
    );
    const megabytes = (statSync(join(this.#folder, "tokenizer.json"), { throwIfNoEntry: false })?.size ?? 0) / 1e6;
    const reading: Turn = {
      limitMs: this.#times.filesMs + 500 * Math.min(megabytes, 32),
      resolve: files.resolve,
      reject: (error) => {
        files.reject(error);
        // A thread that has not read its files is of no use.
        if (worker === this.#worker) this.#stop();
      },
    };
    this.#begin([reading]);
  }

  #begin(batch: Turn[]): void {
    this.#batch = batch;
    this.#limit(0, Date.now() + maxStartMs);
  }

  /** Of the batch's task `index`, and once that is done, of the next. */
  #limit(index: number, startBy: number): void {
    const { limitMs } = this.#batch[index] as Turn;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // A machine that stands still is not the text's fault: what was not begun has its whole time before it.
      if (Atomics.load(this.#stage, 0) === waitingStage && Date.now() < startBy) return this.#limit(index, startBy);
      // Where this thread itself stood still, the answer is there already: it is taken first.
      this.#timer = setTimeout(() => {
        const at = Atomics.load(this.#stage, 1);
        if (at === index) this.#stop(this.#failure(undefined, limitMs));
        else this.#limit(at, startBy);
      }, 50);
    }, limitMs);
  }

  #answered(answers: Answer[]): void {
    clearTimeout(this.#timer);
    const batch = this.#batch;
    this.#batch = [];
    for (const [index, answer] of answers.entries()) {
      const turn = batch[index];
      if ("value" in answer) turn?.resolve(answer.value);
      else turn?.reject(new SdarError(answer.error.code, answer.error.message, answer.error.details));
    }
    this.#next();
  }

  #doAgain(turns: Turn[]): void {
    this.#again.push(...(turns as Waiting[]));
    this.#count += turns.length;
  }

  /** Ends the thread, and with the error what it does now; what was to come with it comes again. */
  #stop(error?: SdarError): void {
    clearTimeout(this.#timer);
    const worker = this.#worker;
    this.#worker = undefined;
    worker?.terminate().catch(() => {});
    const batch = this.#batch;
    this.#batch = [];
    if (error) {
      const [culprit] = batch.splice(Atomics.load(this.#stage, 1), 1);
      this.#doAgain(batch);
      culprit?.reject(error);
    }
    this.#next();
  }

  #rejectWaiting(error: SdarError): void {
    const waiting = [...this.#again.splice(0), ...[...this.#waiting.values()].flat()];
    this.#waiting.clear();
    this.#count = 0;
    for (const each of waiting) each.reject(error);
  }

  /** What went wrong with the thread, in terms of what it was doing. */
  #failure(cause: unknown, limitMs?: number): SdarError {
    const stage = stages[Atomics.load(this.#stage, 0)] as Stage;
    const [code, what] = stageErrors[stage];
    const where = what.replace("$", this.#folder);
    if (limitMs !== undefined) {
      return new SdarError(code, `${where} took more than ${Math.round(limitMs / 1000)} s and was stopped`);
    }
    if ((cause as { code?: unknown } | undefined)?.code === "ERR_WORKER_OUT_OF_MEMORY") {
      return new SdarError(code, `${where} took more than ${heapMb} MB of memory and was stopped`, { cause });
    }
    return wrapError(cause);
  }
}

const newStage = () => new Int32Array(new SharedArrayBuffer(8));

const stageErrors: Record<Stage, [code: ErrorCode, what: string]> = {
  waiting: ["INTERNAL", "starting the thread for texts of $"],
  config: ["TOKENIZER_INVALID", "reading $/tokenizer_config.json"],
  tokenizer: ["TOKENIZER_INVALID", "reading $/tokenizer.json"],
  template: ["TEMPLATE_FAILED", "reading the chat template in $"],
  render: ["TEMPLATE_FAILED", "rendering the messages by the chat template in $"],
  encode: ["TOKENIZER_INVALID", "encoding a text by $/tokenizer.json"],
};
