// sdar-engine/langchain: the engine as a chat model of LangChain, in this process.
import { basename } from "node:path";
import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import type { BaseLanguageModelInput, StructuredOutputMethodOptions } from "@langchain/core/language_models/base";
import {
  BaseChatModel,
  type BaseChatModelCallOptions,
  type BaseChatModelParams,
  type BindToolsInput,
  type LangSmithParams,
} from "@langchain/core/language_models/chat_models";
import {
  assembleStructuredOutputPipeline,
  createContentParser,
} from "@langchain/core/language_models/structured_output";
import type { AIMessageChunk, BaseMessage } from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import type { Runnable } from "@langchain/core/runnables";
import { convertToOpenAITool } from "@langchain/core/utils/function_calling";
import { toJsonSchema } from "@langchain/core/utils/json_schema";
import type { SerializableSchema } from "@langchain/core/utils/standard_schema";
import type { InteropZodType } from "@langchain/core/utils/types";
import type { Engine } from "../engine.js";
import { invalidOption, SdarError } from "../errors.js";
import { isAborted } from "../signals.js";
import type { Format, GenerateRequest, LoadOptions, Run, Tool, ToolChoice } from "../types.js";
import { checkModel, Engines, engineOf, sharedEngines } from "./engines.js";
import { answerOf, chunkOf, lastChunkOf, messagesOf } from "./langchain-messages.js";
import { schemaOf } from "./metadata.js";
import { requestOptions, type SdarOptions } from "./request-options.js";

export type { SdarOptions } from "./request-options.js";

/** What `new ChatSdar` takes. */
export interface ChatSdarFields extends BaseChatModelParams {
  /** a folder or a hub id, loaded by the first call and shared by all models of its name, or an engine */
  model: string | Engine;
  /** Options of `Engine.load`, where `model` is a name. */
  load?: LoadOptions;
  /** as `options.temperature` */
  temperature?: number;
  /** as `options.maxTokens` */
  maxTokens?: number;
  /** Options for all calls. */
  options?: SdarOptions;
}

/** What a call takes besides. */
export interface ChatSdarCallOptions extends BaseChatModelCallOptions {
  tools?: BindToolsInput[];
  /** what the answer must look like; `withStructuredOutput` sets it */
  format?: Format;
  /** Options for this call; they go before those of the model. */
  options?: SdarOptions;
}

/**
 * A chat model of LangChain that generates in this process. Rejects with an SdarError; what says QUEUE_FULL is tried again,
 * `maxRetries` times.
 *
 * @example
 * const model = new ChatSdar({ model: "sdar-nano", maxTokens: 64 });
 * console.log((await model.invoke("31 x 7")).text);
 */
export class ChatSdar extends BaseChatModel<ChatSdarCallOptions, AIMessageChunk> {
  /** name of the model */
  readonly model: string;
  readonly #model: string | Engine;
  readonly #engines: Engines;
  readonly #options: SdarOptions;

  static override lc_name(): string {
    return "ChatSdar";
  }

  constructor(fields: ChatSdarFields) {
    const { model, load, temperature, maxTokens, options, ...params } = fields;
    checkModel("model", model);
    super({ onFailedAttempt: giveUp, ...params });
    this.model = typeof model === "string" ? model : basename(model.model.path);
    this.#model = model;
    this.#engines = load ? new Engines(load) : sharedEngines;
    this.#options = requestOptions("options", { temperature, maxTokens }, options) as SdarOptions;
  }

  override _llmType(): string {
    return "sdar";
  }

  override getLsParams(options: this["ParsedCallOptions"]): LangSmithParams {
    const { temperature, maxTokens } = this.invocationParams(options);
    return {
      ...super.getLsParams(options),
      ls_provider: "sdar",
      ls_model_name: this.model,
      ...(temperature !== undefined && { ls_temperature: temperature }),
      ...(maxTokens !== undefined && { ls_max_tokens: maxTokens }),
    };
  }

  /** The request without its messages. */
  override invocationParams(options: this["ParsedCallOptions"]): Partial<Omit<GenerateRequest, "messages">> {
    const { stop, tools, tool_choice, format } = options;
    const choice = toolChoice(tool_choice);
    return {
      ...requestOptions("options", this.#options, options.options),
      ...(stop?.length && { stop }),
      ...(tools?.length && { tools: tools.map(toolOf) }),
      ...(tools?.length && choice !== undefined && { toolChoice: choice }),
      ...(format !== undefined && { format }),
    } as Partial<GenerateRequest>;
  }

  override bindTools(
    tools: BindToolsInput[],
    options?: Partial<ChatSdarCallOptions>,
  ): Runnable<BaseLanguageModelInput, AIMessageChunk, ChatSdarCallOptions> {
    return this.withConfig({ tools, ...options } as Partial<ChatSdarCallOptions>);
  }

  override withStructuredOutput<Output extends Record<string, unknown>>(
    schema: InteropZodType<Output> | SerializableSchema<Output> | Record<string, unknown>,
    config?: StructuredOutputMethodOptions<false>,
  ): Runnable<BaseLanguageModelInput, Output>;
  override withStructuredOutput<Output extends Record<string, unknown>>(
    schema: InteropZodType<Output> | SerializableSchema<Output> | Record<string, unknown>,
    config?: StructuredOutputMethodOptions<true>,
  ): Runnable<BaseLanguageModelInput, { raw: BaseMessage; parsed: Output }>;
  /** By the engine's `format`: the answer is held to the schema, whatever the model. */
  override withStructuredOutput<Output extends Record<string, unknown>>(
    schema: InteropZodType<Output> | SerializableSchema<Output> | Record<string, unknown>,
    { method, includeRaw, name }: StructuredOutputMethodOptions<boolean> = {},
  ): Runnable<BaseLanguageModelInput, Output> | Runnable<BaseLanguageModelInput, { raw: BaseMessage; parsed: Output }> {
    if (method !== undefined && method !== "jsonSchema")
      throw invalidOption("method", method, '"jsonSchema": the answer itself is held to the schema');
    const json = schemaOf(toJsonSchema(schema as Parameters<typeof toJsonSchema>[0]));
    const llm = this.withConfig({ format: { type: "json_schema", schema: json } } as Partial<ChatSdarCallOptions>);
    const parser = createContentParser<Output>(schema as InteropZodType<Output>);
    return assembleStructuredOutputPipeline<Output>(llm, parser, includeRaw, name ?? "StructuredOutput");
  }

  override async _generate(
    messages: BaseMessage[],
    options: this["ParsedCallOptions"],
    _runManager?: CallbackManagerForLLMRun,
  ): Promise<ChatResult> {
    const run = await this.#start(messages, options);
    const result = await run.result();
    throwIfAborted(options.signal);
    const message = answerOf(result, this.model);
    return { generations: [{ text: result.text, message }], llmOutput: { tokenUsage: tokenUsage(message) } };
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const run = await this.#start(messages, options);
    let calls = 0;
    for await (const chunk of run) {
      throwIfAborted(options.signal);
      const message = chunkOf(chunk, calls);
      calls += chunk.toolCalls?.length ?? 0;
      if (!message) continue;
      const generation = new ChatGenerationChunk({ message, text: chunk.text });
      yield generation;
      const at = { prompt: 0, completion: 0 };
      await runManager?.handleLLMNewToken(chunk.text, at, undefined, undefined, undefined, { chunk: generation });
    }
    throwIfAborted(options.signal);
    yield new ChatGenerationChunk({ message: lastChunkOf(await run.result(), this.model), text: "" });
  }

  /** A run that the queue has taken. */
  async #start(messages: BaseMessage[], options: this["ParsedCallOptions"]): Promise<Run> {
    const { signal } = options;
    throwIfAborted(signal);
    const request = { ...this.invocationParams(options), messages: messagesOf(messages), ...(signal && { signal }) };
    try {
      const engine = await engineOf(this.#model, this.#engines, signal);
      return await this.caller.call(async () => {
        const run = engine.generate(request as GenerateRequest);
        await run.started;
        return run;
      });
    } catch (error) {
      throwIfAborted(signal);
      throw error;
    }
  }
}

/** What would be refused again is not tried again. */
function giveUp(error: unknown): void {
  if (!SdarError.is(error, "QUEUE_FULL")) throw error;
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (isAborted(signal)) throw signal?.reason;
}

function tokenUsage({ usage_metadata: usage }: ReturnType<typeof answerOf>) {
  return {
    promptTokens: usage?.input_tokens,
    completionTokens: usage?.output_tokens,
    totalTokens: usage?.total_tokens,
  };
}

/** OpenAI's form, and the engine's own, stay as they are; the rest LangChain turns into OpenAI's. */
function toolOf(tool: BindToolsInput): Tool {
  const converted = convertToOpenAITool(tool as Parameters<typeof convertToOpenAITool>[0]) as unknown as Tool;
  const { parameters, ...named } = "function" in converted ? converted.function : converted;
  return { ...named, ...(parameters && { parameters: schemaOf(parameters) }) };
}

function toolChoice(given: unknown): ToolChoice | undefined {
  if (given === "any") return "required";
  if (typeof given !== "string") return given as ToolChoice | undefined;
  return given === "auto" || given === "none" || given === "required" ? given : { name: given };
}
