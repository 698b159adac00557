// sdar-engine/http: a run as server-sent events, and errors as HTTP has them.
import { type ErrorCode, SdarError, wrapError } from "./errors.js";
import type { Chunk, GenerateResult, Run } from "./types.js";

/** What `pipeSSE` and `toSSEResponse` take. */
export interface SSEOptions {
  /**
   * Milliseconds without an event after which a comment is sent, so that nobody on the way takes the connection for dead; 0 for
   * never.
   *
   * @default 15000
   */
  heartbeatMs?: number;
  /** more headers for the answer; Retry-After and those of a stream are set */
  headers?: Record<string, string>;
}

/** What `pipeSSE` needs of a response: that of node:http, node:http2's compatibility API, Express, or Fastify's `reply.raw`. */
export interface ServerResponseLike {
  readonly destroyed: boolean;
  writeHead(status: number, headers: Record<string, string>): unknown;
  write(text: string): boolean;
  end(text?: string): unknown;
  on(name: "close" | "drain", listener: () => void): unknown;
  off(name: "close" | "drain", listener: () => void): unknown;
}

const statusOf: Partial<Record<ErrorCode, number>> = {
  INVALID_OPTION: 400,
  EMPTY_PROMPT: 400,
  TOKEN_OUT_OF_RANGE: 400,
  TEMPLATE_FAILED: 400,
  PROMPT_TOO_LONG: 413,
  CACHE_TOO_SMALL: 413,
  READER_STALLED: 408,
  ABORTED: 499,
  QUEUE_FULL: 503,
  DISPOSED: 503,
  DEADLINE_EXCEEDED: 504,
};

/**
 * The status that an error means for a client: 4xx is the request's fault, 503 may pass, 500 is everything else.
 *
 * @example
 * run.started.catch((error) => response.writeHead(httpStatusOf(error)).end());
 */
export function httpStatusOf(error: unknown): number {
  return (SdarError.is(error) && statusOf[error.code]) || 500;
}

const streamHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  // nginx would collect the events.
  "x-accel-buffering": "no",
};

const event = (name: string, data: object) =>
  `event: ${name}\ndata: ${JSON.stringify(data, (_, value) => (typeof value === "bigint" ? String(value) : value))}\n\n`;

/** `data:` alone is an event called "message": what a browser's EventSource gives to `onmessage`. */
function chunkEvent({ answer, text, reasoning, toolCalls, draft }: Chunk): string {
  if (draft) return event("draft", draft);
  if (text === "" && reasoning === undefined && !toolCalls) return "";
  return `data: ${JSON.stringify({ text, reasoning, toolCalls, ...(answer > 0 && { answer }) })}\n\n`;
}

function doneEvent({ finishReason, stopMatched, usage, seed }: GenerateResult): string {
  return event("done", { finishReason, stopMatched, usage, seed });
}

/** What clients are told of an error. What is not their fault may hold paths, and stays here. */
function tellable(error: SdarError): object {
  if (httpStatusOf(error) !== 500) return { error: error.toJSON() };
  return { error: { name: error.name, code: error.code, message: "the request failed" } };
}

function refusal(error: SdarError, given: SSEOptions["headers"]) {
  const headers: Record<string, string> = { ...given, "content-type": "application/json; charset=utf-8" };
  if (error.retryAfterMs !== undefined) headers["retry-after"] = String(Math.ceil(error.retryAfterMs / 1000));
  return { status: httpStatusOf(error), headers, body: `${JSON.stringify(tellable(error))}\n` };
}

/** The events of a run; the last one says how it ended. */
async function* eventsOf(run: Run): AsyncGenerator<string, void> {
  try {
    for await (const chunk of run) {
      const text = chunkEvent(chunk);
      if (text !== "") yield text;
    }
    yield doneEvent(await run.result());
  } catch (error) {
    yield event("error", tellable(wrapError(error)));
  }
}

/**
 * Answers with a run as server-sent events: `data: {"text":"…"}` as text comes, and at last `event: done` with finishReason,
 * usage and seed, or `event: error`. A request that is not accepted gets a status and the error as JSON instead. A slow client
 * holds its own run back, one that hangs up aborts it.
 *
 * @returns when the answer is complete or nobody listens any more: what the run came to. Never rejects.
 *
 * @example
 * app.post("/chat", async (request, response) => {
 *   await pipeSSE(engine.generate({ messages: request.body.messages }), response);
 * });
 */
export async function pipeSSE(
  run: Run,
  response: ServerResponseLike,
  options: SSEOptions = {},
): Promise<GenerateResult | SdarError> {
  const { heartbeatMs = 15_000, headers } = options;
  let gone = response.destroyed;
  let full = false;
  let beat: NodeJS.Timeout | undefined;
  const hangUp = () => {
    gone = true;
    clearInterval(beat);
    run.abort();
  };
  response.on("close", hangUp);
  if (gone) hangUp();
  try {
    await run.started;
    if (!gone) {
      response.writeHead(200, { ...headers, ...streamHeaders });
      // The client learns at once that it was accepted.
      response.write(":\n\n");
      if (heartbeatMs > 0) beat = setInterval(() => full || response.write(":\n\n"), heartbeatMs);
    }
    for await (const text of eventsOf(run)) {
      if (gone) break;
      beat?.refresh();
      full = !response.write(text);
      if (full) await writable(response);
      full = false;
    }
    if (!gone) response.end();
  } catch (error) {
    const { status, headers: others, body } = refusal(wrapError(error), headers);
    if (!gone) response.writeHead(status, others);
    if (!gone) response.end(body);
  } finally {
    clearInterval(beat);
    response.off("close", hangUp);
  }
  return run.result().catch(wrapError);
}

/** Until more can be written, or nobody listens. */
function writable(response: ServerResponseLike): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      response.off("drain", go);
      response.off("close", go);
      resolve();
    };
    response.on("drain", go);
    response.on("close", go);
    if (response.destroyed) go();
  });
}

/**
 * The same as a Response: for Next, Hono, Bun, Deno and whatever else answers with one. It resolves once the request is accepted,
 * or with the status that says why not; never rejects.
 *
 * @example
 * export const POST = async (request: Request) => toSSEResponse(engine.generate(await request.json()));
 */
export async function toSSEResponse(run: Run, options: SSEOptions = {}): Promise<Response> {
  const { heartbeatMs = 15_000, headers } = options;
  try {
    await run.started;
  } catch (error) {
    const { body, ...init } = refusal(wrapError(error), headers);
    return new Response(body, init);
  }
  const encoder = new TextEncoder();
  const events = eventsOf(run);
  let beat: NodeJS.Timeout | undefined;
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        // A reader that reads nothing is not waiting.
        const send = () => (controller.desiredSize ?? 0) > 0 && controller.enqueue(encoder.encode(":\n\n"));
        if (heartbeatMs > 0) beat = setInterval(send, heartbeatMs);
      },
      async pull(controller) {
        const { done, value } = await events.next();
        beat?.refresh();
        if (!done) return controller.enqueue(encoder.encode(value));
        clearInterval(beat);
        controller.close();
      },
      cancel() {
        clearInterval(beat);
        run.abort();
      },
    },
    { highWaterMark: 1 },
  );
  return new Response(body, { status: 200, headers: { ...headers, ...streamHeaders } });
}
