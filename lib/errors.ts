/**
 * Every code an {@link SdarError} can carry.
 *
 * - Options and prompts: `INVALID_OPTION`, `EMPTY_PROMPT`, `TOKEN_OUT_OF_RANGE`, `PROMPT_TOO_LONG`, `CACHE_TOO_SMALL`
 * - Finding and reading a checkpoint: `MODEL_NOT_FOUND`, `FILE_NOT_FOUND`, `FILE_UNREADABLE`, `CHECKPOINT_INVALID`,
 *   `CHECKPOINT_TRUNCATED`, `CONFIG_INVALID`, `UNSUPPORTED_MODEL`
 * - Text: `TOKENIZER_MISSING`, `TOKENIZER_INVALID`, `UNSUPPORTED_TOKENIZER`, `TEMPLATE_MISSING`, `TEMPLATE_FAILED`
 * - The machine: `NATIVE_MISSING`, `UNSUPPORTED_DEVICE`, `OUT_OF_MEMORY`, `DEVICE_FAILED` (an error of the GPU, which sticks)
 * - Training: `DATA_INVALID` (a line of the data)
 * - Downloading, by `sdar pull` alone: `DOWNLOAD_FAILED`
 * - Writing a checkpoint or a run: `FILE_UNWRITABLE`
 * - While waiting or running: `QUEUE_FULL`, `DEADLINE_EXCEEDED`, `READER_STALLED`, `NUMERIC_ERROR`, `ABORTED`, `DISPOSED`,
 *   `ITERATOR_USED`, `INTERNAL`
 */
export const errorCodes = [
  "INVALID_OPTION",
  "EMPTY_PROMPT",
  "TOKEN_OUT_OF_RANGE",
  "PROMPT_TOO_LONG",
  "CACHE_TOO_SMALL",
  "MODEL_NOT_FOUND",
  "FILE_NOT_FOUND",
  "FILE_UNREADABLE",
  "FILE_UNWRITABLE",
  "CHECKPOINT_INVALID",
  "CHECKPOINT_TRUNCATED",
  "CONFIG_INVALID",
  "UNSUPPORTED_MODEL",
  "TOKENIZER_MISSING",
  "TOKENIZER_INVALID",
  "UNSUPPORTED_TOKENIZER",
  "TEMPLATE_MISSING",
  "TEMPLATE_FAILED",
  "DATA_INVALID",
  "DOWNLOAD_FAILED",
  "NATIVE_MISSING",
  "UNSUPPORTED_DEVICE",
  "OUT_OF_MEMORY",
  "DEVICE_FAILED",
  "QUEUE_FULL",
  "DEADLINE_EXCEEDED",
  "READER_STALLED",
  "NUMERIC_ERROR",
  "ABORTED",
  "DISPOSED",
  "ITERATOR_USED",
  "INTERNAL",
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** What an error says beyond its message. */
export interface ErrorDetails {
  /** name of the option that was refused, as a path: `"denoise.threshold"` */
  option?: string;
  /** the value that was refused */
  value?: unknown;
  /** what would have been accepted, in words */
  allowed?: string;
  /** with QUEUE_FULL: milliseconds until there is probably room, from the rate at which requests finish */
  retryAfterMs?: number;
  /** with PROMPT_TOO_LONG: tokens of the prompt, where they were counted: ids, and texts of up to 32,768 characters */
  promptTokens?: number;
  /** with PROMPT_TOO_LONG: tokens that a prompt may have */
  maxPromptTokens?: number;
  cause?: unknown;
}

/** What the same request may come through with a moment later. */
const retryable: ReadonlySet<ErrorCode> = new Set(["QUEUE_FULL", "DEADLINE_EXCEEDED", "READER_STALLED"]);

/** Marks errors of any copy of this package. */
const brand = Symbol.for("sdar-engine.SdarError");

/** What `SdarError.toJSON` gives; `value` only where it is a string, a number or a boolean. */
export interface SdarErrorJson extends Omit<ErrorDetails, "cause" | "value"> {
  name: "SdarError";
  code: ErrorCode;
  message: string;
  value?: string | number | boolean;
}

/**
 * The one class of errors this package throws or rejects with; `code` is stable.
 *
 * @example
 * try {
 *   await engine.generate({ prompt }).result();
 * } catch (error) {
 *   if (!SdarError.is(error, "QUEUE_FULL")) throw error;
 *   await sleep(error.retryAfterMs);
 * }
 */
export class SdarError extends Error {
  override readonly name = "SdarError";
  readonly code: ErrorCode;
  declare readonly option?: string;
  declare readonly value?: unknown;
  declare readonly allowed?: string;
  declare readonly retryAfterMs?: number;
  declare readonly promptTokens?: number;
  declare readonly maxPromptTokens?: number;

  /**
   * Whether `error` is an SdarError, and where a code is given, of that code. Unlike `instanceof` also for errors of another
   * copy of this package.
   */
  static is(error: unknown, code?: ErrorCode): error is SdarError {
    try {
      const { [brand]: ours, code: own } = Object(error) as { [brand]?: unknown; code?: unknown };
      return ours === true && (code === undefined || own === code);
    } catch {
      return false; // a proxy, or a getter that throws
    }
  }

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const { cause, ...rest } = details;
    super(oneLine(message, 1000), cause === undefined ? undefined : { cause });
    this.code = code;
    if (rest.option !== undefined) rest.option = oneLine(rest.option, 200);
    Object.assign(this, rest);
  }

  /** Whether the same request may come through a moment later: QUEUE_FULL, DEADLINE_EXCEEDED, READER_STALLED. */
  get isRetryable(): boolean {
    return retryable.has(this.code);
  }

  /** For logs and answers over HTTP: no stack, no cause. */
  toJSON(): SdarErrorJson {
    const { name, code, message, option, value, allowed, retryAfterMs, promptTokens, maxPromptTokens } = this;
    const given: SdarErrorJson = { name, code, message };
    if (typeof value === "string") given.value = oneLine(value, 200);
    else if (typeof value === "number" || typeof value === "boolean") given.value = value;
    const details = { option, allowed, retryAfterMs, promptTokens, maxPromptTokens };
    return Object.assign(given, Object.fromEntries(Object.entries(details).filter(([, v]) => v !== undefined)));
  }
}

// On the prototype, where what prints and compares errors does not see it.
Object.defineProperty(SdarError.prototype, brand, { value: true });

/** Without control characters, which take over terminals and logs, and not longer than a message may be. */
function oneLine(text: string, most: number): string {
  const short = text.length > most ? `${text.slice(0, most)}…` : text;
  return short
    .replace(/[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu, " ")
    .replace(/\p{Cs}/gu, "\ufffd");
}

/** Anything thrown, as an SdarError: native errors keep the code they carry, the rest is INTERNAL. */
export function wrapError(error: unknown): SdarError {
  try {
    if (error instanceof SdarError) return error;
    const { code } = Object(error) as { code?: unknown };
    const known = errorCodes.find((c) => c === code);
    return new SdarError(known ?? "INTERNAL", describe(error), { cause: error });
  } catch {
    // A proxy, or a getter that throws in its turn.
    return new SdarError("INTERNAL", describe(error), { cause: error });
  }
}

/** What anything thrown has to say. */
export function describe(error: unknown): string {
  try {
    const { message } = Object(error) as { message?: unknown };
    return String(message ?? error);
  } catch {
    return unspeakable;
  }
}

/** The same with the error's name, for logs. */
export function nameAndMessage(error: unknown): string {
  try {
    return String(error);
  } catch {
    return unspeakable;
  }
}

const unspeakable = "something that cannot be shown";

/** An INVALID_OPTION error with a message made from its parts. */
export function invalidOption(option: string, value: unknown, allowed: string): SdarError {
  return new SdarError("INVALID_OPTION", `${option}: ${show(value)} is not allowed; give ${allowed}`, {
    option,
    value,
    allowed,
  });
}

function show(value: unknown): string {
  try {
    return shown(value);
  } catch {
    return "this value";
  }
}

function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  return Array.isArray(value) ? "this list" : "this object";
}
