// Requests between the queue and the addon: submits them, gives events to their runs, tells those who watch.
import { basename } from "node:path";
import type { Computed, NativeEngine, NativeEvent, NativeModelInfo } from "./binding.js";
import type { Clock } from "./clock.js";
import { nameAndMessage, SdarError, wrapError } from "./errors.js";
import { Emitter, type EngineEvents, type RequestInfo } from "./events.js";
import { costOf } from "./fair-order.js";
import { type HeldLimits, HeldRuns } from "./held.js";
import { bytesOf, type Job, tooLate } from "./job.js";
import { answerMs } from "./limits.js";
import type { ParsedRequest } from "./options.js";
import { Outside } from "./outside.js";
import { AdmissionQueue, type QueueLimits } from "./queue.js";
import { roomFor } from "./room.js";
import { patienceMs, type RunSetup, RunState } from "./run.js";
import { isAborted } from "./signals.js";
import { type EngineStats, RecentRates } from "./stats.js";
import { RequestSpan } from "./telemetry.js";
import type { EncodedPrompt } from "./text/protocol.js";
import type { Encoding } from "./text/texts.js";
import type { TokenBytes } from "./text/token-bytes.js";
import { callsOf } from "./tool-form.js";
import type { GenerateResult, Run } from "./types.js";

export interface ServingSetup {
  native: NativeEngine;
  model: NativeModelInfo;
  /** folder of the checkpoint */
  path: string;
  maxConcurrent: number;
  limits: QueueLimits & HeldLimits;
  clock: Clock;
  /** undefined: chunks have no text */
  tokenBytes: TokenBytes | undefined;
  /** is told what went wrong outside of requests; never throws */
  warn(message: string): void;
}

export class Serving {
  readonly emitter: Emitter;
  readonly #setup: ServingSetup;
  readonly #queue: AdmissionQueue;
  readonly #held: HeldRuns<Job>;
  readonly #outside = new Outside<Job>();
  readonly #rates: RecentRates;
  /** not settled */
  readonly #jobs = new Set<Job>();
  /** by id in the addon: what it has not ended yet */
  readonly #completions = new Map<number, { job: Job; index: number }>();
  readonly #model: string;
  #nextId = 1;
  #closed = false;
  #whenEmpty: (() => void) | undefined;
  #stopWatch = () => {};

  constructor(setup: ServingSetup) {
    this.#setup = setup;
    this.#queue = new AdmissionQueue(setup.limits, setup.maxConcurrent, setup.clock);
    this.#held = new HeldRuns(setup.limits, setup.clock);
    this.#rates = new RecentRates(setup.clock.now());
    this.#model = basename(setup.path);
    this.emitter = new Emitter(setup.warn);
  }

  /**
   * Queues a request once its prompt is encoded. Throws for a prompt of ids that cannot run; one of text fails the run.
   */
  start(parsed: ParsedRequest, prompt: Int32Array | Encoding, began: number): Run {
    const { tokenBytes, clock, model } = this.#setup;
    const { native, n } = parsed;
    const encoded = prompt instanceof Int32Array ? prompt : undefined;
    const room = encoded && roomFor(encoded.length, native, model);
    const id = this.#nextId;
    // Each completion is a request of the addon.
    this.#nextId += n;
    const setup: RunSetup = {
      ...parsed,
      calls: callsOf(parsed.tools),
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
      blockLength: native.blockLength,
      bytes: 0,
      dueAt: began + (parsed.deadline ?? Number.POSITIVE_INFINITY),
      run,
      span: undefined,
      began,
      cachedTokens: 0,
      live: 0,
      aborted: false,
      whole: false,
      waits: parsed.whenFull === "wait",
      forwards: [],
      costs: [],
      cost: 0,
      get lastRead() {
        return run.lastRead;
      },
      stopTimer() {},
      start() {},
      resume: () => this.#eachCompletion(job, (each) => this.#setup.native.resume(each)),
      expire: () => run.fail(tooLate(parsed.deadline)),
      stalled: (error) => this.#fail(job, error),
    };
    const enqueue = ({ tokens, reasoning }: EncodedPrompt, maxTokens: number) => {
      setup.promptTokens = tokens.length;
      setup.reasoning = reasoning;
      job.promptTokens = tokens.length;
      job.maxTokens = maxTokens;
      job.bytes = bytesOf(parsed, tokens);
      job.start = (rank, tenant, deadlineMs) => {
        if (deadlineMs > 0) this.#after(job, deadlineMs + answerMs, () => this.#fail(job, tooLate(parsed.deadline)));
        this.#submit(job, { ...native, maxTokens, tokens, rank, tenant, deadlineMs });
      };
      job.span = RequestSpan.begin(this.#model, parsed, maxTokens, Date.now() - (clock.now() - began));
      this.#enqueue(job);
    };
    if (isAborted(parsed.signal)) {
      if (!(prompt instanceof Int32Array)) prompt.cancel();
      run.cutShort();
      return run.handle;
    }
    this.#jobs.add(job);
    if (encoded && room !== undefined) enqueue({ tokens: encoded, reasoning: "never" }, room);
    else this.#encode(job, prompt as Encoding, (found) => enqueue(found, roomFor(found.tokens.length, native, model)));
    return run.handle;
  }

  /** Lets a request wait for its tokens; abort, deadline and dispose end it meanwhile as they do later. */
  #encode(job: Job, { prompt, cancel }: Encoding, then: (found: EncodedPrompt) => void): void {
    if (Number.isFinite(job.dueAt)) this.#after(job, job.dueAt - this.#setup.clock.now(), () => job.expire());
    job.stopEncoding = () => {
      job.stopEncoding = undefined;
      job.stopTimer();
      cancel();
    };
    prompt
      .then((found) => {
        if (job.run.settled) return;
        job.stopEncoding?.();
        then(found);
      })
      .catch((error) => {
        if (job.run.settled) return;
        const failure = wrapError(error);
        if (failure.code === "QUEUE_FULL") this.#queue.countRejected();
        else job.refused = true;
        job.run.fail(failure);
      });
  }

  #enqueue(job: Job, invited = false): void {
    if (job.waits && !invited && (this.#outside.has(job.key) || !this.#queue.hasRoomFor(job))) {
      this.#outside.add(job);
      if (Number.isFinite(job.dueAt)) this.#after(job, job.dueAt - this.#setup.clock.now(), () => job.expire());
      return;
    }
    job.stopTimer();
    try {
      this.#queue.add(job);
    } catch (error) {
      job.run.fail(wrapError(error));
      return;
    }
    job.run.accept();
    const { promptTokens } = job;
    const queuedRequests = this.#queue.counts.requests;
    this.emitter.emit("queued", () => ({ ...this.#info(job), promptTokens, queuedRequests }));
    job.span?.event("queued", { "sdar.queue.requests": queuedRequests });
    this.#queue.pump();
  }

  /** Lets in who waits for room in the queue. */
  #letIn(): void {
    if (this.#closed) return;
    for (const job of this.#outside.next((waiting) => this.#queue.hasRoomFor(waiting))) this.#enqueue(job, true);
  }

  /** Takes what the addon has to say; call when it wakes. */
  drain(): void {
    const { native, clock } = this.#setup;
    for (const event of native.takeEvents()) this.#takeSafely(event);
    this.#queue.pump();
    this.#letIn();
    if (!this.#closed) this.#rates.sample(clock.now(), () => native.stats());
  }

  /** What goes wrong with the events of one request harms no other's. */
  #takeSafely(event: NativeEvent): void {
    const job = this.#completions.get(event.request)?.job;
    try {
      this.#take(event);
    } catch (error) {
      this.#setup.warn(`telling the events of request ${job?.id} failed: ${nameAndMessage(error)}`);
      if (job) this.#fail(job, wrapError(error));
    }
  }

  #take(event: NativeEvent): void {
    const found = this.#completions.get(event.request);
    if (!found) return;
    const { job, index } = found;
    if ("computed" in event) this.#count(job, index, event.computed);
    if (event.kind === "finished" || event.kind === "failed") {
      this.#completions.delete(event.request);
      job.live--;
      this.#queue.answerEnded(job);
      if (job.run.settled && job.live === 0) this.#settleQueue(job);
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
      if (event.kind === "tokens") {
        job.forwards[index] = event.forwards;
        if (job.firstTokenMs === undefined) this.#firstToken(job);
      }
      job.run.event(index, event);
    }
  }

  stats(): EngineStats {
    const stats = this.#setup.native.stats();
    return { ...stats, queue: this.#queue.counts, recent: this.#rates.read(this.#setup.clock.now(), stats) };
  }

  #count(job: Job, index: number, { rows, steps }: Computed): void {
    const cost = costOf(rows, steps);
    job.cost += cost - (job.costs[index] ?? 0);
    job.costs[index] = cost;
    this.#queue.progress(job, job.cost);
  }

  /** Resolves when no request is left but those whose readers stand still. */
  async empty(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#whenEmpty = resolve;
      this.#checkEmpty();
    });
  }

  #checkEmpty(): void {
    if (!this.#whenEmpty) return;
    this.#stopWatch();
    const now = this.#setup.clock.now();
    const standing = (job: Job) => this.#held.has(job) && now - job.lastRead >= patienceMs;
    if ([...this.#jobs].every(standing)) this.#whenEmpty();
    else this.#stopWatch = this.#setup.clock.after(patienceMs, () => this.#checkEmpty());
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
        job.live++;
      } catch (error) {
        this.#queue.notStarted(job, answers - answer);
        this.#fail(job, wrapError(error));
        return;
      }
    }
  }

  /** One completion that fails takes the others with it. */
  #fail(job: Job, error: SdarError): void {
    job.run.fail(error);
    this.#eachCompletion(job, (id) => this.#setup.native.abort(id));
  }

  #abort(job: Job): void {
    if (job.stopEncoding || this.#outside.delete(job) || this.#queue.cancel(job)) {
      job.run.cutShort();
      return;
    }
    // A step may take long; who gave up does not wait for it.
    if (!job.aborted) this.#after(job, answerMs, () => job.run.cutShort(job.cachedTokens, job.forwards));
    job.aborted = true;
    this.#eachCompletion(job, (id) => this.#setup.native.abort(id));
  }

  /** Calls `then` unless the run settles before. */
  #after(job: Job, ms: number, then: () => void): void {
    job.stopTimer();
    job.stopTimer = this.#setup.clock.after(ms, then);
  }

  /** A run that is held has no place, and comes back to one as others come to theirs. */
  #hold(job: Job, held: boolean): void {
    if (this.#closed) return;
    if (held) {
      this.#eachCompletion(job, (id) => this.#setup.native.pause(id));
      this.#queue.hold(job);
      this.#held.add(job);
    } else {
      this.#held.delete(job);
      this.#queue.release(job);
    }
    this.#queue.pump();
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
    job.stopTimer();
    this.#held.delete(job);
    this.#outside.delete(job);
    job.whole = !(outcome instanceof SdarError) && outcome.finishReason !== "abort";
    this.#queue.settleWaiting(job);
    if (job.live === 0) this.#settleQueue(job);
    this.#jobs.delete(job);
    job.span?.end(outcome);
    if (outcome instanceof SdarError && job.run.forgotten)
      this.#setup.warn(`request ${job.id}, which nobody reads any more, failed: ${outcome.code}: ${outcome.message}`);
    if (!job.refused) this.#tell(job, outcome);
    this.#letIn();
    this.#checkEmpty();
  }

  /** Its key pays for it once the native side computes nothing more for it. */
  #settleQueue(job: Job): void {
    const { cost, run, whole, promptTokens, cachedTokens } = job;
    const promptCost = Math.min(cost, promptTokens - cachedTokens);
    this.#queue.settle(job, { cost, promptCost, completionTokens: run.tokenCount, whole });
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
