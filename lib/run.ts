// Events of one request to chunks and a result.
import type { NativeEvent } from "./binding.js";
import type { Clock } from "./clock.js";
import { Completion, type CompletionSetup, type Finish } from "./completion.js";
import { SdarError } from "./errors.js";
import { iteratorUsed, runHandle } from "./run-handle.js";
import { onAbort } from "./signals.js";
import type { Answer, Chunk, GenerateResult, Run, Usage } from "./types.js";

export interface RunSetup extends CompletionSetup {
  promptTokens: number;
  seed: number | bigint;
  /** how many completions */
  n: number;
  /** unread tokens above which the run is held back */
  highWaterMark: number;
  signal?: AbortSignal | undefined;
  clock: Clock;
  /** asks for the end of the request */
  onAbort(): void;
  /** holds the request back, or lets it go on */
  onHold(held: boolean): void;
  /** called once */
  onSettled(outcome: GenerateResult | SdarError): void;
}

interface Waiter {
  resolve(result: IteratorResult<Chunk, void>): void;
  reject(error: SdarError): void;
}

/** A reader that has read nothing for so long holds nothing back from those who asked for the result. */
export const patienceMs = 1000;

/** A run as its engine drives it. */
export class RunState {
  /** what its caller gets */
  readonly handle: Run;
  readonly #setup: RunSetup;
  readonly #completions: Completion[];
  readonly #result: Promise<GenerateResult>;
  #resolve!: (result: GenerateResult) => void;
  #reject!: (error: SdarError) => void;
  /** Says that it waits for its turn, or runs. */
  accept!: () => void;
  #refuse!: (error: SdarError) => void;
  #settled = false;
  /** not given to the iterator yet; ends with the error of a failed run */
  #queue: (Chunk | SdarError)[] = [];
  /** tokens in it, and positions of drafts */
  #unread = 0;
  #waiters: Waiter[] = [];
  #opened = false;
  #closed = false;
  #held = false;
  #wanted = false;
  #lastRead = 0;
  #forgotten = false;
  #stopTimer: (() => void) | undefined;
  readonly #stopSignal: () => void;

  constructor(setup: RunSetup) {
    this.#setup = setup;
    this.#completions = Array.from({ length: setup.n }, (_, index) => new Completion(setup, index));
    this.#result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // The error may only be looked for in the iterator.
    this.#result.catch(() => {});
    this.#stopSignal = onAbort(setup.signal, () => this.abort());
    const started = new Promise<void>((resolve, reject) => {
      this.accept = resolve;
      this.#refuse = reject;
    });
    this.handle = runHandle({
      started,
      result: () => this.result(),
      abort: () => this.abort(),
      iterate: () => this.#iterate(),
    });
  }

  get settled(): boolean {
    return this.#settled;
  }

  /** by the clock: when its reader last read, or was opened */
  get lastRead(): number {
    return this.#lastRead;
  }

  /** Whether its failure reaches nobody: its iterator was garbage-collected, and its result never asked for. */
  get forgotten(): boolean {
    return this.#forgotten && !this.#wanted;
  }

  /** tokens generated so far, of all completions */
  get tokenCount(): number {
    return this.#completions.reduce((sum, { tokenCount }) => sum + tokenCount, 0);
  }

  result(): Promise<GenerateResult> {
    this.#wanted = true;
    this.#watchReader();
    return this.#result;
  }

  abort(): void {
    if (!this.#settled) this.#setup.onAbort();
  }

  #iterate(): AsyncIterableIterator<Chunk, void> {
    if (this.#opened) throw iteratorUsed();
    this.#opened = true;
    this.#lastRead = this.#setup.clock.now();
    const iterator: AsyncIterableIterator<Chunk, void> = {
      next: () => this.#next(),
      return: async () => {
        this.#close();
        return { done: true, value: undefined };
      },
      throw: async (error) => {
        this.#close();
        throw error;
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    // Not with a closure from here, which would hold the iterator.
    forgotten.register(iterator, this, this);
    this.#holdIfFull();
    return iterator;
  }

  /** What became of the completion `index`. */
  event(index: number, event: Extract<NativeEvent, { kind: "tokens" | "draft" }>): void {
    if (this.#settled) return;
    const completion = this.#completions[index];
    const chunk = event.kind === "tokens" ? completion?.tokens(event) : completion?.draft(event);
    if (chunk && (hasText(chunk) || chunk.tokens.length > 0 || chunk.draft)) this.#push(chunk);
  }

  /** The run ends with its last completion. */
  finish(index: number, how: Finish): void {
    if (this.#settled) return;
    const chunk = this.#completions[index]?.finish(how);
    if (chunk && hasText(chunk)) this.#push(chunk);
    const answers = this.#completions.map(({ answer }) => answer).filter((answer) => answer !== undefined);
    const [first] = answers;
    if (!first || answers.length < this.#completions.length) return;
    const { seed } = this.#setup;
    const more =
      answers.length > 1 ? { usage: total(answers), seed, answers: Object.freeze(answers) as Answer[] } : { seed };
    const result: GenerateResult = Object.freeze({ ...first, ...more });
    this.#settle(result);
    this.#resolve(result);
  }

  /** Ends a run that was aborted with what it has, as far as its completions have not ended. */
  cutShort(cachedTokens = 0, forwards: readonly number[] = []): void {
    const { promptTokens } = this.#setup;
    for (const [index, { answer, cutShort }] of this.#completions.entries())
      if (!answer) this.finish(index, { promptTokens, cachedTokens, forwards: forwards[index] ?? 0, ...cutShort });
  }

  fail(error: SdarError): void {
    if (this.#settled) return;
    // Who waits for a chunk is told, even where the iterator itself was garbage-collected.
    if (!this.#closed || this.#waiters.length > 0) this.#queue.push(error);
    this.#settle(error);
    this.#reject(error);
  }

  #push(chunk: Chunk): void {
    freeze(chunk);
    const waiter = this.#waiters.shift();
    if (waiter) {
      this.#lastRead = this.#setup.clock.now();
      waiter.resolve({ done: false, value: chunk });
    } else if (!this.#closed) {
      this.#queue.push(chunk);
      this.#unread += size(chunk);
      this.#holdIfFull();
    }
  }

  #next(): Promise<IteratorResult<Chunk, void>> {
    this.#lastRead = this.#setup.clock.now();
    const next = this.#queue.shift();
    if (next instanceof SdarError) return Promise.reject(next);
    if (next) {
      this.#unread -= size(next);
      if (this.#unread <= this.#setup.highWaterMark / 2) this.#release();
      return Promise.resolve({ done: false, value: next });
    }
    if (this.#settled || this.#closed) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  #settle(outcome: GenerateResult | SdarError): void {
    this.#settled = true;
    // The registry would keep it until the next collection of the whole heap.
    forgotten.unregister(this);
    if (outcome instanceof SdarError) this.#refuse(outcome);
    else this.accept();
    this.#stopSignal();
    this.#stopTimer?.();
    this.#setup.onSettled(outcome);
    this.#answerWaiters();
  }

  #close(): void {
    this.#drop();
    this.#answerWaiters();
    this.abort();
  }

  /** The iterator was garbage-collected: nobody will read, which holds nothing back. */
  forget(): void {
    this.#forgotten = true;
    this.#drop();
    this.#release();
  }

  #drop(): void {
    this.#closed = true;
    this.#queue = [];
    this.#unread = 0;
  }

  /** Answers everyone who waits for a chunk that will not come. */
  #answerWaiters(): void {
    for (const waiter of this.#waiters.splice(0)) this.#next().then(waiter.resolve, waiter.reject);
  }

  #holdIfFull(): void {
    if (this.#held || this.#settled || !this.#opened || this.#unread <= this.#setup.highWaterMark) return;
    if (this.#wanted && this.#patienceLeft <= 0) return;
    this.#held = true;
    this.#setup.onHold(true);
    this.#watchReader();
  }

  #release(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#stopTimer?.();
    if (!this.#settled) this.#setup.onHold(false);
  }

  get #patienceLeft(): number {
    return this.#lastRead + patienceMs - this.#setup.clock.now();
  }

  /** Lets a run that is held back go on once its reader stands still while somebody waits for its result. */
  #watchReader(): void {
    if (!this.#held || !this.#wanted || this.#settled) return;
    this.#stopTimer?.();
    if (this.#patienceLeft <= 0) this.#release();
    else this.#stopTimer = this.#setup.clock.after(this.#patienceLeft, () => this.#watchReader());
  }
}

/** A run that never began: its result and its iterator reject, the iterator once. */
export function failedRun(error: SdarError): Run {
  const result = Promise.reject(error);
  result.catch(() => {});
  let opened = false;
  return runHandle({
    started: result,
    result: () => result,
    abort() {},
    iterate() {
      if (opened) throw iteratorUsed();
      opened = true;
      return failing(error);
    },
  });
}

async function* failing(error: SdarError): AsyncGenerator<Chunk, void> {
  yield await Promise.reject<Chunk>(error);
}

/** Iterators that nobody holds any more. */
const forgotten = new FinalizationRegistry<RunState>((run) => run.forget());

/** What several may read, none of them changes. */
function freeze(chunk: Chunk): void {
  Object.freeze(chunk.tokens);
  Object.freeze(chunk.toolCalls);
  if (chunk.draft) {
    for (const token of chunk.draft.tokens) Object.freeze(token);
    Object.freeze(chunk.draft.tokens);
    Object.freeze(chunk.draft);
  }
  Object.freeze(chunk);
}

const hasText = ({ text, reasoning, toolCalls }: Chunk) => text !== "" || reasoning !== undefined || toolCalls;

const size = ({ tokens, draft }: Chunk) => tokens.length + (draft?.tokens.length ?? 0);

/** All completions share one prompt. */
function total(answers: Answer[]): Usage {
  const sum = (of: (usage: Usage) => number) => answers.reduce((all, { usage }) => all + of(usage), 0);
  const { promptTokens, cachedTokens } = (answers[0] as Answer).usage;
  const completionTokens = sum((usage) => usage.completionTokens);
  const forwards = sum((usage) => usage.forwards);
  const tokensPerForward = forwards > 0 ? completionTokens / forwards : 0;
  const more: Partial<Usage> = {};
  for (const name of ["drafted", "accepted", "draftForwards", "verifyForwards"] as const)
    if (answers[0]?.usage[name] !== undefined) more[name] = sum((usage) => usage[name] ?? 0);
  return Object.freeze({ promptTokens, cachedTokens, completionTokens, forwards, tokensPerForward, ...more });
}
