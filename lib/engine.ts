// The engine as users see it: loads a checkpoint, turns requests into runs, hands events to them.

import { AbortWait } from "./abort-wait.js";
import { type Binding, loadBinding, type NativeEngine } from "./binding.js";
import { Chat, type ChatOptions } from "./chat.js";
import { findCheckpoint } from "./checkpoint.js";
import { type Clock, systemClock } from "./clock.js";
import { invalidOption, nameAndMessage, SdarError, wrapError } from "./errors.js";
import { type EventName, eventNames, type Listener, type ListenerOptions, safely } from "./events.js";
import { Forms } from "./forms.js";
import { isPath } from "./limits.js";
import { type MapOptions, type Mapped, mapRequests } from "./map.js";
import type { Defaults } from "./options.js";
import { failedRun } from "./run.js";
import type { Score, ScoreRequest } from "./score.js";
import { Scoring } from "./scoring.js";
import { Serving, type ServingSetup } from "./serving.js";
import { isAborted, onAbort } from "./signals.js";
import type { EngineStats } from "./stats.js";
import { checkDraft } from "./text/agreement.js";
import { Texts } from "./text/texts.js";
import { detokenize, type RenderOptions, type TokenizeOptions } from "./text/tools.js";
import type {
  DisposeOptions,
  Format,
  GenerateRequest,
  LoadOptions,
  Message,
  ModelInfo,
  RequestFields,
  Run,
} from "./types.js";

/** A loaded checkpoint that generates for any number of requests at once, on a thread of its own. */
export class Engine {
  /** what is loaded */
  readonly model: ModelInfo;
  readonly #native: NativeEngine;
  readonly #texts: Texts;
  readonly #forms: Forms;
  readonly #scoring: Scoring;
  readonly #serving: Serving;
  readonly #clock: Clock;
  readonly #judge: Judge;
  readonly #defaults: Defaults;
  #draining: Promise<void> | undefined;
  #disposal: Promise<void> | undefined;

  private constructor(native: NativeEngine, model: ModelInfo, texts: Texts, settings: ServingSettings) {
    this.#native = native;
    this.model = model;
    this.#texts = texts;
    this.#forms = new Forms(native, texts);
    this.#clock = settings.clock;
    this.#judge = settings.judge;
    this.#defaults = settings.defaults;
    this.#serving = new Serving({ ...settings, native, model, path: model.path, tokenBytes: texts.tokenBytes });
    this.#scoring = new Scoring(this.#serving, texts, settings.judge, model);
  }

  /**
   * Loads a checkpoint in the Hugging Face layout, off this thread.
   *
   * @param pathOrId a folder; `"sdar-nano"`, the model that ships with this package; or a hub id such as
   *   `"JetLM/SDAR-1.7B-Chat"`, looked up in the local Hugging Face cache (nothing is ever downloaded)
   * @throws SdarError, as rejection: `INVALID_OPTION`, `UNSUPPORTED_DEVICE`, `MODEL_NOT_FOUND`, `NATIVE_MISSING`, `ABORTED`,
   *   or what is wrong with the checkpoint: `FILE_NOT_FOUND`, `FILE_UNREADABLE`, `CHECKPOINT_INVALID`,
   *   `CHECKPOINT_TRUNCATED`, `CONFIG_INVALID`, `UNSUPPORTED_MODEL`, `TOKENIZER_INVALID`, `UNSUPPORTED_TOKENIZER`,
   *   `TEMPLATE_FAILED`, `OUT_OF_MEMORY`, `DEVICE_FAILED`
   */
  static load(pathOrId: string, options?: LoadOptions): Promise<Engine> {
    return Engine.loadWith(loadBinding, pathOrId, options);
  }

  /** @internal `load` with another addon and another clock, for tests. */
  static async loadWith(
    getBinding: () => Binding,
    pathOrId: string,
    options?: LoadOptions,
    clock?: Clock,
  ): Promise<Engine> {
    try {
      return await Engine.#load(getBinding, pathOrId, options, clock);
    } catch (error) {
      throw wrapError(error);
    }
  }

  static async #load(
    getBinding: () => Binding,
    pathOrId: string,
    options: LoadOptions = {},
    clock: Clock = systemClock,
  ): Promise<Engine> {
    const judge = await loadJudge();
    const parsed = judge.parseLoadOptions(options);
    const { native: settings, queue: limits, onProgress, signal, log, generate: defaults } = parsed;
    if (!isPath(pathOrId)) throw invalidOption("pathOrId", pathOrId, "a folder or a hub id");
    const path = findCheckpoint(pathOrId);
    const draft = settings.draftPath;
    const aborted = () => new SdarError("ABORTED", "loading was aborted", { cause: signal?.reason });
    if (isAborted(signal)) throw aborted();

    const began = performance.now();
    let wake = () => {};
    // A log that fails has nowhere to say so.
    const report: typeof log = (level, message) => safely(() => log(level, message));
    const warn = (message: string) => report("warn", message);
    let last = { done: 0, total: 0 };
    const progress = (done: number, total: number) => {
      last = { done, total };
      safely(
        () => onProgress?.({ done, total }),
        (error) => warn(`onProgress threw: ${nameAndMessage(error)}`),
      );
    };
    const texts = new Texts(path, limits.maxRequests + settings.maxConcurrent);
    let handle: ReturnType<Binding["load"]> | undefined;
    const abort = new AbortWait(signal, () => handle?.cancel());
    try {
      handle = getBinding().load({ ...settings, path }, progress, () => wake());
      // Files of text are read while the weights are.
      const [native] = await abort.race(Promise.all([handle.promise, texts.load()]));
      const { maxConcurrent } = settings;
      const finished = Engine.#finishLoading(native, path, draft, texts, {
        maxConcurrent,
        limits,
        clock,
        warn,
        judge,
        defaults,
      });
      const engine = await abort.race(finished);
      handle = undefined;
      wake = () => engine.#serving.drain();
      // A small model is there before its progress could be told.
      const total = last.total || engine.model.weightBytes;
      if (last.done < total) progress(total, total);
      const { parameters, weights: format, device, isa, threads } = engine.model;
      const seconds = ((performance.now() - began) / 1000).toFixed(2);
      report(
        "info",
        `${path}: ${parameters} parameters in ${format} on ${device} (${isa}, ${threads} threads), ${seconds} s`,
      );
      return engine;
    } catch (error) {
      texts.close(aborted());
      handle?.cancel();
      handle?.promise.then((native) => native.close()).catch(() => {});
      throw isAborted(signal) ? aborted() : wrapError(error);
    } finally {
      abort.end();
    }
  }

  static async #finishLoading(
    native: NativeEngine,
    path: string,
    draft: string,
    texts: Texts,
    settings: ServingSettings,
  ): Promise<Engine> {
    const info = native.info();
    settings.judge.parseRequest({ tokens: [0] }, info, settings.defaults);
    if (info.cardProblem) settings.warn(`${path} is on the CPU, not on a GPU: ${info.cardProblem}`);
    if (info.passedOver) settings.warn(`${path}: ${info.passedOver}`);
    const endTokenIds = Object.freeze(await texts.fit(info)) as number[];
    if (draft) await checkDraft(texts, info, draft);
    if (endTokenIds.length === 0) {
      settings.warn(
        `${path} has no end token, neither for the model nor for the tokenizer: its answers go on to maxTokens`,
      );
    }
    if (texts.tokenBytes) native.setTokenBytes(texts.tokenBytes.bytes, texts.tokenBytes.offsets);
    native.setEndTokens(Int32Array.from(endTokenIds));
    Object.freeze(info.kv);
    const { hasTokenizer, hasTemplate: hasChatTemplate } = texts;
    return new Engine(
      native,
      Object.freeze({ ...info, endTokenIds, path, ...(draft && { draft }), hasTokenizer, hasChatTemplate }),
      texts,
      settings,
    );
  }

  /**
   * Begins a generation, or lets it wait for its turn; it goes on whether or not anyone looks at the run. Returns at once and
   * never throws: errors come from the run's iterator and its `result()`, as an SdarError: `INVALID_OPTION`, `EMPTY_PROMPT`,
   * `TOKEN_OUT_OF_RANGE`, `PROMPT_TOO_LONG`, `CACHE_TOO_SMALL`, `TOKENIZER_MISSING`, `TEMPLATE_MISSING`, `TEMPLATE_FAILED`, `TOKENIZER_INVALID`,
   * `QUEUE_FULL`, `DEADLINE_EXCEEDED`, `READER_STALLED`, `NUMERIC_ERROR`, `OUT_OF_MEMORY`, `DEVICE_FAILED`, `CHECKPOINT_TRUNCATED`,
   * `INTERNAL`, `DISPOSED`.
   *
   * Requests wait for a slot among the `maxConcurrent` that run; a quarter of a second of work beyond those is submitted in
   * advance. Keys (`key`) take turns so that each gets an even share of what is computed; one that had nothing waiting begins
   * with a head start. Within a key the order is that of priority and age, then of arrival.
   */
  generate<Value = unknown>(request: GenerateRequest & { format?: Format<Value> }): Run<Value> {
    const began = this.#clock.now();
    try {
      this.#checkAlive();
      const parsed = this.#judge.parseRequest(request, this.model, this.#defaults);
      const stopNames = this.#texts.stopsAtTokens(parsed.stop);
      const stopTokens = Int32Array.from(new Set([...parsed.native.stopTokens, ...stopNames.keys()]));
      const named = { ...parsed, stopNames, native: { ...parsed.native, stopTokens } };
      const encoded = this.#texts.encode(parsed);
      const prompt = parsed.format || parsed.tools ? this.#forms.add(named, encoded, this.model) : encoded;
      const run = this.#serving.start(named, prompt, began) as Run<Value>;
      const choices = parsed.tools ? undefined : parsed.format?.choices;
      return choices ? this.#scoring.withChoices(run, choices, request, encoded, began) : run;
    } catch (error) {
      return failedRun(wrapError(error)) as Run<Value>;
    }
  }

  /**
   * How probable the model finds a text after a prompt. An autoregressive model's log-probabilities are exact, and the whole text
   * takes a forward or a few. One that denoises blocks gives those of writing the block from left to right, each position with the
   * ones before it in view and the rest masked, at a forward a token: what `sequential` would write has them, and they are
   * those of one distribution over texts, but other orders of filling have others. Rejects as `generate` does, and with
   * `ABORTED`.
   *
   * @example
   * const { logprob } = await engine.score({ prompt: "1 + 1 =", completion: " 2" });
   */
  async score(request: ScoreRequest): Promise<Score> {
    const began = this.#clock.now();
    this.#checkAlive();
    const { request: parsed, completion, endToken } = this.#judge.parseScore(request, this.model);
    const encoded = this.#texts.encode(parsed);
    // Together: one that nobody awaits when the other rejects would end the process.
    const [text, prompt] = await Promise.all([
      completion instanceof Int32Array ? completion : this.#texts.split([completion]).then(({ ids }) => ids),
      encoded instanceof Int32Array ? encoded : encoded.prompt.then(({ tokens }) => tokens),
    ]);
    return this.#scoring.score(parsed, prompt, text, endToken, began);
  }

  /**
   * The ids that a text has as `prompt`, or messages have as `messages`, however many; made on a thread of its own. Rejects
   * with `INVALID_OPTION`, `TOKENIZER_MISSING`, `TEMPLATE_MISSING`, `TEMPLATE_FAILED`, `TOKENIZER_INVALID`, `QUEUE_FULL`,
   * `DISPOSED`, and with `PROMPT_TOO_LONG` for texts of more than 8 million characters.
   *
   * @example
   * const ids = await engine.tokenize("1 + 1 =");
   */
  async tokenize(prompt: string | readonly Message[], options: TokenizeOptions = {}): Promise<Int32Array> {
    this.#checkAlive();
    const { prompt: given, parseSpecial } = this.#judge.parsePrompt(prompt, options);
    return this.#texts.tokenize(given, parseSpecial);
  }

  /**
   * How many tokens `tokenize` gives. Rejects as it does.
   *
   * @example
   * const fits = (await engine.countTokens(messages)) < engine.model.contextLength / 2;
   */
  async countTokens(prompt: string | readonly Message[], options: TokenizeOptions = {}): Promise<number> {
    return (await this.tokenize(prompt, options)).length;
  }

  /**
   * The text of token ids, as in a result: special tokens have none, and what is no character is U+FFFD. Throws
   * `INVALID_OPTION`, `TOKEN_OUT_OF_RANGE`, `TOKENIZER_MISSING`, `DISPOSED`.
   *
   * @example
   * const text = engine.detokenize(ids);
   */
  detokenize(tokens: NonNullable<RequestFields["tokens"]>): string {
    this.#checkAlive();
    return detokenize(this.#judge.parseTokens(tokens, this.model), this.#texts);
  }

  /**
   * What the checkpoint's chat template makes of messages. Rejects as `tokenize` does.
   *
   * @example
   * console.log(await engine.renderMessages([{ role: "user", content: "1 + 1" }]));
   */
  async renderMessages(messages: readonly Message[], options: RenderOptions = {}): Promise<string> {
    this.#checkAlive();
    return this.#texts.render(this.#judge.parseRender(messages, options));
  }

  /**
   * A conversation that keeps what was said. Throws `INVALID_OPTION`, `TOKEN_OUT_OF_RANGE`.
   *
   * @example
   * const chat = engine.chat({ system: "Answer briefly." });
   * console.log(await chat.send("Sort: 92 61 75").text());
   */
  chat(options: ChatOptions = {}): Chat {
    return new Chat(this, this.#judge.parseChat(options, this.model));
  }

  /**
   * A request for each item, so many at a time, and what became of it; an item whose request fails gives its `error` and
   * ends nothing. Leaving the loop aborts what runs. Throws `INVALID_OPTION`; the iterator rejects with `ABORTED`, `DISPOSED`,
   * and what `items` throws.
   *
   * @example
   * for await (const { item, result, error } of engine.map(lines, (prompt) => ({ prompt, maxTokens: 64 })))
   *   console.log(item, result?.text ?? error?.code);
   */
  map<Item>(
    items: Iterable<Item> | AsyncIterable<Item>,
    toRequest: (item: Item, index: number) => GenerateRequest | PromiseLike<GenerateRequest>,
    options: MapOptions = {},
  ): AsyncGenerator<Mapped<Item>, void, undefined> {
    const parsed = this.#judge.parseMap(items, toRequest, options);
    return mapRequests((request) => this.generate(request), items, toRequest, parsed);
  }

  /** Counters since loading, what waits, and rates of the last seconds. Throws DISPOSED after `dispose()`. */
  stats(): EngineStats {
    if (this.#disposal) throw disposed();
    return this.#serving.stats();
  }

  /**
   * Calls `listener` at every event of that name, on this thread, before the run's promises and iterator say the same. What
   * it throws, or rejects with, goes to `log` as a warning and no further. Throws INVALID_OPTION.
   *
   * @example
   * engine.on("finished", ({ id, usage }) => console.log(id, usage.completionTokens), { signal });
   */
  on<Name extends EventName>(name: Name, listener: Listener<Name>, options: ListenerOptions = {}): this {
    return this.#listen(name, listener, options, false);
  }

  /** `on` for the next event of that name alone. */
  once<Name extends EventName>(name: Name, listener: Listener<Name>, options: ListenerOptions = {}): this {
    return this.#listen(name, listener, options, true);
  }

  /** Undoes `on`. */
  off<Name extends EventName>(name: Name, listener: Listener<Name>): this {
    checkListener(name, listener);
    this.#serving.emitter.off(name, listener);
    return this;
  }

  /**
   * Ends everything that waits or runs (it rejects with DISPOSED) and frees the model; resolves when that is done. With
   * `drain`, it first lets all that was accepted come to its end, and only refuses new requests; a call without `drain`
   * cuts that short. May be called again. An engine that is never disposed of keeps its memory until the process ends.
   */
  dispose(options: DisposeOptions = {}): Promise<void> {
    try {
      if (this.#judge.parseDisposeOptions(options).drain && !this.#disposal) return this.#drain();
    } catch (error) {
      return Promise.reject(error);
    }
    if (this.#disposal) return this.#disposal;
    this.#serving.close(disposed());
    this.#texts.close(disposed());
    // What the addon still has to say is taken, or it would keep the process for it.
    this.#disposal = this.#native.close().then(() => this.#serving.drain());
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #drain(): Promise<void> {
    this.#draining ??= this.#serving.empty().then(() => this.dispose());
    return this.#draining;
  }

  #listen<Name extends EventName>(name: Name, listener: Listener<Name>, options: ListenerOptions, once: boolean): this {
    checkListener(name, listener);
    const { signal } = this.#judge.parseListener(options);
    if (!isAborted(signal)) this.#serving.emitter.on(name, listener, { once, until: (end) => onAbort(signal, end) });
    return this;
  }

  #checkAlive(): void {
    if (this.#disposal || this.#draining) throw disposed();
  }
}

/** What Engine.load knows of a Serving before there is an addon. */
interface ServingSettings extends Pick<ServingSetup, "maxConcurrent" | "limits" | "clock" | "warn"> {
  judge: Judge;
  defaults: Defaults;
}

/** What judges options is loaded with the first engine: nobody waits for it who only imports. */
const loadJudge = async () => ({ ...(await import("./options.js")), ...(await import("./tool-options.js")) });
type Judge = Awaited<ReturnType<typeof loadJudge>>;

const disposed = () => new SdarError("DISPOSED", "the engine was disposed of");

function checkListener(name: unknown, listener: unknown): void {
  if (!eventNames.includes(name as EventName)) throw invalidOption("name", name, `one of ${eventNames.join(", ")}`);
  if (typeof listener !== "function") throw invalidOption("listener", listener, "a function");
}
