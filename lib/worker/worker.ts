// Takes jobs from the queue, generates, and writes each result once.
import type { Job } from "bullmq";
import type { Engine } from "../engine.js";
import { type SdarError, wrapError } from "../errors.js";
import { httpStatusOf } from "../http.js";
import type { GenerateResult, Run } from "../types.js";
import { type JobData, requestOf } from "./lines.js";
import { type Bull, checkPlace, connection, loadBull, type QueuePlace } from "./queue.js";
import type { ResultsFile } from "./results.js";

export interface WorkerOptions extends QueuePlace {
  engine: Engine;
  results: ResultsFile;
  /** jobs at a time */
  concurrency: number;
  /** milliseconds after which the jobs of a worker that is gone go to another */
  stalledMs: number;
  /** ends when nothing is left to do */
  once: boolean;
  /** ends when what runs is done */
  signal: AbortSignal;
  log(message: string): void;
}

export interface Tally {
  /** lines written */
  written: number;
  /** jobs that came again and had their line */
  repeated: number;
  /** jobs that are not tried again */
  dead: number;
  /** runs that failed and are tried again */
  retried: number;
}

/** How often the jobs of processes that died are tried: one that ends the process itself must come to an end. */
const maxStalledCount = 20;
const lostLock = "Redis gave jobs of this worker to others, as it did not hear of them; their answers are kept once";
const progressMs = 1000;
const day = 86_400;

/** Returns when it was told to stop and what ran is done, or, with `once`, when nothing is left. */
export async function work(options: WorkerOptions): Promise<Tally> {
  checkPlace(options);
  const bull = await loadBull();
  const { queue: name, concurrency, stalledMs, log } = options;
  const tally: Tally = { written: 0, repeated: 0, dead: 0, retried: 0 };
  const worker = new bull.Worker<JobData>(name, (job) => handle(job, options, bull, tally), {
    connection: connection(options, true),
    concurrency,
    lockDuration: stalledMs,
    stalledInterval: stalledMs,
    maxStalledCount,
    autorun: false,
    drainDelay: 1, // seconds that a wait for jobs takes, which is how long it takes to stop
    // Long enough for a file to be put in again without being computed again; the results stay anyway.
    removeOnComplete: { age: 7 * day },
    removeOnFail: { age: 365 * day },
  });
  // While Redis is away, and for each job whose lock ran out meanwhile, the same comes again and again.
  const said = new Set<string>();
  worker.on("error", ({ message }) => {
    const told = /\block for job /.test(message) ? lostLock : message;
    if (!said.has(told)) log(told);
    said.add(told);
  });
  let ready = false;
  worker.on("ready", () => {
    ready = true;
    said.clear();
  });
  worker.on("failed", (job, error) => {
    const dead = job === undefined || job.finishedOn !== undefined;
    tally[dead ? "dead" : "retried"]++;
    if (dead) log(`dead: ${error.message}`);
  });
  const running = worker.run();
  try {
    await Promise.race([running, stopped(options.signal), ...(options.once ? [empty(options, bull)] : [])]);
  } finally {
    // close() alone waits forever when it finds the connection that waits for jobs between two tries to connect.
    try {
      if (ready) {
        await worker.pause(true);
        await running;
      }
    } finally {
      await worker.close(true);
    }
  }
  return tally;
}

const stopped = (signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });

/** Resolves when nothing waits, runs or is to be tried again. */
async function empty(options: WorkerOptions, { Queue }: Bull): Promise<void> {
  const queue = new Queue(options.queue, { connection: connection(options, true) });
  queue.on("error", () => {}); // the worker tells
  try {
    while (!options.signal.aborted) {
      const counts = await queue.getJobCounts("waiting", "prioritized", "active", "delayed");
      if (Object.values(counts).every((count) => count === 0)) return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    await queue.close();
  }
}

async function handle(job: Job<JobData>, options: WorkerOptions, bull: Bull, tally: Tally): Promise<object> {
  const { engine, results } = options;
  const { id = "", data } = job;
  if (results.has(id)) {
    tally.repeated++;
    return { repeated: true };
  }
  try {
    const { id: own, request } = requestOf(data.text);
    const run = engine.generate({ whenFull: "wait", ...request });
    await readThrough(run, job);
    const result = await run.result();
    const { file, line } = data;
    const written = await results.append({
      job: id,
      ...(own !== undefined && { id: own }),
      file,
      line,
      ...told(result),
    });
    tally[written ? "written" : "repeated"]++;
    return { finishReason: result.finishReason, completionTokens: result.usage.completionTokens };
  } catch (cause) {
    const error = wrapError(cause);
    const message = `${data.file}:${data.line}: ${error.code}: ${error.message}`;
    throw isPoison(error) ? new bull.UnrecoverableError(message) : new Error(message, { cause });
  }
}

/** What fails however often it is tried: the request's fault, or what the model has not. */
function isPoison(error: SdarError): boolean {
  const { code, isRetryable } = error;
  const status = httpStatusOf(error);
  return code === "TOKENIZER_MISSING" || code === "TEMPLATE_MISSING" || (status >= 400 && status < 499 && !isRetryable);
}

/** Tells Redis how many tokens there are, now and then; nothing waits for it. */
async function readThrough(run: Run, job: Job<JobData>): Promise<void> {
  let tokens = 0;
  let told = Date.now();
  for await (const chunk of run) {
    tokens += chunk.tokens.length;
    if (Date.now() - told < progressMs) continue;
    told = Date.now();
    job.updateProgress({ completionTokens: tokens }).catch(() => {});
  }
}

/** A result without its tokens; JSON. */
function told({ tokens: _, answers, seed, valueError, ...rest }: GenerateResult): object {
  return {
    ...rest,
    seed: typeof seed === "bigint" ? String(seed) : seed,
    ...(valueError && { valueError: valueError.message }),
    ...(answers && { answers: answers.map(({ tokens: __, valueError: ___, ...answer }) => answer) }),
  };
}
