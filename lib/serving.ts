// Requests between the queue and the addon: submits them, gives events to their runs, tells those who watch.
import { basename } from "node:path";
import type { NativeEngine, NativeEvent, NativeModelInfo } from "./binding.js";
import type { Clock } from "./clock.js";
import { SdarError, wrapError } from "./errors.js";
import { Emitter, type EngineEvents, type RequestInfo } from "./events.js";
import { type ParsedRequest, roomFor } from "./options.js";
import { AdmissionQueue, type QueueLimits, type Ticket } from "./queue.js";
import { type RunSetup, RunState } from "./run.js";
import { type EngineStats, RecentRates } from "./stats.js";
import { RequestSpan } from "./telemetry.js";
import type { Encoding } from "./texts.js";
import type { TokenBytes } from "./token-bytes.js";
import type { GenerateResult } from "./types.js";

export interface ServingSetup {
  native: NativeEngine;
  model: NativeModelInfo;
  /** folder of the checkpoint */
  path: string;
  maxConcurrent: number;
  limits: QueueLimits;
  clock: Clock;
  /** undefined: chunks have no text */
  tokenBytes: TokenBytes | undefined;
  /** is told what went wrong outside of requests; never throws */
  warn(message: string): void;
}

/** A request from `generate` until its run has settled and the addon has ended its completions. */
interface Job extends Writable<Ticket> {
  readonly run: RunState;
  /** from when it is queued */
  span: RequestSpan | undefined;
  /** while its prompt is encoded */
  stopEncoding?: (() => void) | undefined;
  /** its prompt turned out to be one that cannot run: it never was a request */
  refused?: boolean;
  readonly began: number;
  startedMs?: number;
  firstTokenMs?: number;
  cachedTokens: number;
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] };

export class Serving {
  readonly emitter: Emitter;
  readonly #setup: ServingSetup;
  readonly #queue: AdmissionQueue;
  readonly #rates: RecentRates;
  /** not settled */
  readonly #jobs = new Set<Job>();
  /** by id in the addon: what it has not ended yet */
  readonly #completions = new Map<number, { job: Job; index: number }>();
  readonly #model: string;
  #nextId = 1;
  #closed = false;
  #whenEmpty: (() => void) | undefined;

  constructor(setup: ServingSetup) {
    this.#setup = setup;
    this.#queue = new AdmissionQueue(setup.limits, setup.maxConcurrent, setup.clock);
    this.#rates = new RecentRates(setup.clock.now());
    this.#model = basename(setup.path);
    this.emitter = new Emitter(setup.warn);
  }

  /**
   * Queues a request once its prompt is encoded. Throws for a prompt of ids that cannot run; one of text fails the run.
   */
  start(parsed: ParsedRequest, prompt: Int32Array | Encoding, began: number): RunState {
    const { tokenBytes, clock, model } = this.#setup;
    const { native, n } = parsed;
    const encoded = prompt instanceof Int32Array ? prompt : undefined;
    const room = encoded && roomFor(encoded.length, native, model);
    const id = this.#nextId;
    // Each completion is a request of the addon.
    this.#nextId += n;
    const setup: RunSetup = {
      ...parsed,
      tokenBytes,
      promptTokens: 0,
      stopTokens: native.stopTokens,
      clock,
      onAbort: () => this.#abort(job),
      onHold: (held) => this.#hold(job, held),
      onSettled: (outcome) => this.#settled(job, outcome),
    };
    const run = new RunState(setup);
    const job: Job = {
      id,
      key: parsed.key ?? "",
      priority: native.priority,
      promptTokens: 0,
      maxTokens: 0,
      answers: n,
      dueAt: began + (parsed.deadline ?? Number.POSITIVE_INFINITY),
      run,
      span: undefined,
      began,
      cachedTokens: 0,
      start: () => {},
      expire: () => run.fail(tooLate(parsed.deadline)),
    };
    const enqueue = (tokens: Int32Array, maxTokens: number) => {
      setup.promptTokens = tokens.length;
      job.promptTokens = tokens.length;
      job.maxTokens = maxTokens;
      job.start = (rank, deadlineMs) => this.#submit(job, { ...native, tokens, rank, deadlineMs });
      job.span = RequestSpan.begin(this.#model, parsed, maxTokens, Date.now() - (clock.now() - began));
      this.#enqueue(job);
    };
    if (parsed.signal?.aborted) {
      if (!(prompt instanceof Int32Array)) prompt.cancel();
      run.abortUnstarted();
      return run;
    }
    this.#jobs.add(job);
    if (encoded && room !== undefined) enqueue(encoded, room);
    else this.#encode(job, prompt as Encoding, (tokens) => enqueue(tokens, roomFor(tokens.length, native, model)));
    return run;
  }

  /** Lets a request wait for its tokens; abort, deadline and dispose end it meanwhile as they do later. */
  #encode(job: Job, { tokens, cancel }: Encoding, then: (tokens: Int32Array) => void): void {
    const { clock } = this.#setup;
    const stopTimer = Number.isFinite(job.dueAt) ? clock.after(job.dueAt - clock.now(), () => job.expire()) : () => {};
    job.stopEncoding = () => {
      job.stopEncoding = undefined;
      stopTimer();
      cancel();
    };
    const encoded = (act: () => void) => {
      if (job.run.settled) return;
      job.stopEncoding?.();
      try {
        act();
      } catch (error) {
        job.refused = true;
        job.run.fail(wrapError(error));
      }
    };
    tokens.then(
      (ids) => encoded(() => then(ids)),
      (error) =>
        encoded(() => {
          throw error;
        }),
    );
  }

  #enqueue(job: Job): void {
    try {
      this.#queue.add(job);
    } catch (error) {
      job.run.fail(wrapError(error));
      return;
    }
    const { promptTokens } = job;
    const queuedRequests = this.#queue.counts.requests;
    this.emitter.emit("queued", () => ({ ...this.#info(job), promptTokens, queuedRequests }));
    job.span?.event("queued", { "sdar.queue.requests": queuedRequests });
    this.#queue.pump();
  }

  /** Takes what the addon has to say; call when it wakes. */
  drain(): void {
    const { native, clock } = this.#setup;
    for (const event of native.takeEvents()) this.#take(event);
    this.#queue.pump();
    if (!this.#closed) this.#rates.sample(clock.now(), () => native.stats());
  }

  #take(event: NativeEvent): void {
    const found = this.#completions.get(event.request);
    if (!found) return;
    const { job, index } = found;
    if (event.kind === "finished" || event.kind === "failed") {
      this.#completions.delete(event.request);
      this.#queue.answerEnded();
      if (event.kind === "finished") job.run.finish(index, event);
      else this.#fail(job, wrapError(Object.assign(new Error(event.message), { code: event.code })));
    } else if (job.run.settled) {
      // What is left of a run that failed.
    } else if (event.kind === "started") {
      if (job.startedMs === undefined) this.#started(job, event.cachedTokens);
    } else if (event.kind === "preempted") {
      this.emitter.emit("preempted", () => ({ ...this.#info(job), answer: index }));
      job.span?.event("preempted", { "sdar.answer": index });
    } else {
      if (event.kind === "tokens" && job.firstTokenMs === undefined) this.#firstToken(job);
      job.run.event(index, event);
    }
  }

  stats(): EngineStats {
    const stats = this.#setup.native.stats();
    return { ...stats, queue: this.#queue.counts, recent: this.#rates.read(this.#setup.clock.now(), stats) };
  }

  /** Resolves when no request is left. */
  async empty(): Promise<void> {
    if (this.#jobs.size > 0) await new Promise<void>((resolve) => (this.#whenEmpty = resolve));
  }

  /** Fails what waits and runs. */
  close(error: SdarError): void {
    this.#closed = true;
    this.#queue.close();
    for (const { run } of [...this.#jobs]) run.fail(error);
  }

  #submit(job: Job, native: Omit<Parameters<NativeEngine["submit"]>[0], "id" | "answer" | "group">): void {
    const { id, answers } = job;
    for (let answer = 0; answer < answers; answer++) {
      try {
        this.#setup.native.submit({ ...native, id: id + answer, answer, group: answers > 1 ? id : 0 });
        this.#completions.set(id + answer, { job, index: answer });
      } catch (error) {
        this.#queue.notStarted(answers - answer);
        this.#fail(job, wrapError(error));
        return;
      }
    }
  }

  /** One completion that fails takes the others with it. */
  #fail(job: Job, error: SdarError): void {
    this.#eachCompletion(job, (id) => this.#setup.native.abort(id));
    job.run.fail(error);
  }

  #abort(job: Job): void {
    if (job.stopEncoding || this.#queue.cancel(job)) job.run.abortUnstarted();
    else this.#eachCompletion(job, (id) => this.#setup.native.abort(id));
  }

  #hold(job: Job, held: boolean): void {
    this.#eachCompletion(job, (id) => (held ? this.#setup.native.pause(id) : this.#setup.native.resume(id)));
  }

  #eachCompletion({ id, answers }: Job, act: (id: number) => void): void {
    if (this.#closed) return;
    for (let each = id; each < id + answers; each++) if (this.#completions.has(each)) act(each);
  }

  #started(job: Job, cachedTokens: number): void {
    job.startedMs = this.#setup.clock.now() - job.began;
    job.cachedTokens = cachedTokens;
    this.emitter.emit("started", () => ({ ...this.#info(job), cachedTokens }));
    job.span?.event("started", { "gen_ai.usage.cache_read.input_tokens": cachedTokens });
  }

  #firstToken(job: Job): void {
    job.firstTokenMs = this.#setup.clock.now() - job.began;
    job.span?.event("first_token");
  }

  #settled(job: Job, outcome: GenerateResult | SdarError): void {
    job.stopEncoding?.();
    const failed = outcome instanceof SdarError;
    const ran = job.startedMs !== undefined || job.run.tokenCount > 0;
    const cachedTokens = failed ? job.cachedTokens : outcome.usage.cachedTokens;
    this.#queue.settle(job, {
      promptTokens: ran ? job.promptTokens - cachedTokens : 0,
      completionTokens: job.run.tokenCount,
      whole: !failed && outcome.finishReason !== "abort",
    });
    this.#jobs.delete(job);
    job.span?.end(outcome);
    if (!job.refused) this.#tell(job, outcome);
    if (this.#jobs.size === 0) this.#whenEmpty?.();
  }

  #tell(job: Job, outcome: GenerateResult | SdarError): void {
    if (outcome instanceof SdarError) {
      const name = outcome.code === "QUEUE_FULL" ? "rejected" : "failed";
      this.emitter.emit(name, () => ({ ...this.#info(job), error: outcome }));
      return;
    }
    const { finishReason, usage } = outcome;
    this.emitter.emit("finished", (): EngineEvents["finished"] => {
      const { startedMs, firstTokenMs } = job;
      return { ...this.#info(job), finishReason, usage, startedMs, firstTokenMs };
    });
  }

  #info({ id, key, priority, began }: Job): RequestInfo {
    return { id, key: key === "" ? undefined : key, priority, elapsedMs: this.#setup.clock.now() - began };
  }
}

const tooLate = (deadline: number | undefined) =>
  new SdarError("DEADLINE_EXCEEDED", `the answer was not there within its deadline of ${deadline} ms`);
