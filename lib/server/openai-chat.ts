// POST /v1/chat/completions
import { randomUUID } from "node:crypto";
import { z } from "zod";
import type { GenerateRequest } from "../request.js";
import type { Answer, Chunk, GenerateResult, Token, ToolCall } from "../types.js";
import { openaiErrors } from "./openai-errors.js";
import {
  given,
  onlyFormat,
  optional,
  paramOf,
  refuseUnsupported,
  sharedFields,
  sharedOptions,
  sharedUnsupported,
} from "./openai-fields.js";
import { messagesField, messagesOf, toolFields, toolsOf } from "./openai-messages.js";
import {
  answersOf,
  chatLogprob,
  finishOf,
  lastEvents,
  sdarChoice,
  sdarUsage,
  TokenTexts,
  usageOf,
} from "./openai-results.js";
import { badField } from "./problem.js";
import type { Endpoint, ServerEvent, StreamTranslator, Translation, TranslationContext } from "./protocol.js";
import { formatsOf, responseFormat, structuredFields } from "./structured.js";

const chatSchema = z.object({
  messages: messagesField,
  ...sharedFields,
  ...toolFields,
  response_format: responseFormat,
  ...structuredFields,
  max_completion_tokens: optional(z.int({ error: "give a whole number" })),
  max_tokens: optional(z.int({ error: "give a whole number" })),
  logprobs: optional(z.boolean()),
  top_logprobs: optional(z.int({ error: "give a whole number" })),
  reasoning_effort: optional(z.string()).describe("none turns thinking off where the chat template can"),
  chat_template_kwargs: optional(z.record(z.string(), z.unknown())),
  add_generation_prompt: optional(z.boolean()),
  continue_final_message: optional(z.boolean()),
});
type ChatBody = z.infer<typeof chatSchema>;

const unsupported = {
  ...sharedUnsupported,
  functions: [[]],
  function_call: ["none", "auto"],
  audio: [],
  modalities: [["text"]],
  echo: [false],
  chat_template: [],
  documents: [[]],
};

export const chatCompletions: Endpoint<ChatBody> = {
  path: "/v1/chat/completions",
  summary: "Answers a conversation",
  schema: chatSchema,
  errors: openaiErrors,
  translate(body, context, raw) {
    refuseUnsupported(raw, unsupported);
    const formats = onlyFormat(formatsOf(body));
    if (typeof body.top_logprobs === "number" && body.top_logprobs > 0 && !body.logprobs)
      throw badField("top_logprobs", "top_logprobs: only together with logprobs");
    const request = {
      ...sharedOptions(body),
      ...toolsOf(body),
      ...given({
        messages: messagesOf(body.messages),
        maxTokens: body.max_completion_tokens ?? body.max_tokens,
        topLogprobs: body.logprobs ? body.top_logprobs : undefined,
        templateOptions: templateOptionsOf(body),
        continueFinalMessage: continued(body),
        format: formats?.format,
      }),
    } as GenerateRequest; // what excludes each other is refused by the engine
    return new ChatTranslation(body, context, request, formats?.field);
  },
};

function templateOptionsOf({ reasoning_effort: effort, chat_template_kwargs: kwargs }: ChatBody) {
  // Names that one template or another knows; others pass over them.
  const thinking = effort ? { reasoning_effort: effort, enable_thinking: effort !== "none" } : undefined;
  return thinking || kwargs ? { ...thinking, ...kwargs } : undefined;
}

function continued({ continue_final_message: goesOn, add_generation_prompt: asks }: ChatBody): boolean | undefined {
  if (goesOn) return true;
  if (asks === false) throw badField("add_generation_prompt", "false is not supported but with continue_final_message");
  return undefined;
}

class ChatTranslation implements Translation {
  readonly #body: ChatBody;
  readonly #context: TranslationContext;
  readonly #id = `chatcmpl-${randomUUID().replaceAll("-", "")}`;
  readonly #texts: TokenTexts;
  readonly requests: GenerateRequest[];
  readonly stream: boolean;
  readonly #fields: Record<string, string>;

  constructor(body: ChatBody, context: TranslationContext, request: GenerateRequest, formatField: string | undefined) {
    this.#body = body;
    this.#context = context;
    this.#texts = new TokenTexts(context.engine);
    this.requests = [request];
    this.stream = body.stream ?? false;
    this.#fields = {
      maxTokens: typeof body.max_completion_tokens === "number" ? "max_completion_tokens" : "max_tokens",
      prompt: "messages",
      ...(formatField !== undefined && { format: formatField }),
    };
  }

  paramOf(option: string): string {
    return paramOf(option, this.#fields);
  }

  answer([result]: [GenerateResult]): object {
    return {
      ...this.#head("chat.completion"),
      choices: answersOf(result).map((answer, index) => ({
        index,
        message: messageOf(answer),
        logprobs: this.logprobs(answer.tokens),
        finish_reason: chatFinish(answer),
        stop_reason: answer.stopMatched ?? null,
        ...sdarChoice(this.#body.sdar, { tokens: answer.tokens }),
      })),
      usage: usageOf([result]),
      ...sdarUsage(this.#body.sdar, [result]),
    };
  }

  events(): StreamTranslator {
    return new ChatStream(this, this.#body);
  }

  chunk(fields: object): ServerEvent {
    return { data: { ...this.#head("chat.completion.chunk"), ...fields } };
  }

  /** null where they were not asked for */
  logprobs(tokens: readonly Token[]): object | null {
    if (!this.#body.logprobs) return null;
    const told = tokens.filter((token) => !this.#texts.ends(token));
    return { content: told.map((token) => chatLogprob(token, this.#texts)), refusal: null };
  }

  #head(object: string) {
    const { created, model } = this.#context;
    return { id: this.#id, object, created, model };
  }
}

const wrapped = ({ id, name, arguments: args }: ToolCall) => ({
  id,
  type: "function",
  function: { name, arguments: args },
});

function messageOf({ text, reasoning, toolCalls }: Answer): object {
  return {
    role: "assistant",
    content: text === "" && toolCalls ? null : text,
    refusal: null,
    ...(reasoning !== undefined && { reasoning_content: reasoning }),
    ...(toolCalls && { tool_calls: toolCalls.map(wrapped) }),
  };
}

const chatFinish = (answer: Answer): string => (answer.toolCalls ? "tool_calls" : finishOf(answer));

/** What one choice has told so far. */
interface Told {
  calls: number;
  /** what stands around the text in an event that has nothing else */
  frame: [before: string, after: string] | undefined;
  /** whose log-probabilities were not told yet */
  tokens: Token[];
}

class ChatStream implements StreamTranslator {
  readonly #of: ChatTranslation;
  readonly #body: ChatBody;
  readonly #told: Told[];
  readonly #usage: boolean;

  constructor(of: ChatTranslation, body: ChatBody) {
    this.#of = of;
    this.#body = body;
    this.#told = Array.from({ length: body.n ?? 1 }, () => ({ calls: 0, frame: undefined, tokens: [] }));
    this.#usage = body.stream_options?.include_usage ?? false;
  }

  begin(): ServerEvent[] {
    return this.#told.map((_, index) => this.#delta(index, { role: "assistant", content: "" }));
  }

  chunk(chunk: Chunk): ServerEvent[] {
    const { answer: index, text, reasoning, toolCalls = [], tokens, draft } = chunk;
    const told = this.#told[index] as Told;
    const { logprobs, sdar } = this.#body;
    if (!logprobs && !sdar && reasoning === undefined && toolCalls.length === 0 && text !== "")
      return [this.#text(index, text)];
    if (logprobs) told.tokens.push(...tokens);
    const deltas: object[] = [];
    if (reasoning !== undefined) deltas.push({ reasoning_content: reasoning });
    if (text !== "") deltas.push({ content: text });
    for (const call of toolCalls) {
      const { function: made, ...rest } = wrapped(call);
      const at = told.calls++;
      deltas.push({ tool_calls: [{ index: at, ...rest, function: { name: made.name, arguments: "" } }] });
      deltas.push({ tool_calls: [{ index: at, function: { arguments: made.arguments } }] });
    }
    // The engine's own may have no text beside them.
    const own = sdarChoice(sdar, { tokens, ...(draft && { draft }) });
    if (deltas.length === 0 && Object.keys(own).length > 0) deltas.push({});
    return deltas.map((delta, i) => this.#delta(index, delta, i === 0 ? { ...this.#logprobs(told), ...own } : {}));
  }

  ended(result: GenerateResult): ServerEvent[] {
    return answersOf(result).flatMap((answer, index) => {
      const told = this.#told[index] as Told;
      const rest = this.#logprobs(told);
      const finish = { finish_reason: chatFinish(answer), stop_reason: answer.stopMatched ?? null };
      return [
        ...(Object.keys(rest).length > 0 ? [this.#delta(index, { content: "" }, rest)] : []),
        this.#delta(index, {}, finish),
      ];
    });
  }

  done(results: GenerateResult[]): ServerEvent[] {
    return lastEvents(this.#body, results, (fields) => this.#of.chunk(fields));
  }

  /** Most of what a stream says: only the text is written as JSON each time. */
  #text(index: number, text: string): ServerEvent {
    const told = this.#told[index] as Told;
    const empty = '"content":""'; // with these quotes no part of a string
    told.frame ??= JSON.stringify(this.#delta(index, { content: "" }).data).split(empty) as [string, string];
    const [before, after] = told.frame;
    return { data: `${before}"content":${JSON.stringify(text)}${after}` };
  }

  /** Of the tokens since the last call; nothing where there are none to tell. */
  #logprobs(told: Told): object {
    const tokens = told.tokens.splice(0);
    const logprobs = this.#of.logprobs(tokens) as { content: unknown[] } | null;
    return logprobs && logprobs.content.length > 0 ? { logprobs } : {};
  }

  #delta(index: number, delta: object, more: object = {}): ServerEvent {
    return this.#of.chunk({
      choices: [{ index, delta, logprobs: null, finish_reason: null, ...more }],
      ...(this.#usage && { usage: null }),
    });
  }
}
