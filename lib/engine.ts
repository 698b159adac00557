// The engine as users see it: loads a checkpoint, turns requests into runs, hands events to them.
import { join } from "node:path";
import { type Binding, eventKind, loadBinding, type NativeEngine, readEvents, type WeightFormat } from "./binding.js";
import { findCheckpoint, readJson } from "./checkpoint.js";
import { invalidOption, SdarError, wrapError } from "./errors.js";
import { checkPromptLength, type ParsedRequest, parseLoadOptions, parseRequest } from "./options.js";
import { RunState } from "./stream.js";
import { ChatTemplate } from "./template.js";
import { type TokenBytes, Tokenizer } from "./tokenizer.js";
import type { EngineStats, GenerateRequest, LoadOptions, ModelInfo, Run } from "./types.js";

/** How prompts become tokens and tokens become text; each part may be missing. */
interface TextParts {
  tokenizer: Tokenizer | undefined;
  template: ChatTemplate | undefined;
  tokenBytes?: TokenBytes;
}

/** A loaded checkpoint that generates for any number of requests at once, on a thread of its own. */
export class Engine {
  /** what is loaded */
  readonly model: ModelInfo;
  readonly #native: NativeEngine;
  readonly #parts: TextParts;
  readonly #runs = new Map<number, RunState>();
  #nextId = 1;
  #disposal: Promise<void> | undefined;

  private constructor(native: NativeEngine, model: ModelInfo, parts: TextParts) {
    this.#native = native;
    this.model = model;
    this.#parts = parts;
  }

  /**
   * Loads a checkpoint in the Hugging Face layout, off this thread.
   *
   * @param pathOrId a folder; `"sdar-nano"`, the model that ships with this package; or a hub id such as
   *   `"JetLM/SDAR-1.7B-Chat"`, looked up in the local Hugging Face cache (nothing is ever downloaded)
   * @throws SdarError, as rejection: `INVALID_OPTION`, `UNSUPPORTED_DEVICE`, `MODEL_NOT_FOUND`, `NATIVE_MISSING`, `ABORTED`,
   *   or what is wrong with the checkpoint: `FILE_NOT_FOUND`, `FILE_UNREADABLE`, `CHECKPOINT_INVALID`,
   *   `CHECKPOINT_TRUNCATED`, `CONFIG_INVALID`, `UNSUPPORTED_MODEL`, `TOKENIZER_INVALID`, `UNSUPPORTED_TOKENIZER`,
   *   `TEMPLATE_FAILED`, `OUT_OF_MEMORY`
   */
  static load(pathOrId: string, options?: LoadOptions): Promise<Engine> {
    return Engine.loadWith(loadBinding, pathOrId, options);
  }

  /** @internal `load` with another addon, for tests. */
  static async loadWith(getBinding: () => Binding, pathOrId: string, options: LoadOptions = {}): Promise<Engine> {
    const { native: settings, weights, onProgress, signal, log } = parseLoadOptions(options);
    if (typeof pathOrId !== "string" || pathOrId === "")
      throw invalidOption("pathOrId", pathOrId, "a folder or a hub id");
    const path = findCheckpoint(pathOrId);
    const aborted = () => new SdarError("ABORTED", "loading was aborted", { cause: signal?.reason });
    if (signal?.aborted) throw aborted();

    const began = performance.now();
    let wake = () => {};
    const report: typeof log = (level, message) => {
      try {
        log(level, message);
      } catch {
        // A log that fails has nowhere to say so.
      }
    };
    let last = { done: 0, total: 0 };
    const progress = (done: number, total: number) => {
      last = { done, total };
      try {
        onProgress?.({ done, total });
      } catch (error) {
        report("warn", `onProgress threw: ${error}`);
      }
    };
    let handle: ReturnType<Binding["load"]> | undefined;
    const cancel = () => handle?.cancel();
    try {
      const request = { ...settings, path, weights: weights === "auto" ? ownPrecision(path) : weights };
      handle = getBinding().load(request, progress, () => wake());
      signal?.addEventListener("abort", cancel, { once: true });
      // Read while the weights are.
      const parts = loadTextParts(path);
      const native = await handle.promise;
      handle = undefined;
      const engine = await Engine.#finishLoading(native, path, parts);
      wake = () => engine.#drain();
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
      handle?.cancel();
      handle?.promise.then((native) => native.close()).catch(() => {});
      throw signal?.aborted ? aborted() : wrapError(error);
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  static async #finishLoading(native: NativeEngine, path: string, parts: TextParts): Promise<Engine> {
    try {
      const info = native.info();
      if (parts.tokenizer) {
        parts.tokenBytes = parts.tokenizer.tokenBytes(info.vocabSize);
        native.setTokenBytes(parts.tokenBytes.bytes, parts.tokenBytes.offsets);
      }
      const has = { hasTokenizer: parts.tokenizer !== undefined, hasChatTemplate: parts.template !== undefined };
      return new Engine(native, Object.freeze({ ...info, path, ...has }), parts);
    } catch (error) {
      await native.close();
      throw error;
    }
  }

  /**
   * Begins a generation; it goes on whether or not anyone looks at the run. Never throws: errors come from the run's
   * iterator and its `result()`, as an SdarError: `INVALID_OPTION`, `EMPTY_PROMPT`, `TOKEN_OUT_OF_RANGE`,
   * `PROMPT_TOO_LONG`, `CACHE_TOO_SMALL`, `TOKENIZER_MISSING`, `TEMPLATE_MISSING`, `TEMPLATE_FAILED`, `NUMERIC_ERROR`,
   * `OUT_OF_MEMORY`, `DISPOSED`.
   */
  generate(request: GenerateRequest): Run {
    try {
      this.#checkAlive();
      const parsed = parseRequest(request, this.model);
      const tokens = this.#promptTokens(parsed.prompt);
      checkPromptLength(tokens.length, parsed.native.blockLength, this.model);
      return this.#start(parsed, tokens);
    } catch (error) {
      return RunState.failed(wrapError(error));
    }
  }

  #start(parsed: ParsedRequest, tokens: Int32Array): RunState {
    const id = this.#nextId++;
    const run = new RunState({
      ...parsed,
      tokenBytes: this.#parts.tokenBytes,
      promptTokens: tokens.length,
      stopTokens: parsed.native.stopTokens,
      onAbort: () => this.#native.abort(id),
      onSettled: () => this.#runs.delete(id),
    });
    if (parsed.signal?.aborted) {
      run.abortUnstarted();
      return run;
    }
    this.#runs.set(id, run);
    try {
      this.#native.submit({ ...parsed.native, id, tokens });
    } catch (error) {
      run.fail(wrapError(error));
    }
    return run;
  }

  #promptTokens(prompt: ParsedRequest["prompt"]): Int32Array {
    if (prompt instanceof Int32Array) return prompt;
    const { tokenizer, template } = this.#parts;
    const missing = (what: string, option: string) => `${this.model.path} has no ${what}; give ${option} instead`;
    if (!tokenizer) throw new SdarError("TOKENIZER_MISSING", missing("tokenizer.json", "tokens"));
    if (typeof prompt === "string") return tokenizer.encode(prompt, true);
    if (!template) throw new SdarError("TEMPLATE_MISSING", missing("chat template", "prompt or tokens"));
    // The template writes the special tokens itself.
    return tokenizer.encode(template.render(prompt), false);
  }

  /** Counters since loading. Throws DISPOSED after `dispose()`. */
  stats(): EngineStats {
    this.#checkAlive();
    return this.#native.stats();
  }

  /**
   * Ends everything that runs (it rejects with DISPOSED) and frees the model; resolves when that is done. May be called
   * again. An engine that is never disposed of keeps its memory until the process ends.
   */
  dispose(): Promise<void> {
    if (this.#disposal) return this.#disposal;
    for (const run of [...this.#runs.values()]) run.fail(disposed());
    // What the addon still has to say is taken, or it would keep the process for it.
    this.#disposal = this.#native.close().then(() => this.#drain());
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #checkAlive(): void {
    if (this.#disposal) throw disposed();
  }

  #drain(): void {
    const { records, errors } = this.#native.takeEvents();
    for (const { kind, request, values } of readEvents(records)) {
      const run = this.#runs.get(request);
      if (!run) continue;
      if (kind === eventKind.tokens) run.tokens(values);
      else if (kind === eventKind.draft) run.draft(values);
      else if (kind === eventKind.finished) run.finish(values);
      else if (kind === eventKind.failed) run.fail(wrapNative(errors[values[0] ?? 0]));
    }
  }
}

const disposed = () => new SdarError("DISPOSED", "the engine was disposed of");

function wrapNative(failure: { code: string; message: string } | undefined): SdarError {
  return wrapError(Object.assign(new Error(failure?.message), { code: failure?.code }));
}

/** What `weights: "auto"` means for a checkpoint. The addon reports what is wrong with config.json. */
function ownPrecision(path: string): WeightFormat {
  const config = readJson(join(path, "config.json"), "CONFIG_INVALID");
  return (config?.torch_dtype ?? config?.dtype) === "float32" ? "f32" : "bf16";
}

function loadTextParts(path: string): TextParts {
  const config = readJson(join(path, "tokenizer_config.json"), "TOKENIZER_INVALID") ?? {};
  const tokenizer = Tokenizer.load(path, config);
  return { tokenizer, template: tokenizer && ChatTemplate.load(path, config) };
}
