// Many requests from a list or a stream, so many at a time.
import { SdarError, wrapError } from "./errors.js";
import { safely } from "./events.js";
import { isAborted, onAbort } from "./signals.js";
import type { GenerateRequest, GenerateResult, Run } from "./types.js";

/** What `engine.map` takes besides. */
export interface MapOptions {
  /**
   * Requests that run or wait, and results that nobody has read yet, 1 to 65,536.
   *
   * @default 256
   */
  concurrency?: number;
  /**
   * Whether results come in the order of the items, else as they are there.
   *
   * @default true
   */
  ordered?: boolean;
  /** Aborts all that runs; the iterator then throws ABORTED. */
  signal?: AbortSignal;
  /** Called when an item is done, with how many are and how many of those failed. */
  onProgress?: (progress: { done: number; failed: number }) => void;
}

/** What became of an item: `result`, or why there is none. */
export type Mapped<Item> = { item: Item; index: number } & (
  | { result: GenerateResult; error?: undefined }
  | { result?: undefined; error: SdarError }
);

type Request<Item> = (item: Item, index: number) => GenerateRequest | PromiseLike<GenerateRequest>;

/** Items are taken from `items` as there is room for them. */
export async function* mapRequests<Item>(
  generate: (request: GenerateRequest) => Run,
  items: Iterable<Item> | AsyncIterable<Item>,
  toRequest: Request<Item>,
  options: MapOptions,
): AsyncGenerator<Mapped<Item>, void, undefined> {
  const { ordered = true, signal } = options;
  const aborted = () => new SdarError("ABORTED", "mapping was aborted", { cause: signal?.reason });
  if (isAborted(signal)) throw aborted();
  const work = new Work(generate, items, toRequest, options);
  const stop = onAbort(signal, () => work.fail(aborted()));
  try {
    for (let next = 0; ; next++) {
      const mapped = await work.take(ordered ? next : undefined);
      if (!mapped) return;
      if (mapped.error?.code === "DISPOSED") throw mapped.error;
      yield mapped;
    }
  } finally {
    stop();
    work.close();
  }
}

class Work<Item> {
  readonly #generate: (request: GenerateRequest) => Run;
  readonly #source: Iterator<Item> | AsyncIterator<Item>;
  readonly #toRequest: Request<Item>;
  readonly #concurrency: number;
  readonly #onProgress: MapOptions["onProgress"];
  readonly #runs = new Set<Run>();
  /** by index: done, and not given out */
  readonly #results = new Map<number, Mapped<Item>>();
  readonly #progress = { done: 0, failed: 0 };
  /** items begun and not done */
  #running = 0;
  #index = 0;
  #filling = false;
  #ended = false;
  #closed = false;
  #failure: unknown;
  #wake = () => {};

  constructor(
    generate: (request: GenerateRequest) => Run,
    items: Iterable<Item> | AsyncIterable<Item>,
    toRequest: Request<Item>,
    { concurrency = 256, onProgress }: MapOptions,
  ) {
    this.#generate = generate;
    const { [Symbol.asyncIterator]: asynchronous } = Object(items) as AsyncIterable<Item>;
    this.#source = asynchronous ? asynchronous.call(items) : (items as Iterable<Item>)[Symbol.iterator]();
    this.#toRequest = toRequest;
    this.#concurrency = concurrency;
    this.#onProgress = onProgress;
    this.#fill();
  }

  /** The result of an item, or of any; undefined when there are no more. Throws what the source throws. */
  async take(index: number | undefined): Promise<Mapped<Item> | undefined> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const [any] = this.#results.keys();
      const found = this.#results.get(index ?? any ?? -1);
      if (found) {
        this.#results.delete(found.index);
        this.#fill();
        return found;
      }
      if (this.#ended && this.#running === 0) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  fail(error: unknown): void {
    this.#failure ??= error;
    this.close();
    this.#wake();
  }

  /** Neither the source nor a request that is being made is waited for. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const run of this.#runs) run.abort();
    if (!this.#ended) safely(() => this.#source.return?.());
  }

  async #fill(): Promise<void> {
    if (this.#filling) return;
    this.#filling = true;
    try {
      while (!this.#ended && !this.#closed && this.#running + this.#results.size < this.#concurrency) {
        const next = await this.#source.next();
        if (next.done) this.#ended = true;
        else if (!this.#closed) this.#run(next.value, this.#index++);
      }
    } catch (error) {
      this.#ended = true;
      this.fail(error);
    }
    this.#filling = false;
    this.#wake();
  }

  async #run(item: Item, index: number): Promise<void> {
    this.#running++;
    const mapped = await this.#map(item, index);
    this.#running--;
    this.#results.set(index, mapped);
    this.#progress.done++;
    if (mapped.error) this.#progress.failed++;
    if (!this.#closed) safely(() => this.#onProgress?.({ ...this.#progress }));
    this.#wake();
  }

  async #map(item: Item, index: number): Promise<Mapped<Item>> {
    try {
      const request = await this.#toRequest(item, index);
      if (this.#closed) throw new SdarError("ABORTED", "mapping was ended");
      const run = this.#generate({ whenFull: "wait", ...request });
      this.#runs.add(run);
      try {
        return { item, index, result: await run.result() };
      } finally {
        this.#runs.delete(run);
      }
    } catch (error) {
      return { item, index, error: wrapError(error) };
    }
  }
}
