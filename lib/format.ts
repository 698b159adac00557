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
const isZod = (v: object): v is z.ZodType => isPlain((v as { _zod?: unknown })._zod) || "_zod" in v;

interface FormFields extends Pick<RequestFields, "format" | "tools" | "ignoreEos" | "minTokens" | "denoise"> {
  suppress?: ArrayLike<number> | undefined;
}

/** What a checked request asks of its answer. Throws INVALID_OPTION; what the addon compiles it may still refuse. */
export function formatOf(request: FormFields): ParsedFormat | undefined {
  const { format, tools, ignoreEos, minTokens, suppress, denoise } = request;
  const form = format !== undefined ? "format" : tools?.length ? "tools" : undefined;
  const allowed = `none with ${form}, which says where the text may end`;
  if (form && ignoreEos) throw invalidOption("ignoreEos", ignoreEos, allowed);
  if (form && minTokens) throw invalidOption("minTokens", minTokens, allowed);
  if (form && suppress?.length) throw invalidOption("suppress", suppress, `none with ${form}: give a logitBias`);
  if (form && denoise?.strategy === "self_verified")
    throw invalidOption("denoise.strategy", denoise.strategy, `another one with ${form}`);
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
  const different = [...new Set(choices)];
  return probabilities && different.length <= bounds.scoredChoices ? different : undefined;
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
    throw invalidOption("format.pattern", String(pattern), "a RegExp with no other flag than u");
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
      const result = z.safeParse(schema, JSON.parse(text));
      return result.success ? { value: result.data } : { valueError: result.error };
    },
  };
}

function write(form: unknown): string {
  if (isLong(form, bounds.form)) throw tooLong();
  let json: string | undefined;
  try {
    json = JSON.stringify(form);
  } catch (cause) {
    const message = `format cannot be written as JSON: ${describe(cause)}`;
    throw new SdarError("INVALID_OPTION", message, { option: "format", allowed: "JSON values", cause });
  }
  if (json.length > bounds.form) throw tooLong();
  return json;
}

const tooLong = () =>
  new SdarError("INVALID_OPTION", `format is longer than ${bounds.form} characters of JSON`, {
    option: "format",
    allowed: `at most ${bounds.form} characters of JSON`,
  });

/** Whether it has more characters and values than `most`; looked at no further than that, however often a part is in it. */
function isLong(form: unknown, most: number): boolean {
  let left = most;
  const open: unknown[] = [form];
  for (let value = open.pop(); open.length > 0 || value !== undefined; value = open.pop()) {
    left--;
    if (typeof value === "string") left -= value.length;
    else if (Array.isArray(value)) {
      if (value.length > left) return true;
      open.push(...value.slice(0, 1000));
      for (let i = 1000; i < value.length; i++) open.push(value[i]);
    } else if (typeof value === "object" && value !== null) {
      for (const name in value) {
        left -= name.length + 1;
        if (left < 0) return true;
        open.push((value as Record<string, unknown>)[name]);
      }
    }
    if (left < 0) return true;
  }
  return false;
}
