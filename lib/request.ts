// What a request is by type: which of its options exclude each other.
import type { RequestFields } from "./types.js";

type Without<Names extends keyof RequestFields> = { [Name in Names]?: undefined };
type One<Name extends keyof RequestFields> = Required<Pick<RequestFields, Name>>;

/** Exactly one of `prompt`, `messages` and `tokens`; `parseSpecial` is not for `tokens`. */
export type PromptOptions =
  | (One<"prompt"> & Pick<RequestFields, "parseSpecial"> & Without<"messages" | "tokens">)
  | (One<"messages"> & Pick<RequestFields, "parseSpecial"> & Without<"prompt" | "tokens">)
  | (One<"tokens"> & Without<"prompt" | "messages" | "parseSpecial">);

/** Either `quality` or `denoise`, or neither. */
export type DialOptions =
  | (Pick<RequestFields, "quality"> & Without<"denoise">)
  | (Pick<RequestFields, "denoise"> & Without<"quality">);

type PromptNames = "prompt" | "messages" | "tokens" | "parseSpecial";

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
  "prompt" | "messages" | "tokens" | "quality" | "denoise" | "signal" | "format"
> &
  DialOptions;
