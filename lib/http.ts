// sdar-engine/http: a run as server-sent events, and errors as HTTP has them.
import { type ErrorCode, SdarError, wrapError } from "./errors.js";
import { comment, EventWriter, type ServerResponseLike, streamHeaders } from "./sse.js";
import type { Chunk, GenerateResult, Run } from "./types.js";

export type { ServerResponseLike };

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
  const writer = new EventWriter(response, { heartbeatMs, onClose: run.abort });
  try {
    await run.started;
    writer.open(headers);
    // The client learns at once that it was accepted.
    await writer.write(comment);
    for await (const text of eventsOf(run)) {
      if (writer.gone) break;
      await writer.write(text);
    }
    await writer.end();
  } catch (error) {
    const { status, headers: others, body } = refusal(wrapError(error), headers);
    if (!writer.gone) response.writeHead(status, others);
    if (!writer.gone) response.end(body);
  } finally {
    writer.release();
  }
  return run.result().catch(wrapError);
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
        const send = () => (controller.desiredSize ?? 0) > 0 && controller.enqueue(encoder.encode(comment));
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
