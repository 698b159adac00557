// sdar-engine/ai-sdk: the engine as a language model of the AI SDK (package `ai`), in this process.
import { basename } from "node:path";
import {
  type LanguageModelV3,
  type LanguageModelV3CallOptions,
  type LanguageModelV3GenerateResult,
  type LanguageModelV3StreamPart,
  type LanguageModelV3StreamResult,
  NoSuchModelError,
  type ProviderV3,
  type SharedV3Warning,
} from "@ai-sdk/provider";
import type { Engine } from "../engine.js";
import { SdarError } from "../errors.js";
import { isAborted } from "../signals.js";
import type { LoadOptions, Run } from "../types.js";
import { abortError, callError } from "./ai-sdk-errors.js";
import { contentOf, failure, finishOf, partsOf, providerMetadata, responseOf, usageOf } from "./ai-sdk-parts.js";
import { requestOf } from "./ai-sdk-prompt.js";
import { checkModel, Engines, engineOf, sharedEngines } from "./engines.js";
import { requestOptions, type SdarOptions } from "./request-options.js";

export type { SdarOptions } from "./request-options.js";

/** What `createSdar` takes. */
export interface SdarProviderSettings {
  /** Options of `Engine.load` for models that are named by a path. */
  load?: LoadOptions;
  /** Options for all calls; those of a model, and `providerOptions.sdar` of a call, go before them. */
  options?: SdarOptions;
}

/** Makes models: `sdar(pathOrEngine, options)`. */
export interface SdarProvider extends ProviderV3 {
  /** @param model a folder or a hub id, loaded by the first call and shared by all models of its name, or an engine */
  (model: string | Engine, options?: SdarOptions): LanguageModelV3;
  languageModel(model: string | Engine, options?: SdarOptions): LanguageModelV3;
  /** Frees the models that were loaded by path. Engines that were given stay. */
  dispose(): Promise<void>;
}

/**
 * A provider for the AI SDK. Its models generate in this process: no server, no keys. Calls reject with an APICallError
 * whose `cause` is the SdarError, and which the SDK retries where it says QUEUE_FULL.
 *
 * @example
 * const sdar = createSdar({ load: { weights: "int8" } });
 * const { text } = await generateText({ model: sdar("sdar-nano"), prompt: "31 x 7" });
 */
export function createSdar(settings: SdarProviderSettings = {}): SdarProvider {
  const engines = settings.load ? new Engines(settings.load) : sharedEngines;
  const languageModel = (model: string | Engine, options?: SdarOptions) => {
    checkModel("model", model);
    return new SdarLanguageModel(model, engines, requestOptions("options", settings.options, options));
  };
  const none = (modelType: "embeddingModel" | "imageModel") => (modelId: string) => {
    throw new NoSuchModelError({ modelId, modelType });
  };
  return Object.assign(languageModel, {
    specificationVersion: "v3" as const,
    languageModel,
    embeddingModel: none("embeddingModel"),
    imageModel: none("imageModel"),
    dispose: () => engines.dispose(),
  });
}

/** The provider with defaults. */
export const sdar: SdarProvider = createSdar();

class SdarLanguageModel implements LanguageModelV3 {
  readonly specificationVersion = "v3";
  readonly provider = "sdar";
  readonly modelId: string;
  readonly supportedUrls = {};
  readonly #model: string | Engine;
  readonly #engines: Engines;
  readonly #options: object;

  constructor(model: string | Engine, engines: Engines, options: object) {
    this.modelId = typeof model === "string" ? model : basename(model.model.path);
    this.#model = model;
    this.#engines = engines;
    this.#options = options;
  }

  async doGenerate(call: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    const { run, warnings } = await this.#start(call);
    const result = await run.result().catch((error) => this.#fail(error, call));
    if (isAborted(call.abortSignal)) throw abortError(call.abortSignal);
    return {
      content: contentOf(result),
      finishReason: finishOf(result),
      usage: usageOf(result),
      providerMetadata: providerMetadata(result),
      response: responseOf(this.modelId),
      warnings,
    };
  }

  async doStream(call: LanguageModelV3CallOptions): Promise<LanguageModelV3StreamResult> {
    const { run, warnings } = await this.#start(call);
    // What is refused is refused here, where the SDK tries again.
    await run.started.catch((error) => this.#fail(error, call));
    const parts = partsOf(run, { modelId: this.modelId, warnings, raw: call.includeRawChunks === true });
    const stream = new ReadableStream<LanguageModelV3StreamPart>(
      {
        pull: async (controller) => {
          try {
            const { done, value } = await parts.next();
            if (isAborted(call.abortSignal)) throw abortError(call.abortSignal);
            if (done) controller.close();
            else controller.enqueue(value);
          } catch (error) {
            if (isAborted(call.abortSignal)) throw abortError(call.abortSignal);
            for (const part of failure(this.#told(error, call))) controller.enqueue(part);
            controller.close();
          }
        },
        cancel: () => run.abort(),
      },
      { highWaterMark: 0 },
    );
    return { stream };
  }

  async #start(call: LanguageModelV3CallOptions): Promise<{ run: Run; warnings: SharedV3Warning[] }> {
    try {
      const { request, warnings } = requestOf(call, this.#options);
      const engine = await engineOf(this.#model, this.#engines, call.abortSignal);
      return { run: engine.generate(request), warnings };
    } catch (error) {
      // The SDK's own errors say what of a prompt cannot be read.
      if (!SdarError.is(error)) throw error;
      return this.#fail(error, call);
    }
  }

  #fail(error: unknown, call: LanguageModelV3CallOptions): never {
    if (isAborted(call.abortSignal)) throw abortError(call.abortSignal);
    throw this.#told(error, call);
  }

  #told(error: unknown, { prompt: _, abortSignal: __, headers: ___, ...settings }: LanguageModelV3CallOptions): Error {
    return callError(error, this.modelId, settings);
  }
}
