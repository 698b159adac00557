// The form that a request asks of its answer: what callers give, as the addon compiles it, and what the text then is worth.
import { z } from "zod";
import { describe, invalidOption, SdarError } from "./errors.js";
import { bounds } from "./limits.js";
import { check, oneOf, reading, strictObject } from "./schema.js";
import type { Format, RequestFields } from "./types.js";

export interface ParsedFormat {
  /** as form::compile takes it */
  json: string;
  /** texts to choose among, where their probabilities are wanted */
  choices: readonly string[] | undefined;
  /** What a whole text says. */
  read(text: string): Pick<{ value: unknown; valueError: Error }, "value"> | { valueError: Error };
}

const whitespace = oneOf("none", "space", "some").optional();
const string = z.string({ error: "a string" });
const kinds = {
  json_schema: strictObject({
    type: z.literal("json_schema"),
    schema: z.custom<object | boolean>((v) => typeof v === "boolean" || isPlain(v), { error: "a JSON Schema" }),
    whitespace,
  }),
  json: strictObject({ type: z.literal("json"), whitespace }),
  regex: strictObject({
    type: z.literal("regex"),
    pattern: z.custom<string | RegExp>((v) => typeof v === "string" || v instanceof RegExp, {
      error: "a string or a RegExp",
    }),
  }),
  choice: strictObject({
    type: z.literal("choice"),
    choices: z.custom<readonly string[]>(
      (v) => Array.isArray(v) && v.length > 0 && v.length <= bounds.choices && v.every((c) => typeof c === "string"),
      { error: `a list of 1 to ${bounds.choices} strings` },
    ),
    probabilities: z.boolean({ error: "true or false" }).optional(),
  }),
  grammar: strictObject({ type: z.literal("grammar"), grammar: string }),
} as const;
const names = Object.keys(kinds) as (keyof typeof kinds)[];

const asText = (text: string) => ({ value: text });
const asJson = (text: string) => ({ value: JSON.parse(text) as unknown });

const isPlain = (v: unknown): v is object =>
  typeof v === "object" && v !== null && Object.prototype.toString.call(v) === "[object Object]";

/** A schema of zod 4, of whichever copy. */
const isZod = (v: object): v is z.ZodType => "_zod" in v;

interface FormFields extends Pick<RequestFields, "format" | "tools" | "ignoreEos" | "minTokens"> {
  suppress?: ArrayLike<number> | undefined;
}

/** What a checked request asks of its answer. Throws INVALID_OPTION; what the addon compiles it may still refuse. */
export function formatOf(request: FormFields): ParsedFormat | undefined {
  const { format, tools, ignoreEos, minTokens, suppress } = request;
  const form = format !== undefined ? "format" : tools?.length ? "tools" : undefined;
  const allowed = `none with ${form}, which says where the text may end`;
  if (form && ignoreEos) throw invalidOption("ignoreEos", ignoreEos, allowed);
  if (form && minTokens) throw invalidOption("minTokens", minTokens, allowed);
  if (form && suppress?.length) throw invalidOption("suppress", suppress, `none with ${form}: give a logitBias`);
  return format === undefined ? undefined : parseFormat(format);
}

function parseFormat(given: unknown): ParsedFormat {
  return reading("format", () => {
    if (typeof given !== "object" || given === null)
      throw invalidOption("format", given, `a zod schema, or an object whose type is one of ${names.join(", ")}`);
    return isZod(given) ? parseZod(given) : parseKind(given as { type?: unknown });
  });
}

function parseKind(given: { type?: unknown }): ParsedFormat {
  const { type } = given;
  if (!names.includes(type as never)) {
    const allowed = "_def" in given ? "a schema of zod 4" : `one of ${names.join(", ")}`;
    throw invalidOption("format.type", type, allowed);
  }
  const format = shallow(given);
  const parsed = inFormat(() => check(kinds[type as keyof typeof kinds] as z.ZodType<Format>, format, "format"));
  if (!("type" in parsed)) throw new SdarError("INTERNAL", "format: no type");
  switch (parsed.type) {
    case "regex":
      return { json: write({ type: "regex", pattern: patternOf(parsed.pattern) }), choices: undefined, read: asText };
    case "choice":
      return { json: write({ type, choices: parsed.choices }), choices: scored(parsed), read: asText };
    case "grammar":
      return { json: write(parsed), choices: undefined, read: asText };
    default:
      return { json: write(parsed), choices: undefined, read: asJson };
  }
}

function scored({ choices, probabilities = true }: { choices: readonly string[]; probabilities?: boolean }) {
  if (!probabilities) return undefined;
  const different = new Set<string>();
  for (const choice of choices) if (different.add(choice).size > bounds.scoredChoices) return undefined;
  return [...different];
}

/** What check() would copy value by value, and bound, stays as it is. */
function shallow(given: object): Record<string, unknown> {
  const own: Record<string, unknown> = {};
  let left = 16;
  for (const name in given) if (left-- > 0) own[name] = (given as Record<string, unknown>)[name];
  return own;
}

/** Errors of a part name it within `format`. */
function inFormat<T>(part: () => T): T {
  try {
    return part();
  } catch (error) {
    if (!(error instanceof SdarError) || !error.option || error.option === "format") throw error;
    const { code, message, option, value, allowed } = error;
    const details = { option: `format.${option}`, value, ...(allowed !== undefined && { allowed }) };
    throw new SdarError(code, message.startsWith("unknown") ? `format: ${message}` : `format.${message}`, details);
  }
}

function patternOf(pattern: string | RegExp): string {
  if (typeof pattern === "string") return pattern;
  if (/[^dguy]/.test(pattern.flags))
    throw invalidOption("format.pattern", String(pattern), "a RegExp without the flags i, m, s and v");
  return pattern.source;
}

function parseZod(schema: z.ZodType): ParsedFormat {
  let described: unknown;
  try {
    described = z.toJSONSchema(schema, {
      io: "input",
      // Zod lets other members pass and drops them: none are written.
      override: ({ jsonSchema }) => {
        if (jsonSchema.type === "object") jsonSchema.additionalProperties ??= false;
      },
    });
  } catch (cause) {
    const message = `format: JSON Schema cannot say what this zod schema asks for: ${describe(cause)}`;
    throw new SdarError("INVALID_OPTION", message, { option: "format", allowed: "a zod schema of JSON values", cause });
  }
  return {
    json: write({ type: "json_schema", schema: described }),
    choices: undefined,
    read(text) {
      try {
        return { value: z.parse(schema, JSON.parse(text)) };
      } catch (cause) {
        // Also what a refinement throws, or zod where one is asynchronous.
        return { valueError: cause instanceof Error ? cause : new Error(describe(cause), { cause }) };
      }
    },
  };
}

function write(form: unknown): string {
  checkSize(form);
  let json: string | undefined;
  try {
    json = JSON.stringify(form);
  } catch (cause) {
    const message = `format cannot be written as JSON: ${describe(cause)}`;
    throw new SdarError("INVALID_OPTION", message, { option: "format", allowed: "JSON values", cause });
  }
  if (json.length > bounds.form) throw tooLarge(bounds.form, "characters of JSON");
  // JSON.stringify escapes half a pair, which no UTF-8 text holds.
  const half = /(?<!\\)(?:\\\\)*\\ud[89a-f][0-9a-f]{2}/.exec(json);
  if (half) {
    const around = json.slice(Math.max(0, half.index - 20), half.index + half[0].length);
    throw invalidOption("format", around, "text without half of a surrogate pair");
  }
  return json;
}

function tooLarge(most: number, what: string): SdarError {
  const allowed = `at most ${most} ${what}`;
  return new SdarError("INVALID_OPTION", `format has more than ${most} ${what}`, { option: "format", allowed });
}

/** JSON.stringify would leave it out, or write null in its place: a form that says less than it was given. */
function jsonValue(value: unknown, name: string | number): unknown {
  const kept = typeof value !== "function" && typeof value !== "symbol";
  if ((kept || name === "toJSON") && (typeof value !== "number" || Number.isFinite(value))) return value;
  throw invalidOption("format", value, `a JSON value as ${JSON.stringify(String(name).slice(0, 60))}`);
}

/** Looks no further than the bounds, however often a part is in it: what is within them is written in milliseconds. */
function checkSize(form: unknown): void {
  let characters = bounds.form;
  let values: number = bounds.formValues;
  const open: unknown[] = [form];
  while (open.length > 0) {
    const value = open.pop();
    if (typeof value === "string") characters -= value.length;
    else if (Array.isArray(value)) {
      values -= value.length;
      if (values >= 0) for (let i = 0; i < value.length; i++) open.push(jsonValue(value[i], i));
    } else if (typeof value === "object" && value !== null) {
      for (const name in value) {
        characters -= name.length;
        if (--values < 0 || characters < 0) break;
        open.push(jsonValue((value as Record<string, unknown>)[name], name));
      }
    }
    if (characters < 0) throw tooLarge(bounds.form, "characters of JSON");
    if (values < 0) throw tooLarge(bounds.formValues, "values");
  }
}
