// Errors as Anthropic's API has them.
import type { Problem } from "./problem.js";
import type { ErrorShape } from "./protocol.js";

const types: Record<number, string> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
  504: "timeout_error",
};

/** `{type: "error", error: {type, message}, request_id}` */
export function anthropicError({ status, message }: Problem, requestId: string): object {
  const type = types[status] ?? (status >= 500 ? "api_error" : "invalid_request_error");
  return { type: "error", error: { type, message }, request_id: requestId };
}

const string = { type: "string" };

export const anthropicErrors: ErrorShape = {
  body: anthropicError,
  events: (problem, requestId) => [{ event: "error", data: anthropicError(problem, requestId) }],
  requestIdHeader: "request-id",
  schema: {
    type: "object",
    properties: {
      type: { const: "error" },
      error: { type: "object", properties: { type: string, message: string }, required: ["type", "message"] },
      request_id: string,
    },
    required: ["type", "error", "request_id"],
  },
};
