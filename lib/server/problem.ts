// What went wrong with a request, as every protocol needs it to say so in its own words.
import { z } from "zod";
import { type ErrorCode, SdarError, wrapError } from "../errors.js";
import { httpStatusOf } from "../http.js";

/** What a client is told. Holds nothing that is not for strangers, such as paths. */
export interface Problem {
  /** of HTTP */
  status: number;
  /** stable, in lower case, such as "context_length_exceeded"; null where the status says it all */
  code: string | null;
  message: string;
  /** the field of the body that is wrong, as the client named it */
  param: string | null;
  /** when the same request may come through */
  retryAfterMs?: number | undefined;
  /** more headers of the answer */
  headers?: Record<string, string> | undefined;
}

/** A refusal that the server itself decides on, or the words for one of the engine's, which is then its cause. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly problem: Problem;

  constructor(
    status: number,
    message: string,
    { cause, ...details }: Partial<Omit<Problem, "status" | "message">> & { cause?: unknown } = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.problem = { status, message, code: null, param: null, ...details };
  }
}

/** A field that is wrong: 400. */
export const badField = (param: string | null, message: string, code: string | null = null): ApiError =>
  new ApiError(400, message, { param, code });

/** Where the status of an answer is another than that of `httpStatusOf`, as clients of these APIs know it. */
const statuses: Partial<Record<ErrorCode, number>> = {
  QUEUE_FULL: 429,
  PROMPT_TOO_LONG: 400,
  CACHE_TOO_SMALL: 400,
  TEMPLATE_MISSING: 400,
  TOKENIZER_MISSING: 400,
  ABORTED: 503,
};

const codes: Partial<Record<ErrorCode, string>> = {
  PROMPT_TOO_LONG: "context_length_exceeded",
  CACHE_TOO_SMALL: "context_length_exceeded",
  QUEUE_FULL: "queue_full",
  DEADLINE_EXCEEDED: "deadline_exceeded",
  DISPOSED: "shutting_down",
  ABORTED: "shutting_down",
};

/** What may hold paths of this machine is told in other words. */
const instead: Partial<Record<ErrorCode, string>> = {
  TEMPLATE_MISSING: "this model has no chat template: it takes prompts, not messages",
  TOKENIZER_MISSING: "this model has no tokenizer: it takes token ids alone",
  DISPOSED: "the server is shutting down",
};

/** Statuses of errors that fastify makes; its messages are for clients. */
interface FrameworkError {
  statusCode: number;
  code: string;
  message: string;
}

const isFramework = (error: unknown): error is FrameworkError => {
  const { code, statusCode } = Object(error) as Partial<FrameworkError>;
  return typeof code === "string" && code.startsWith("FST_") && typeof statusCode === "number";
};

/** Of anything that was thrown. `paramOf` turns the name of an engine's option into that of a field. */
export function problemOf(error: unknown, paramOf: (option: string) => string = (option) => option): Problem {
  if (error instanceof ApiError) return error.problem;
  if (!SdarError.is(error) && isFramework(error)) return frameworkProblem(error);
  const known = wrapError(error);
  const { code, option, retryAfterMs } = known;
  const status = statuses[code] ?? httpStatusOf(known);
  if (status === 500) return { status, code: "internal_error", message: "the request failed", param: null };
  const param = option === undefined ? null : paramOf(option);
  const named = option !== undefined && param !== null && known.message.startsWith(option);
  const rest = known.message.slice(option?.length ?? 0);
  // The client's field is that part of a form already.
  const within =
    option === "format" && param !== option ? rest.replace(/^\.(schema|pattern|choices|grammar)\b/, "") : rest;
  const message = instead[code] ?? (named ? param + within : known.message);
  return { status, code: codes[code] ?? null, message, param, retryAfterMs };
}

function frameworkProblem({ statusCode, code, message }: FrameworkError): Problem {
  if (statusCode >= 500) return { status: 500, code: "internal_error", message: "the request failed", param: null };
  const told = code === "FST_ERR_CTP_INVALID_MEDIA_TYPE" ? "the content-type must be application/json" : message;
  return { status: statusCode, code: statusCode === 413 ? "request_too_large" : null, message: told, param: null };
}

/** The value as the schema has it; else 400 with the field that is wrong. */
export function parseBody<T>(schema: z.ZodType<T>, body: unknown): T {
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw badField(null, "the body must be a JSON object");
  }
  const result = schema.safeParse(body, { reportInput: false, error: allowed });
  if (result.success) return result.data;
  const issue = innermost(result.error.issues[0] as z.core.$ZodIssue);
  const param = z.core.toDotPath(issue.path) || null;
  throw badField(param, `${param ?? "the body"}: ${issue.message}`);
}

const kinds: Record<string, string> = {
  object: "an object",
  record: "an object",
  array: "a list",
  string: "a string",
  boolean: "true or false",
  number: "a number",
  int: "a whole number",
};

/** What to give, where a schema has no words of its own; the rest in zod's. */
function allowed(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code === "invalid_type") return kinds[issue.expected] && `give ${kinds[issue.expected]}`;
  if (issue.code === "invalid_union") {
    const expected = issue.errors.map(([first]) =>
      first?.code === "invalid_type" ? kinds[first.expected] : undefined,
    );
    return `give ${expected.filter(Boolean).join(" or ") || "another value"}`;
  }
  if (issue.code === "invalid_value") return `give ${issue.values.map((value) => JSON.stringify(value)).join(" or ")}`;
  if (issue.code === "unrecognized_keys") return `no field is called ${JSON.stringify(issue.keys[0]?.slice(0, 60))}`;
  return undefined;
}

/** Of a union, what is wrong with the alternative that fits best: the one that got furthest. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const deepest = issue.errors
    .flatMap((issues) => issues.slice(0, 1))
    .map((inner) => innermost({ ...inner, path: [...issue.path, ...inner.path] }))
    .sort((a, b) => b.path.length - a.path.length)[0];
  return deepest && deepest.path.length > issue.path.length ? deepest : issue;
}
