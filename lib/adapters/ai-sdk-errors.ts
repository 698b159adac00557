// The engine's errors as the AI SDK has them.
import { APICallError } from "@ai-sdk/provider";
import { type SdarError, wrapError } from "../errors.js";
import { httpStatusOf } from "../http.js";

/**
 * An APICallError with the SdarError as its `cause` and, as JSON, its `data`. The SDK retries what `isRetryable`: QUEUE_FULL,
 * after `retryAfterMs`. A deadline that has passed is the caller's own bound, and is not tried anew.
 */
export function callError(error: unknown, modelId: string, request: object = {}): Error {
  if (APICallError.isInstance(error)) return error;
  const own: SdarError = wrapError(error);
  const { retryAfterMs } = own;
  return new APICallError({
    message: own.message,
    url: `sdar:${modelId}`,
    requestBodyValues: request,
    statusCode: httpStatusOf(own),
    ...(retryAfterMs !== undefined && { responseHeaders: { "retry-after-ms": String(retryAfterMs) } }),
    isRetryable: own.code === "QUEUE_FULL",
    data: own.toJSON(),
    cause: own,
  });
}

/** What `fetch` would reject with. */
export function abortError(signal: AbortSignal | undefined): unknown {
  return signal?.reason ?? new DOMException("The call was aborted", "AbortError");
}
