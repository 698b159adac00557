// POST /v1/messages and /v1/messages/count_tokens
import { randomUUID } from "node:crypto";
import type { GenerateRequest } from "../request.js";
import type { Answer, Chunk, Draft, GenerateResult, ToolCall, Usage } from "../types.js";
import { anthropicErrors } from "./anthropic-errors.js";
import {
  countSchema,
  fieldOf,
  type MessagesBody,
  messagesSchema,
  type Origins,
  optionsOf,
  promptOf,
} from "./anthropic-fields.js";
import type { ServedModel } from "./models.js";
import { sdarChoice, sdarUsage } from "./openai-results.js";
import { ApiError, parseBody, problemOf } from "./problem.js";
import type { Endpoint, ServerEvent, StreamTranslator, Translation, TranslationContext } from "./protocol.js";

/** What is said while there is nothing to say. */
const ping: ServerEvent = { event: "ping", data: { type: "ping" } };

export const anthropicMessages: Endpoint<MessagesBody> = {
  path: "/v1/messages",
  summary: "Answers a conversation, in Anthropic's form",
  schema: messagesSchema,
  errors: anthropicErrors,
  heartbeat: ping,
  translate(body, context) {
    const { fields, origins } = promptOf(body);
    // What excludes each other is refused by the engine.
    const request = { ...optionsOf(body), ...fields } as GenerateRequest;
    return new MessagesTranslation(body, context, request, origins);
  },
};

/** How many tokens the same body has as a prompt. */
export const countTokens = {
  path: "/v1/messages/count_tokens",
  summary: "Counts the tokens of a conversation, in Anthropic's form",
  schema: countSchema,
  errors: anthropicErrors,
  async answer(raw: unknown, find: (model: string | null | undefined) => ServedModel): Promise<object> {
    const body = parseBody(countSchema, raw);
    const { fields, origins } = promptOf(body);
    const { engine } = find(body.model);
    const { messages, toolChoice, parallelToolCalls, ...options } = fields;
    try {
      return { input_tokens: await engine.countTokens(messages, options) };
    } catch (cause) {
      const { status, message, ...details } = problemOf(cause, (option) => fieldOf(option, origins));
      throw new ApiError(status, message, { ...details, cause });
    }
  },
};

class MessagesTranslation implements Translation {
  readonly #body: MessagesBody;
  readonly #model: string;
  readonly #id = `msg_${randomUUID().replaceAll("-", "")}`;
  readonly #origins: Origins;
  readonly requests: GenerateRequest[];
  readonly stream: boolean;

  constructor(body: MessagesBody, { model }: TranslationContext, request: GenerateRequest, origins: Origins) {
    this.#body = body;
    this.#model = model;
    this.#origins = origins;
    this.requests = [request];
    this.stream = body.stream ?? false;
  }

  paramOf(option: string): string {
    return fieldOf(option, this.#origins);
  }

  answer([result]: [GenerateResult]): object {
    const { text, reasoning, toolCalls = [] } = result;
    const content = [
      ...(reasoning === undefined ? [] : [{ type: "thinking", thinking: reasoning, signature: "" }]),
      ...(text === "" ? [] : [{ type: "text", text }]),
      ...toolCalls.map((call) => ({ ...toolUse(call), input: call.value })),
    ];
    return {
      ...this.message(content, usageOf(result.usage)),
      ...stopOf(result),
      ...sdarUsage(this.#body.sdar, [result]),
      ...sdarChoice(this.#body.sdar, { tokens: result.tokens }),
    };
  }

  message(content: object[], usage: object): object {
    const head = { id: this.#id, type: "message", role: "assistant", model: this.#model };
    return { ...head, content, stop_reason: null, stop_sequence: null, usage };
  }

  events(): StreamTranslator {
    return new MessagesStream(this, this.#body);
  }
}

const toolUse = ({ id, name }: ToolCall) => ({ type: "tool_use", id: id.replace(/^call_/, "toolu_"), name });

/** Those that were found in the cache are none of `input_tokens` there. */
const usageOf = ({ promptTokens, cachedTokens, completionTokens }: Usage) => ({
  input_tokens: promptTokens - cachedTokens,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: cachedTokens,
  output_tokens: completionTokens,
});

/** An abort has no name there, and reaches nobody: who aborts does not read on. */
function stopOf({ finishReason, stopMatched, toolCalls }: Answer): object {
  const sequence = finishReason === "stop" && typeof stopMatched === "string" ? stopMatched : null;
  const reason =
    sequence !== null
      ? "stop_sequence"
      : finishReason === "length"
        ? "max_tokens"
        : toolCalls
          ? "tool_use"
          : "end_turn";
  return { stop_reason: reason, stop_sequence: sequence };
}

/** How many tokens the prompt has, told by the block that begins with the last of them. */
const promptOfDraft = ({ position, tokens }: Draft): number =>
  position + tokens.filter((token) => token?.step === null).length;

const event = (type: string, fields: object): ServerEvent => ({ event: type, data: { type, ...fields } });

class MessagesStream implements StreamTranslator {
  readonly #of: MessagesTranslation;
  readonly #sdar: MessagesBody["sdar"];
  /** the block that takes what comes */
  #open: "thinking" | "text" | undefined;
  #index = -1;
  #started = false;

  constructor(of: MessagesTranslation, { sdar }: MessagesBody) {
    this.#of = of;
    this.#sdar = sdar;
  }

  /** How many tokens the prompt has is known with the first that follows it. */
  begin(): ServerEvent[] {
    return [ping];
  }

  chunk({ text, reasoning, toolCalls = [], tokens, draft }: Chunk): ServerEvent[] {
    const events: ServerEvent[] = [];
    const prompt = tokens[0]?.position ?? (draft && promptOfDraft(draft));
    if (prompt !== undefined) events.push(...this.#start(prompt));
    const own = sdarChoice(this.#sdar, { tokens, ...(draft && { draft }) });
    if (Object.keys(own).length > 0) events.push(event("sdar", own));
    if (reasoning !== undefined) events.push(...this.#delta("thinking", reasoning));
    if (text !== "") events.push(...this.#delta("text", text));
    for (const call of toolCalls) {
      events.push(...this.#begin({ ...toolUse(call), input: {} }));
      events.push(this.#deltaEvent({ type: "input_json_delta", partial_json: call.arguments }));
      events.push(this.#stopEvent());
    }
    return events;
  }

  ended(result: GenerateResult): ServerEvent[] {
    const { usage } = result;
    return [
      ...this.#start(usage.promptTokens),
      ...this.#close(),
      event("message_delta", {
        delta: stopOf(result),
        usage: usageOf(usage),
        ...sdarUsage(this.#sdar, [result]),
      }),
      event("message_stop", {}),
    ];
  }

  done(): ServerEvent[] {
    return [];
  }

  #start(promptTokens: number): ServerEvent[] {
    if (this.#started) return [];
    this.#started = true;
    const usage = usageOf({ promptTokens, cachedTokens: 0, completionTokens: 0, forwards: 0, tokensPerForward: 0 });
    return [event("message_start", { message: this.#of.message([], usage) }), ping];
  }

  #delta(kind: "thinking" | "text", piece: string): ServerEvent[] {
    const empty = kind === "text" ? { type: kind, text: "" } : { type: kind, thinking: "", signature: "" };
    const events = this.#open === kind ? [] : this.#begin(empty);
    this.#open = kind;
    return [...events, this.#deltaEvent({ type: `${kind}_delta`, [kind]: piece })];
  }

  #begin(block: object): ServerEvent[] {
    const events = this.#close();
    this.#index++;
    return [...events, event("content_block_start", { index: this.#index, content_block: block })];
  }

  #close(): ServerEvent[] {
    const open = this.#open;
    this.#open = undefined;
    if (!open) return [];
    // Some clients keep no thinking without one.
    const signature = this.#deltaEvent({ type: "signature_delta", signature: "" });
    return [...(open === "thinking" ? [signature] : []), this.#stopEvent()];
  }

  #deltaEvent(delta: object): ServerEvent {
    return event("content_block_delta", { index: this.#index, delta });
  }

  #stopEvent(): ServerEvent {
    return event("content_block_stop", { index: this.#index });
  }
}
