// What a protocol is to the server: a translator from its bodies to requests of the engine, and from chunks and results back.
import type { z } from "zod";
import type { Engine } from "../engine.js";
import type { GenerateRequest } from "../request.js";
import type { Chunk, GenerateResult } from "../types.js";
import type { Problem } from "./problem.js";

/** A server-sent event; `data` that is no string is written as JSON. */
export interface ServerEvent {
  event?: string;
  data: object | string;
}

/** How a protocol says what went wrong. */
export interface ErrorShape {
  /** the body of a refusal */
  body(problem: Problem, requestId: string): object;
  /** the events that end a stream in which something went wrong */
  events(problem: Problem, requestId: string): ServerEvent[];
  /** a header that has the request's name, besides x-request-id */
  requestIdHeader?: string;
  /** JSON Schema of the body, for /openapi.json */
  schema?: object;
}

/** What a translator knows of the request besides its body. */
export interface TranslationContext {
  engine: Engine;
  /** the name under which clients know the model */
  model: string;
  /** of this request, also in the header x-request-id */
  requestId: string;
  /** seconds since 1970 */
  created: number;
}

/**
 * A body in the engine's terms, and the way back. `key`, `signal` and the server's limits are set by the exchange, which also
 * runs, aborts, counts and tells errors.
 */
export interface Translation {
  /** one, or several that are one request of the client, such as a list of prompts */
  requests: GenerateRequest[];
  stream: boolean;
  /** The whole answer, in the order of `requests`. */
  answer(results: GenerateResult[]): object;
  /** For `stream`: called once. */
  events(): StreamTranslator;
  /** The name of the client's field that became this option of the engine. */
  paramOf?(option: string): string;
}

/** Chunks and results to events; `index` is that of the request. */
export interface StreamTranslator {
  /** Once the requests are accepted. */
  begin(): ServerEvent[];
  chunk(chunk: Chunk, index: number): ServerEvent[];
  /** One of the requests has come to its end. */
  ended(result: GenerateResult, index: number): ServerEvent[];
  /** All have. */
  done(results: GenerateResult[]): ServerEvent[];
  /** In the place of the protocol's `errors.events`, where these depend on what was said before. */
  failed?(problem: Problem): ServerEvent[];
}

/** An endpoint that generates. `Body` is what `schema` makes of a body. */
export interface Endpoint<Body extends { model?: string | null | undefined }> {
  path: string;
  /** one line, for /openapi.json */
  summary: string;
  /** Unknown fields are ignored. */
  schema: z.ZodType<Body>;
  errors: ErrorShape;
  /** what a stream that says nothing sends, so that nobody on the way takes it for dead; by default a comment */
  heartbeat?: ServerEvent;
  /** Throws ApiError; `raw` is the body as it came, also with fields that the schema does not know. */
  translate(body: Body, context: TranslationContext, raw: Record<string, unknown>): Translation | Promise<Translation>;
}
