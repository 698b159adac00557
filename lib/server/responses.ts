// POST /v1/responses
import { randomUUID } from "node:crypto";
import { marks } from "../answer-parts.js";
import type { GenerateRequest } from "../request.js";
import type { Answer, Chunk, GenerateResult, Token } from "../types.js";
import { openaiErrors } from "./openai-errors.js";
import { refuseUnsupported } from "./openai-fields.js";
import { chatLogprob, sdarChoice, sdarUsage, TokenTexts } from "./openai-results.js";
import { badField, type Problem } from "./problem.js";
import type { Endpoint, ServerEvent, StreamTranslator, Translation, TranslationContext } from "./protocol.js";
import {
  fieldOf,
  type Origins,
  type ResponsesBody,
  requestOf,
  responsesSchema,
  unsupported,
  wantsLogprobs,
} from "./responses-input.js";
import { type ItemEvent, OutputItems } from "./responses-output.js";

export const responses: Endpoint<ResponsesBody> = {
  path: "/v1/responses",
  summary: "Answers a conversation, in the form of OpenAI's Responses API",
  schema: responsesSchema,
  errors: openaiErrors,
  translate(body, context, raw) {
    refuseUnsupported(raw, unsupported);
    if (body.top_logprobs && !wantsLogprobs(body))
      throw badField("top_logprobs", "top_logprobs: only with message.output_text.logprobs in include");
    const { request, origins } = requestOf(body);
    // What excludes each other is refused by the engine.
    return new ResponsesTranslation(body, context, raw, request as GenerateRequest, origins);
  },
};

/** Fields of a response that say what was asked, and what they are where nothing was. */
const echoed: Readonly<Record<string, unknown>> = {
  instructions: null,
  max_output_tokens: null,
  metadata: {},
  parallel_tool_calls: true,
  reasoning: { effort: null, summary: null },
  temperature: 0,
  text: { format: { type: "text" } },
  tool_choice: "auto",
  tools: [],
  top_logprobs: 0,
  top_p: 1,
};

class ResponsesTranslation implements Translation {
  readonly #body: ResponsesBody;
  readonly #context: TranslationContext;
  readonly #raw: Record<string, unknown>;
  readonly #origins: Origins;
  readonly #id = `resp_${randomUUID().replaceAll("-", "")}`;
  readonly texts: TokenTexts;
  readonly requests: GenerateRequest[];
  readonly stream: boolean;

  constructor(
    body: ResponsesBody,
    context: TranslationContext,
    raw: Record<string, unknown>,
    request: GenerateRequest,
    origins: Origins,
  ) {
    this.#body = body;
    this.#context = context;
    this.#raw = raw;
    this.#origins = origins;
    this.texts = new TokenTexts(context.engine);
    this.requests = [request];
    this.stream = body.stream ?? false;
  }

  paramOf(option: string): string {
    return fieldOf(option, this.#origins);
  }

  answer([result]: [GenerateResult]): object {
    const output = new Output(this, this.#body);
    const { text, reasoning, toolCalls, tokens } = result;
    output.take({
      answer: 0,
      text,
      tokens,
      ...(reasoning !== undefined && { reasoning }),
      ...(toolCalls && { toolCalls }),
    });
    output.end(result);
    return { ...this.ended(result, output.items), ...sdarChoice(this.#body.sdar, { tokens }) };
  }

  events(): StreamTranslator {
    return new ResponsesStream(this, this.#body);
  }

  /** The response with what is known of it so far. */
  response(fields: object): object {
    const { created, model } = this.#context;
    const own = Object.entries(echoed).map(([name, none]) => [name, this.#raw[name] ?? none] as const);
    return {
      id: this.#id,
      object: "response",
      created_at: created,
      status: "in_progress",
      background: false,
      completed_at: null,
      error: null,
      incomplete_details: null,
      model,
      output: [],
      previous_response_id: null,
      store: false,
      truncation: "disabled",
      usage: null,
      ...Object.fromEntries(own),
      ...fields,
    };
  }

  /** The whole one. */
  ended(result: GenerateResult, output: object[]): object {
    const { promptTokens, cachedTokens, completionTokens } = result.usage;
    const incomplete = result.finishReason === "length";
    return this.response({
      status: incomplete ? "incomplete" : "completed",
      completed_at: Math.floor(Date.now() / 1000),
      incomplete_details: incomplete ? { reason: "max_output_tokens" } : null,
      output,
      usage: {
        input_tokens: promptTokens,
        input_tokens_details: { cached_tokens: cachedTokens },
        output_tokens: completionTokens,
        output_tokens_details: {
          reasoning_tokens: result.reasoning === undefined ? 0 : reasoningLength(result.tokens, this.texts),
        },
        total_tokens: promptTokens + completionTokens,
      },
      ...sdarUsage(this.#body.sdar, [result]),
    });
  }
}

/** How many tokens there are up to the end of the reasoning, its mark included. */
function reasoningLength(tokens: readonly Token[], texts: TokenTexts): number {
  const [, close] = marks.reasoning;
  let tail = "";
  const last = tokens.findIndex(({ id }) => {
    tail = tail.slice(-close.length) + texts.of(id);
    return tail.includes(close);
  });
  return last < 0 ? tokens.length : last + 1;
}

/** An answer's parts as items. */
class Output {
  readonly #of: ResponsesTranslation;
  readonly #items: OutputItems;
  readonly #logprobs: boolean;
  /** whose log-probabilities were not told yet */
  readonly #tokens: Token[] = [];
  #thought = false;

  constructor(of: ResponsesTranslation, body: ResponsesBody) {
    this.#of = of;
    this.#items = new OutputItems(typeof body.reasoning?.summary === "string");
    this.#logprobs = wantsLogprobs(body);
  }

  get items(): object[] {
    return this.#items.items;
  }

  take({ text, reasoning, toolCalls = [], tokens }: Chunk): ItemEvent[] {
    const events: ItemEvent[] = [];
    if (this.#logprobs) this.#tokens.push(...tokens);
    if (reasoning !== undefined) {
      this.#thought = true;
      events.push(...this.#items.reasoning(reasoning));
    }
    if (text !== "") events.push(...this.#items.text(text, this.#told()));
    for (const call of toolCalls) events.push(...this.#items.call(call));
    return events;
  }

  end({ finishReason }: Answer): ItemEvent[] {
    return this.#items.close(finishReason === "length" ? "incomplete" : "completed");
  }

  /** Of the tokens since the last text, but for those of reasoning. */
  #told(): object[] {
    const { texts } = this.#of;
    const tokens = this.#tokens.splice(0);
    const from = this.#thought ? reasoningLength(tokens, texts) : 0;
    this.#thought = false;
    const told = tokens.slice(from).filter((token) => !texts.ends(token));
    return told.map((token) => chatLogprob(token, texts));
  }
}

class ResponsesStream implements StreamTranslator {
  readonly #of: ResponsesTranslation;
  readonly #output: Output;
  readonly #sdar: ResponsesBody["sdar"];
  #sequence = 0;

  constructor(of: ResponsesTranslation, body: ResponsesBody) {
    this.#of = of;
    this.#output = new Output(of, body);
    this.#sdar = body.sdar;
  }

  begin(): ServerEvent[] {
    const response = this.#of.response({});
    return [
      { type: "response.created", response },
      { type: "response.in_progress", response },
    ].map(this.#event);
  }

  chunk(chunk: Chunk): ServerEvent[] {
    const { tokens, draft } = chunk;
    const own = sdarChoice(this.#sdar, { tokens, ...(draft && { draft }) });
    const events = this.#output.take(chunk);
    if (Object.keys(own).length > 0) events.unshift({ type: "sdar", ...own });
    return events.map(this.#event);
  }

  ended(result: GenerateResult): ServerEvent[] {
    const events = this.#output.end(result);
    const response = this.#of.ended(result, this.#output.items);
    const type = result.finishReason === "length" ? "response.incomplete" : "response.completed";
    return [...events, { type, response }].map(this.#event);
  }

  done(): ServerEvent[] {
    return [];
  }

  failed({ code, message }: Problem): ServerEvent[] {
    const error = { code: code ?? "server_error", message };
    const response = this.#of.response({ status: "failed", error, output: this.#output.items });
    return [this.#event({ type: "response.failed", response })];
  }

  readonly #event = ({ type, ...fields }: ItemEvent): ServerEvent => ({
    event: type,
    data: { type, sequence_number: this.#sequence++, ...fields },
  });
}
