// How functions written here take Python's arguments.
import { numeric } from "./compare.js";
import { scaled } from "./text.js";
import { type Arg, type Args, fail, typeName, Undefined, type Value } from "./values.js";

/** A function of a value and the arguments it is called with: a method, a filter or a test. */
export type Native = (self: Value, args: Args) => Value;

/**
 * Gives `run` its arguments in order. `signature` names them, as in "old new count?": "?" marks those that may be left
 * out, "/" ends those that cannot be given by name.
 */
export function bound<T extends Value>(signature: string, run: (self: T, ...args: Arg[]) => Value): Native {
  const words = signature.split(" ").filter((word) => word !== "");
  const positionalOnly = words.indexOf("/");
  const parameters = words
    .filter((word) => word !== "/")
    .map((word, index) => ({
      name: word.replace("?", ""),
      optional: word.endsWith("?"),
      named: index >= positionalOnly,
    }));
  return (self, { positional, named }) => {
    if (positional.length > parameters.length) {
      fail(`takes at most ${parameters.length} arguments (${positional.length} given)`);
    }
    if (named.size === 0 && positional.length === parameters.length) return run(self as T, ...positional);
    const values: Arg[] = [...positional];
    for (const [name, value] of named) {
      const index = parameters.findIndex((parameter) => parameter.named && parameter.name === name);
      if (index < 0) fail(`got an unexpected keyword argument '${name}'`);
      if (index < positional.length) fail(`got multiple values for argument '${name}'`);
      values[index] = value;
    }
    for (const [index, { name, optional }] of parameters.entries()) {
      if (!optional && values[index] === undefined) fail(`missing a required argument: '${name}'`);
    }
    return run(self as T, ...values);
  };
}

/** An argument that must be an int; `fallback` where it is left out. */
export function asInt(value: Arg, fallback?: number): number {
  if (value === undefined && fallback !== undefined) return fallback;
  if (typeof value === "bigint" || typeof value === "boolean") return Number(value);
  return wrongType(value, "an int");
}

/** The same, where None stands for the fallback as well. */
export function asIntOrNone(value: Arg, fallback: number): number {
  return value === null ? fallback : asInt(value, fallback);
}

export function asText(value: Arg, fallback?: string): string {
  if (value === undefined && fallback !== undefined) return fallback;
  return typeof value === "string" ? value : wrongType(value, "a str");
}

function wrongType(value: Arg, wanted: string): never {
  if (value instanceof Undefined) return fail(value.reason);
  return fail(`${wanted} is needed, not ${value === undefined ? "nothing" : typeName(value)}`);
}

export function asFloat(x: bigint | number): number {
  const result = Number(x);
  return Number.isFinite(result) || typeof x === "number" ? result : fail("int too large to convert to float");
}

/** int(value) of a number: towards zero. */
export function truncated(value: Value): bigint {
  const x = numeric(value);
  if (typeof x === "bigint") return x;
  return x === undefined ? wrongType(value, "a number") : scaled(Math.trunc(x), 0);
}

/** int(text, base); undefined where Python raises a ValueError. */
export function parseInteger(text: string, base = 10): bigint | undefined {
  const match = /^[\s]*([-+]?)(0[box])?_?([0-9a-z]+(?:_[0-9a-z]+)*)[\s]*$/i.exec(text);
  if (!match) return undefined;
  const [, sign, prefix = "", digits] = match as unknown as [string, string, string | undefined, string];
  const bases: Record<string, number> = { "0b": 2, "0o": 8, "0x": 16 };
  const named = bases[prefix.toLowerCase()];
  if (prefix && named !== base && base !== 0) {
    // "0b1" is a number in base 16, where b is a digit.
    return prefix && base > 11 && /^[0-9a-z_]+$/i.test(prefix + digits)
      ? digitsOf(sign, prefix + digits, base)
      : undefined;
  }
  if (!prefix && /^\s*[-+]?_/.test(text)) return undefined;
  if (base === 0 && !prefix && /^0[0_]*[1-9]/.test(digits)) return undefined;
  return digitsOf(sign, digits, base === 0 ? (named ?? 10) : base);
}

function digitsOf(sign: string, digits: string, base: number): bigint | undefined {
  let result = 0n;
  for (const digit of digits.replaceAll("_", "")) {
    const value = Number.parseInt(digit, base);
    if (Number.isNaN(value)) return undefined;
    result = result * BigInt(base) + BigInt(value);
  }
  return sign === "-" ? -result : result;
}

/** float(text); undefined where Python raises a ValueError. */
export function parseFloatText(text: string): number | undefined {
  const trimmed = text.trim().replace(/(?<=\d)_(?=\d)/g, "");
  if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(trimmed)) return Number(trimmed);
  const special = /^([-+]?)(inf|infinity|nan)$/i.exec(trimmed);
  if (!special) return undefined;
  const value = special[2]?.toLowerCase() === "nan" ? Number.NaN : Number.POSITIVE_INFINITY;
  return special[1] === "-" ? -value : value;
}

/** Where slice(start, stop) of a sequence begins and ends. */
export function clamp(index: number, length: number): number {
  return Math.min(length, Math.max(0, index < 0 ? index + length : index));
}

/** The indices that start:stop:step takes of so many items. */
export function sliceIndices(bounds: Value[], length: number): number[] {
  const [start, stop, step = 1] = bounds.map((bound) => (bound === null ? undefined : asInt(bound)));
  if (step === 0) return fail("slice step cannot be zero");
  const indices: number[] = [];
  if (step > 0) {
    const end = clamp(stop ?? length, length);
    for (let i = clamp(start ?? 0, length); i < end; i += step) indices.push(i);
  } else {
    const from = (index: number) => Math.min(length - 1, Math.max(-1, index < 0 ? index + length : index));
    const end = stop === undefined ? -1 : from(stop);
    for (let i = start === undefined ? length - 1 : from(start); i > end; i += step) indices.push(i);
  }
  return indices;
}
