// Building blocks of options.ts: schemas whose errors become SdarErrors that name the option, the value and what is allowed.
import { z } from "zod";
import { invalidOption, SdarError } from "./errors.js";

export const int32Max = 2 ** 31 - 1;

// Every schema's error text says what is allowed, as it follows "give …".
export const integer = (min: number, max = int32Max) =>
  z.custom<number>((v) => Number.isSafeInteger(v) && (v as number) >= min && (v as number) <= max, {
    error: max === int32Max ? `an integer >= ${min}` : `an integer from ${min} to ${max}`,
  });
export const number = (allowed: string, test: (v: number) => boolean) =>
  z.custom<number>((v) => typeof v === "number" && Number.isFinite(v) && test(v), { error: allowed });
export const oneOf = <T extends string>(...values: T[]) => z.enum(values, { error: `one of ${values.join(", ")}` });
export const boolean = z.boolean({ error: "true or false" });
export const callback = <T>() => z.custom<T>((v) => typeof v === "function", { error: "a function" });
export const signal = z.custom<AbortSignal>(
  (v) =>
    typeof v === "object" &&
    v !== null &&
    typeof (v as AbortSignal).addEventListener === "function" &&
    typeof (v as AbortSignal).removeEventListener === "function" &&
    typeof (v as AbortSignal).aborted === "boolean",
  { error: "an AbortSignal" },
);
export const strictObject = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys" ? suggest(String(issue.keys[0]), Object.keys(shape)) : "an object",
  });

/** The checked value, or an INVALID_OPTION error that names the option; `what` is the name of the whole. */
export function check<T>(schema: z.ZodType<T>, input: unknown, what: string): T {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const { issues } = result.error;
  const issue = issues.find(({ code }) => code === "unrecognized_keys") ?? (issues[0] as z.core.$ZodIssue);
  const keys = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0] as string] : issue.path;
  const value = keys.reduce<unknown>((v, key) => (v as Record<PropertyKey, unknown>)?.[key], input);
  const option = keys
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("")
    .replace(/^\./, "");
  if (issue.code !== "unrecognized_keys") throw invalidOption(option || what, value, issue.message);
  const message = `unknown option "${option}"; ${issue.message}`;
  throw new SdarError("INVALID_OPTION", message, { option, value, allowed: issue.message });
}

/** The known name that was probably meant, else all of them. */
function suggest(name: string, known: string[]): string {
  const plain = (s: string) => s.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  const near = known
    .map((candidate) => ({ candidate, distance: editDistance(plain(name), plain(candidate)) }))
    .sort((a, b) => a.distance - b.distance)[0];
  if (near && near.distance <= Math.max(1, name.length / 4)) return `did you mean "${near.candidate}"?`;
  return `known are ${known.join(", ")}`;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
