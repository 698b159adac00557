// Building blocks of options.ts: schemas whose errors become SdarErrors that name the option, the value and what is allowed.
import { z } from "zod";
import { describe, invalidOption, SdarError } from "./errors.js";
import { bounds } from "./limits.js";
import { isAbortSignal } from "./signals.js";

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
export const signal = z.custom<AbortSignal>(isAbortSignal, { error: "an AbortSignal" });
export const text = (most: number, allowed = "a string") =>
  z.string({ error: allowed }).max(most, { error: `at most ${most} characters` });
export const strictObject = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys" ? suggest(String(issue.keys[0]), Object.keys(shape)) : "an object",
  });

/** Options whose values are objects of their own kinds; whoever takes them checks them. */
const taken = new Set([
  "signal",
  "tokens",
  "stopTokens",
  "suppress",
  "logitBias",
  "format",
  "schema",
  "pattern",
  "choices",
]);

/**
 * A copy of options, in which each property is read once: what getters and proxies say does not change under the checks, nor
 * what the caller does to it later. Objects of other kinds (promises, maps, …) become symbols, which no check lets pass.
 */
class Reader {
  #left: number = bounds.values;

  read(value: unknown, path: string, depth = 0): unknown {
    if (typeof value !== "object" || value === null) return value;
    if (depth > bounds.depth) throw this.#tooMuch(path, `at most ${bounds.depth} levels of lists and objects`);
    if (Array.isArray(value)) {
      // One more than a list may have, so that its own check refuses it.
      const length = Math.min(value.length, bounds.messages + 1);
      return Array.from({ length }, (_, i) => this.#entry(value[i], `${path}[${i}]`, depth));
    }
    const kind = Object.prototype.toString.call(value);
    if (kind !== "[object Object]") return Symbol(kind);
    const copy: [string, unknown][] = [];
    for (const key in value) {
      if (copy.length === bounds.names) throw this.#tooMuch(path || "options", `at most ${bounds.names} names`);
      // Before it is looked up, which hashes all of it.
      if (key.length > bounds.nameCharacters) {
        const what = [path, `${key.slice(0, 60)}…`].filter(Boolean).join(".");
        throw this.#tooMuch(what, `names of at most ${bounds.nameCharacters} characters`);
      }
      const member = (value as Record<string, unknown>)[key];
      const name = path === "" ? key : `${path}.${key}`;
      copy.push([key, depth === 0 && taken.has(key) ? member : this.#entry(member, name, depth)]);
    }
    return Object.fromEntries(copy);
  }

  #entry(value: unknown, path: string, depth: number): unknown {
    if (--this.#left < 0) throw this.#tooMuch(path, `at most ${bounds.values} values in all`);
    return this.read(value, path, depth + 1);
  }

  #tooMuch(path: string, allowed: string): SdarError {
    return new SdarError("INVALID_OPTION", `${path}: give ${allowed}`, { option: path, allowed });
  }
}

/** What `read` returns; what a getter or a proxy throws meanwhile becomes INVALID_OPTION. */
export function reading<T>(option: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof SdarError) throw cause;
    const message = `${option}: reading it failed: ${describe(cause)}`;
    throw new SdarError("INVALID_OPTION", message, { option, allowed: "a value that can be read", cause });
  }
}

/** The checked value, or an INVALID_OPTION error that names the option; `what` is the name of the whole. */
export function check<T>(schema: z.ZodType<T>, given: unknown, what: string): T {
  const input = reading(what, () => new Reader().read(given, ""));
  const result = reading(what, () => schema.safeParse(input));
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
  const message = `unknown option "${option.slice(0, 60)}"; ${issue.message}`;
  throw new SdarError("INVALID_OPTION", message, { option, value, allowed: issue.message });
}

/** The known name that was probably meant, else all of them. */
function suggest(name: string, known: string[]): string {
  // Nobody means a name so long, and comparing costs its length.
  if (name.length > 40) return `known are ${known.join(", ")}`;
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
