export { Engine } from "./engine.js";
export { type ErrorCode, SdarError } from "./errors.js";
export type { EngineEvents, EventName, Listener, RequestInfo } from "./events.js";
export type { EngineStats } from "./stats.js";
export type {
  Answer,
  Chunk,
  DenoiseOptions,
  DisposeOptions,
  Draft,
  DraftOptions,
  FinishReason,
  GenerateRequest,
  GenerateResult,
  LoadOptions,
  Message,
  ModelInfo,
  Quality,
  Run,
  Strategy,
  Token,
  Usage,
} from "./types.js";
