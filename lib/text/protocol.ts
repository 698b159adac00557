// What the thread for texts and the engine say to each other.

import type { Conversation } from "../conversation.js";
import type { ErrorDetails, SdarError } from "../errors.js";
import type { AddedToken } from "./added-tokens.js";
import type { ReasoningStart } from "./conversation-text.js";
import type { LengthBound } from "./length-bound.js";
import type { TokenBytes } from "./token-bytes.js";

/** What it is at; in memory that both threads share, so that one that must be stopped need not say it. */
export const stages = ["waiting", "config", "tokenizer", "template", "render", "encode"] as const;
export type Stage = (typeof stages)[number];

/** What the engine knows of the model once its weights are there. */
export interface ModelIds {
  vocabSize: number;
  /** ids whose names control something, whatever the files say: the mask, the ends */
  control: number[];
}

export interface WorkerData {
  folder: string;
  /** index into `stages`, and that of the task among those of its message */
  stage: Int32Array<SharedArrayBuffer>;
  /** known from the second worker on */
  model: ModelIds | undefined;
}

export interface EncodeTask {
  kind: "encode";
  prompt: string | Conversation;
  parseSpecial: boolean;
  /** tokens at most */
  limit: number;
  /** in characters: of texts up to so long that have too many, the error tells how many */
  countUpTo: number;
}

export interface RenderTask {
  kind: "render";
  conversation: Conversation;
}

export interface SplitTask {
  kind: "split";
  texts: string[];
}

/** Ids of texts, one after the other, and how many each has. */
export interface Splits {
  ids: Int32Array;
  counts: Int32Array;
}

export type Task = EncodeTask | RenderTask | SplitTask | { kind: "describe"; model: ModelIds };

/** What there is to know once the files are read. */
export interface TextFiles {
  hasTemplate: boolean;
  takesTools: boolean;
  /** of tokenizer_config.json, else of special_tokens_map.json */
  eosTokenId: number | undefined;
}

/** What the engine asks for with `describe`. */
export interface TextTables {
  tokenBytes: TokenBytes;
  lengthBound: LengthBound | undefined;
  controlTokens: AddedToken[];
}

/** A prompt as the engine takes it. */
export interface EncodedPrompt {
  tokens: Int32Array;
  reasoning: ReasoningStart;
}

export type AnswerValue = TextFiles | TextTables | Splits | EncodedPrompt | string;

export type Answer = { value: AnswerValue } | { error: FlatError };

interface FlatError {
  code: SdarError["code"];
  message: string;
  details: ErrorDetails;
}
