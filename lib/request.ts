// What a request is by type: which of its options exclude each other.
import type { ConversationFields } from "./conversation.js";
import type { RequestFields } from "./types.js";

type Without<Names extends keyof RequestFields> = { [Name in Names]?: undefined };
type One<Name extends keyof RequestFields> = Required<Pick<RequestFields, Name>>;

type ConversationNames = keyof ConversationFields;

/** Exactly one of `prompt`, `messages` and `tokens`; `parseSpecial` is not for `tokens`, tools and the like for `messages` alone. */
export type PromptOptions =
  | (One<"prompt"> & Pick<RequestFields, "parseSpecial"> & Without<"messages" | "tokens" | ConversationNames>)
  | (One<"messages"> & Pick<RequestFields, "parseSpecial"> & ConversationFields & Without<"prompt" | "tokens">)
  | (One<"tokens"> & Without<"prompt" | "messages" | "parseSpecial" | ConversationNames>);

/** Either `quality` or `denoise`, or neither. */
export type DialOptions =
  | (Pick<RequestFields, "quality"> & Without<"denoise">)
  | (Pick<RequestFields, "denoise"> & Without<"quality">);

type PromptNames = "prompt" | "messages" | "tokens" | "parseSpecial" | ConversationNames;

/** All options of a request but its prompt. */
export type GenerateOptions = Omit<RequestFields, PromptNames | "quality" | "denoise"> & DialOptions;

/**
 * What `engine.generate` takes: exactly one of `prompt`, `messages` and `tokens`, and at most one of `quality` and `denoise`.
 * An unknown option is refused.
 */
export type GenerateRequest = PromptOptions & GenerateOptions;

/** What holds for all requests that do not say otherwise. */
export type GenerateDefaults = Omit<
  RequestFields,
  "prompt" | "messages" | "tokens" | "quality" | "denoise" | "signal" | "format" | "continueFinalMessage"
> &
  DialOptions;
