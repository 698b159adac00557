export type { Chat, ChatJson, ChatOptions, SendOptions } from "./chat.js";
export { Engine } from "./engine.js";
export { type ErrorCode, SdarError, type SdarErrorJson } from "./errors.js";
export type { EngineEvents, EventName, Listener, ListenerOptions, RequestInfo } from "./events.js";
export type { MapOptions, Mapped } from "./map.js";
export type { SamplingOptions } from "./sampling.js";
export type { Score, ScoredChoice, ScoreRequest } from "./score.js";
export type { EngineStats } from "./stats.js";
export type { RenderOptions, TokenizeOptions } from "./text/tools.js";
export type {
  Answer,
  Chunk,
  DenoiseOptions,
  DisposeOptions,
  Draft,
  FinishReason,
  Format,
  GenerateDefaults,
  GenerateOptions,
  GenerateRequest,
  GenerateResult,
  LoadOptions,
  Message,
  MessageToolCall,
  ModelInfo,
  Quality,
  RequestFields,
  Run,
  Strategy,
  TextPart,
  TextStream,
  Token,
  Tool,
  ToolCall,
  ToolChoice,
  ToolFunction,
  Usage,
  ZodSchema,
} from "./types.js";
