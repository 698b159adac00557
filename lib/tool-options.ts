// The one place where what callers pass to an engine's tools is judged: tokenize and the like, chat, map, on.
import { z } from "zod";
import type { NativeModelInfo } from "./binding.js";
import type { ChatOptions, ChatState } from "./chat.js";
import type { Conversation } from "./conversation.js";
import {
  conversationSchemas,
  messageList,
  messagesSchema,
  parseConversation,
  refuseWithoutMessages,
} from "./conversation-schema.js";
import { invalidOption } from "./errors.js";
import type { ListenerOptions } from "./events.js";
import { bounds } from "./limits.js";
import type { MapOptions } from "./map.js";
import { defaultsSchema, type ParsedRequest, parseRequest } from "./options.js";
import { boolean, callback, check, integer, reading, signal, strictObject } from "./schema.js";
import type { ScoreRequest } from "./score.js";
import type { RenderOptions, TokenizeOptions } from "./text/tools.js";
import { isTokenList, tokenIds } from "./token-lists.js";
import type { Message, RequestFields } from "./types.js";

const { tools, templateOptions, continueFinalMessage } = conversationSchemas;
const renderFields = {
  addGenerationPrompt: boolean,
  tools,
  templateOptions,
  continueFinalMessage,
} satisfies Record<keyof RenderOptions, z.ZodType>;
const renderSchema = strictObject(renderFields).partial();

const tokenizeSchema = strictObject({
  parseSpecial: boolean,
  ...renderFields,
} satisfies Record<keyof TokenizeOptions, z.ZodType>).partial();

const listenerSchema = strictObject({ signal } satisfies Record<keyof ListenerOptions, z.ZodType>).partial();

const chatSchema = strictObject({
  system: z.string({ error: "a string" }),
  messages: messageList,
  contextShift: boolean,
  cut: integer(0, bounds.messages),
  generate: defaultsSchema,
} satisfies Record<keyof ChatOptions, z.ZodType>).partial();

const mapSchema = strictObject({
  concurrency: integer(1, 65_536),
  ordered: boolean,
  signal,
  onProgress: callback<NonNullable<MapOptions["onProgress"]>>(),
} satisfies Record<keyof MapOptions, z.ZodType>).partial();

export interface Prompt {
  prompt: string | Conversation;
  parseSpecial: boolean | undefined;
}

/** Throws INVALID_OPTION, as all of these do. */
export function parsePrompt(prompt: string | readonly Message[], options: TokenizeOptions): Prompt {
  const { parseSpecial, ...given } = check(tokenizeSchema, options, "options");
  if (typeof prompt !== "string") return { prompt: parseConversation(parseMessages(prompt), given), parseSpecial };
  refuseWithoutMessages(given);
  return { prompt, parseSpecial };
}

export const parseRender = (messages: readonly Message[], options: RenderOptions): Conversation =>
  parseConversation(parseMessages(messages), check(renderSchema, options, "options"));

/** Throws TOKEN_OUT_OF_RANGE, too. */
export function parseTokens(tokens: unknown, { vocabSize }: NativeModelInfo): Int32Array {
  if (!isTokenList(tokens)) throw invalidOption("tokens", tokens, "a list of token ids");
  return tokenIds(tokens, "tokens", vocabSize, 2 ** 24);
}

const scoreFields = {
  prompt: true,
  messages: true,
  tokens: true,
  parseSpecial: true,
  ...conversationSchemas,
  blockLength: true,
  logitBias: true,
  priority: true,
  key: true,
  deadline: true,
  cache: true,
  signal: true,
  whenFull: true,
} as const;

export interface ParsedScore {
  request: ParsedRequest;
  /** a text that is not empty, or ids */
  completion: string | Int32Array;
  endToken: boolean;
}

/** Throws what parseRequest does. */
export function parseScore(given: ScoreRequest, model: NativeModelInfo): ParsedScore {
  return reading("request", () => {
    if (typeof given !== "object" || given === null) throw invalidOption("request", given, "an object");
    const { completion, endToken = false, ...rest } = given;
    const unknown = Object.keys(rest).find((name) => !(name in scoreFields));
    if (unknown !== undefined)
      throw invalidOption(
        unknown,
        (rest as Record<string, unknown>)[unknown],
        `only completion, endToken, ${Object.keys(scoreFields).join(", ")}`,
      );
    if (typeof endToken !== "boolean") throw invalidOption("endToken", endToken, "true or false");
    return { request: parseScored(rest, model), completion: parseCompletion(completion, model), endToken };
  });
}

function parseCompletion(completion: unknown, { vocabSize, contextLength }: NativeModelInfo): string | Int32Array {
  const allowed = "a text or a list of token ids, neither of them empty";
  if (typeof completion === "string" && completion !== "") return completion;
  if (!isTokenList(completion) || completion.length === 0) throw invalidOption("completion", completion, allowed);
  return tokenIds(completion, "completion", vocabSize, contextLength);
}

/** A request whose text is given, but for that text. */
export function parseScored(request: RequestFields, model: NativeModelInfo): ParsedRequest {
  const denoise = model.decoding === "autoregressive" ? {} : { denoise: { strategy: "sequential" as const } };
  return parseRequest({ ...request, ...denoise, seed: 0, ignoreEos: true }, model);
}

export const parseListener = (options: ListenerOptions): ListenerOptions => check(listenerSchema, options, "options");

/** What a chat begins with. Options that depend on the model are checked with it. */
export function parseChat(options: ChatOptions, model: NativeModelInfo): ChatState {
  const { system, messages = [], contextShift = true, cut = 0, generate = {} } = check(chatSchema, options, "options");
  if (cut > messages.length) throw invalidOption("cut", cut, "at most the number of messages");
  parseRequest({ tokens: [0] }, model, generate);
  return { system, messages, contextShift, cut, generate: generate as ChatState["generate"] };
}

export function parseMap(items: unknown, toRequest: unknown, options: MapOptions): MapOptions {
  const kinds = Object(items) as { [Symbol.iterator]?: unknown; [Symbol.asyncIterator]?: unknown };
  if (typeof (kinds[Symbol.asyncIterator] ?? kinds[Symbol.iterator]) !== "function")
    throw invalidOption("items", items, "a list, or something else that can be iterated");
  if (typeof toRequest !== "function") throw invalidOption("toRequest", toRequest, "a function");
  return check(mapSchema, options, "options");
}

const messagesOnlySchema = z.strictObject({ messages: messagesSchema });

function parseMessages(messages: readonly Message[]): Message[] {
  return reading("messages", () => check(messagesOnlySchema, { messages }, "request")).messages;
}
