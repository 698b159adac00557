// POST /v1/completions
import { randomUUID } from "node:crypto";
import { z } from "zod";
import type { GenerateRequest } from "../request.js";
import type { Answer, Chunk, GenerateResult, Token } from "../types.js";
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
import {
  answersOf,
  finishOf,
  finite,
  lastEvents,
  sdarChoice,
  sdarUsage,
  TokenTexts,
  usageOf,
} from "./openai-results.js";
import { badField } from "./problem.js";
import type { Endpoint, ServerEvent, StreamTranslator, Translation, TranslationContext } from "./protocol.js";
import { formatsOf, responseFormat, structuredFields } from "./structured.js";

/** Prompts of one request; each takes as many slots as it has completions. */
const mostPrompts = 256;

/** Text or token ids. */
type Prompt = string | number[];

const isIds = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((id) => typeof id === "number");

/** One loop over the ids, however many: what of them is wrong the engine says. */
function promptsOf(value: unknown): Prompt[] | undefined {
  if (typeof value === "string") return [value];
  if (!Array.isArray(value) || value.length === 0) return undefined;
  if (isIds(value)) return [value];
  const list = value as unknown[];
  return list.length <= mostPrompts && list.every((each) => typeof each === "string" || isIds(each))
    ? (list as Prompt[])
    : undefined;
}

const completionSchema = z.object({
  prompt: z
    .custom<string | number[] | Prompt[]>((value) => promptsOf(value) !== undefined, {
      error: `give a text, a list of token ids, or a list of at most ${mostPrompts} of these`,
    })
    .meta({ description: "a text, a list of token ids, or a list of these" }),
  ...sharedFields,
  response_format: responseFormat,
  ...structuredFields,
  max_tokens: optional(z.int({ error: "give a whole number" })).describe("default: the rest of the context"),
  logprobs: optional(z.int({ error: "give a whole number" })),
});
type CompletionBody = z.infer<typeof completionSchema>;

const unsupported = { ...sharedUnsupported, echo: [false], suffix: [""] };

export const completions: Endpoint<CompletionBody> = {
  path: "/v1/completions",
  summary: "Goes on with a text",
  schema: completionSchema,
  errors: openaiErrors,
  translate(body, context, raw) {
    // What asks for the best of as many as are given asks for nothing.
    refuseUnsupported(raw, { ...unsupported, best_of: [body.n ?? 1] });
    if (body.prompt.length === 0) throw badField("prompt", "prompt: it is empty");
    const formats = onlyFormat(formatsOf(body));
    const options = {
      ...sharedOptions(body),
      ...given({
        maxTokens: body.max_tokens,
        topLogprobs: body.logprobs || undefined,
        format: formats?.format,
      }),
    };
    const requests = (promptsOf(body.prompt) ?? []).map(
      // What excludes each other is refused by the engine.
      (prompt) =>
        ({ ...options, ...(typeof prompt === "string" ? { prompt } : { tokens: prompt }) }) as GenerateRequest,
    );
    return new CompletionTranslation(body, context, requests, formats?.field);
  },
};

class CompletionTranslation implements Translation {
  readonly #body: CompletionBody;
  readonly #context: TranslationContext;
  readonly #id = `cmpl-${randomUUID().replaceAll("-", "")}`;
  readonly #texts: TokenTexts;
  readonly #fields: Record<string, string>;
  readonly requests: GenerateRequest[];
  readonly stream: boolean;

  constructor(body: CompletionBody, context: TranslationContext, requests: GenerateRequest[], formatField?: string) {
    this.#body = body;
    this.#context = context;
    this.#texts = new TokenTexts(context.engine);
    this.#fields = { topLogprobs: "logprobs", ...(formatField !== undefined && { format: formatField }) };
    this.requests = requests;
    this.stream = body.stream ?? false;
  }

  paramOf(option: string): string {
    return paramOf(option, this.#fields);
  }

  /** of each prompt */
  get n(): number {
    return this.#body.n ?? 1;
  }

  answer(results: GenerateResult[]): object {
    const choices = results.flatMap((result, prompt) =>
      answersOf(result).map((answer, index) => ({
        index: prompt * this.n + index,
        text: answer.text,
        logprobs: this.logprobs(answer.tokens, 0),
        ...finishFields(answer),
        ...sdarChoice(this.#body.sdar, { tokens: answer.tokens }),
      })),
    );
    return { ...this.#head(), choices, usage: usageOf(results), ...sdarUsage(this.#body.sdar, results) };
  }

  events(): StreamTranslator {
    return new CompletionStream(this, this.#body);
  }

  event(fields: object): ServerEvent {
    return { data: { ...this.#head(), ...fields } };
  }

  /** As lists beside each other; null where they were not asked for. `offset`: characters of the answer before them. */
  logprobs(given: readonly Token[], offset: number): LogprobLists | null {
    if (typeof this.#body.logprobs !== "number") return null;
    const told = given.filter((token) => !this.#texts.ends(token));
    const tokens = told.map(({ id }) => this.#texts.of(id));
    let at = offset;
    return {
      tokens,
      token_logprobs: told.map(({ logprob }) => finite(logprob)),
      top_logprobs: told.map(({ topLogprobs = [] }) =>
        Object.fromEntries(topLogprobs.map(({ id, logprob }) => [this.#texts.of(id), finite(logprob)])),
      ),
      text_offset: tokens.map((text) => {
        at += text.length;
        return at - text.length;
      }),
    };
  }

  #head() {
    const { created, model } = this.#context;
    return { id: this.#id, object: "text_completion", created, model };
  }
}

interface LogprobLists {
  tokens: string[];
  token_logprobs: number[];
  top_logprobs: Record<string, number>[];
  text_offset: number[];
}

const finishFields = (answer: Answer) => ({
  finish_reason: finishOf(answer),
  stop_reason: answer.stopMatched ?? null,
});

class CompletionStream implements StreamTranslator {
  readonly #of: CompletionTranslation;
  readonly #body: CompletionBody;
  readonly #usage: boolean;
  /** by choice: tokens whose log-probabilities were not told yet, and characters of those that were */
  readonly #told = new Map<number, { tokens: Token[]; offset: number }>();

  constructor(of: CompletionTranslation, body: CompletionBody) {
    this.#of = of;
    this.#body = body;
    this.#usage = body.stream_options?.include_usage ?? false;
  }

  begin(): ServerEvent[] {
    return [];
  }

  chunk({ answer, text, tokens, draft }: Chunk, prompt: number): ServerEvent[] {
    const index = prompt * this.#of.n + answer;
    const own = sdarChoice(this.#body.sdar, { tokens, ...(draft && { draft }) });
    if (typeof this.#body.logprobs === "number") this.#toldOf(index).tokens.push(...tokens);
    if (text === "" && Object.keys(own).length === 0) return [];
    return [this.#choice(index, text, { logprobs: this.#logprobs(index), ...own })];
  }

  ended(result: GenerateResult, prompt: number): ServerEvent[] {
    return answersOf(result).map((answer, i) => {
      const index = prompt * this.#of.n + i;
      return this.#choice(index, "", { logprobs: this.#logprobs(index), ...finishFields(answer) });
    });
  }

  done(results: GenerateResult[]): ServerEvent[] {
    return lastEvents(this.#body, results, (fields) => this.#of.event(fields));
  }

  #toldOf(index: number) {
    const told = this.#told.get(index) ?? { tokens: [], offset: 0 };
    this.#told.set(index, told);
    return told;
  }

  /** Of the tokens since the last call. */
  #logprobs(index: number): LogprobLists | null {
    const told = this.#toldOf(index);
    const lists = this.#of.logprobs(told.tokens.splice(0), told.offset);
    if (!lists || lists.tokens.length === 0) return null;
    told.offset += lists.tokens.reduce((sum, text) => sum + text.length, 0);
    return lists;
  }

  #choice(index: number, text: string, more: object): ServerEvent {
    return this.#of.event({
      choices: [{ index, text, logprobs: null, finish_reason: null, ...more }],
      ...(this.#usage && { usage: null }),
    });
  }
}
