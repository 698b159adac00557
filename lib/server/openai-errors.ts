// Errors as OpenAI's API has them.
import type { Problem } from "./problem.js";
import type { ErrorShape } from "./protocol.js";

const types: Record<number, string> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  429: "rate_limit_error",
};

/** `{error: {message, type, param, code}}` */
export function openaiError({ status, message, param, code }: Problem): object {
  const type = types[status] ?? (status >= 500 ? "server_error" : "invalid_request_error");
  return { error: { message, type, param, code } };
}

export const openaiErrors: ErrorShape = {
  body: openaiError,
  // What follows no `[DONE]` is not complete.
  events: (problem) => [{ data: openaiError(problem) }],
};
