// ==, <, in: as Python compares.
import { Dict, DictView, fail, iterate, Markup, Range, Tuple, typeName, Undefined, type Value } from "./values.js";

type Numeric = bigint | number;

/** An int, a float, or a bool as an int; undefined for all others. */
export function numeric(value: Value): Numeric | undefined {
  if (typeof value === "boolean") return BigInt(value);
  return typeof value === "bigint" || typeof value === "number" ? value : undefined;
}

export function equal(a: Value, b: Value): boolean {
  if (a === b) return true;
  const [x, y] = [numeric(a), numeric(b)];
  // biome-ignore lint/suspicious/noDoubleEquals: an int and a float are compared by value
  if (x !== undefined && y !== undefined) return x == y;
  if (Array.isArray(a) && Array.isArray(b)) return sameItems(a, b);
  if (a instanceof Tuple && b instanceof Tuple) return sameItems(a.items, b.items);
  if (a instanceof Dict && b instanceof Dict) {
    if (a.size !== b.size) return false;
    for (const [key, value] of a.entries()) {
      const other = b.get(key);
      if (other === undefined || !identicalOrEqual(value, other)) return false;
    }
    return true;
  }
  if (a instanceof Range && b instanceof Range) return sameItems(a.items(), b.items());
  if (a instanceof DictView && b instanceof DictView && a.type === b.type && a.type !== "dict_values") {
    return a.dict.size === b.dict.size && a.items().every((item) => contains(b, item));
  }
  if (a instanceof Markup) return equal(a.text, b);
  if (b instanceof Markup) return equal(a, b.text);
  return a instanceof Undefined && b instanceof Undefined;
}

function sameItems(a: Value[], b: Value[]): boolean {
  return a.length === b.length && a.every((item, index) => identicalOrEqual(item, b[index] as Value));
}

/** Python's containers take an object for equal to itself, even nan. */
function identicalOrEqual(a: Value, b: Value): boolean {
  return Object.is(a, b) || equal(a, b);
}

/** Below 0, 0 or above 0; NaN where a float is not a number. Throws where Python has no order. */
export function compare(a: Value, b: Value): number {
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== undefined && y !== undefined) return order(x, y);
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  if (Array.isArray(a) && Array.isArray(b)) return compareItems(a, b);
  if (a instanceof Tuple && b instanceof Tuple) return compareItems(a.items, b.items);
  for (const value of [a, b]) if (value instanceof Undefined) return fail(value.reason);
  return fail(`'<' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

function order(x: Numeric, y: Numeric): number {
  // biome-ignore lint/suspicious/noDoubleEquals: an int and a float are compared by value
  return x < y ? -1 : x > y ? 1 : x == y ? 0 : Number.NaN;
}

function compareItems(a: Value[], b: Value[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const [x, y] = [a[i] as Value, b[i] as Value];
    if (!identicalOrEqual(x, y)) return compare(x, y);
  }
  return a.length - b.length;
}

/** By code point: as UTF-16 units are, U+10000 and above would come before U+E000. */
function compareText(a: string, b: string): number {
  const moved = (unit: number) => (unit < 0xd800 ? unit : unit < 0xe000 ? unit + 0x2000 : unit - 0x800);
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) {
    const [x, y] = [a.charCodeAt(i), b.charCodeAt(i)];
    if (x !== y) return moved(x) - moved(y);
  }
  return a.length - b.length;
}

/** `item in container`. */
export function contains(container: Value, item: Value): boolean {
  if (typeof container === "string") {
    if (typeof item === "string") return container.includes(item);
    return fail(`'in <string>' requires string as left operand, not ${typeName(item)}`);
  }
  if (container instanceof Dict) return container.has(item);
  if (container instanceof DictView && container.type === "dict_keys") return container.dict.has(item);
  if (container instanceof Markup) return contains(container.text, item);
  for (const one of iterate(container)) if (identicalOrEqual(one, item)) return true;
  return false;
}

/** sorted(): stable, also in reverse. */
export function sorted<T>(items: T[], key: (item: T) => Value, reverse: boolean): T[] {
  const keyed = items.map((item) => ({ item, key: key(item) }));
  keyed.sort((a, b) => (reverse ? compare(b.key, a.key) : compare(a.key, b.key)));
  return keyed.map(({ item }) => item);
}

export type Comparison = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in";

export const comparisons: Record<Comparison, (a: Value, b: Value) => boolean> = {
  "==": equal,
  "!=": (a, b) => !equal(a, b),
  "<": (a, b) => compare(a, b) < 0,
  "<=": (a, b) => compare(a, b) <= 0,
  ">": (a, b) => compare(a, b) > 0,
  ">=": (a, b) => compare(a, b) >= 0,
  in: (a, b) => contains(b, a),
  "not in": (a, b) => !contains(b, a),
};
