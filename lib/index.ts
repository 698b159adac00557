export { Engine } from "./engine.js";
export { type ErrorCode, SdarError } from "./errors.js";
export type {
  Chunk,
  DenoiseOptions,
  Draft,
  EngineStats,
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
