// What a template computes with: Python's values. None is null, an int is a bigint, a float is a number, a str is a
// string (counted in code points), a list is an array; the others are the classes below.

export type Value = null | boolean | bigint | number | string | Value[] | PyObject;
/** An argument that may be left out. */
export type Arg = Value | undefined;
export interface Args {
  positional: Value[];
  named: Map<string, Value>;
}

/** `value`, unless there is none. Where a value may be None, `??` would take that for no value. */
export function orElse(value: Arg, otherwise: () => Value): Value {
  return value === undefined ? otherwise() : value;
}

/** Whatever ends a rendering: the template's own refusal, what Python would raise, and what is not supported. */
export class JinjaError extends Error {}

export function fail(message: string): never {
  throw new JinjaError(message);
}

/** For what Jinja has and this interpreter has not: better refused than different. */
export function unsupported(what: string): never {
  throw new JinjaError(`${what} is not supported`);
}

export abstract class PyObject {
  /** the name of Python's type, for messages */
  abstract readonly type: string;
  /** An attribute by its name; undefined when there is none. */
  attribute(_name: string): Arg {
    return undefined;
  }
}

export class Undefined extends PyObject {
  readonly type = "Undefined";
  /** `reason` is what using it fails with. */
  constructor(readonly reason: string) {
    super();
  }
}

/** Text that `escape` or `safe` has marked; here it can only be written out. */
export class Markup extends PyObject {
  readonly type = "Markup";
  constructor(readonly text: string) {
    super();
  }
}

export class Tuple extends PyObject {
  readonly type = "tuple";
  /** `names` are those of a named tuple's first items. */
  constructor(
    readonly items: Value[],
    readonly names: string[] = [],
  ) {
    super();
  }
  override attribute(name: string): Arg {
    const index = this.names.indexOf(name);
    return index < 0 ? undefined : this.items[index];
  }
}

export class Dict extends PyObject {
  readonly type = "dict";
  readonly #entries = new Map<unknown, [key: Value, value: Value]>();
  constructor(entries: Iterable<[Value, Value]> = []) {
    super();
    for (const [key, value] of entries) this.set(key, value);
  }
  get size(): number {
    return this.#entries.size;
  }
  get(key: Value): Arg {
    return this.#entries.get(hash(key))?.[1];
  }
  has(key: Value): boolean {
    return this.#entries.has(hash(key));
  }
  /** The first of two equal keys stays, as in Python: {1: "a", true: "b"} is {1: "b"}. */
  set(key: Value, value: Value): void {
    const hashed = hash(key);
    const entry = this.#entries.get(hashed);
    if (entry) entry[1] = value;
    else this.#entries.set(hashed, [key, value]);
  }
  entries(): Iterable<[Value, Value]> {
    return this.#entries.values();
  }
  keys(): Value[] {
    return Array.from(this.#entries.values(), ([key]) => key);
  }
  values(): Value[] {
    return Array.from(this.#entries.values(), ([, value]) => value);
  }
}

/** What dict.keys(), values() and items() return. */
export class DictView extends PyObject {
  constructor(
    readonly type: "dict_keys" | "dict_values" | "dict_items",
    readonly dict: Dict,
  ) {
    super();
  }
  items(): Value[] {
    if (this.type === "dict_keys") return this.dict.keys();
    if (this.type === "dict_values") return this.dict.values();
    return Array.from(this.dict.entries(), (entry) => new Tuple([...entry]));
  }
}

export class Range extends PyObject {
  readonly type = "range";
  readonly length: number;
  constructor(
    readonly start: bigint,
    readonly stop: bigint,
    readonly step: bigint,
  ) {
    super();
    if (step === 0n) fail("range() arg 3 must not be zero");
    const span = step > 0n ? stop - start : start - stop;
    const stride = step > 0n ? step : -step;
    this.length = span <= 0n ? 0 : Number((span + stride - 1n) / stride);
  }
  at(index: number): bigint {
    return this.start + BigInt(index) * this.step;
  }
  items(): bigint[] {
    return Array.from({ length: this.length }, (_, index) => this.at(index));
  }
}

/** A generator or another iterator of Python's: to be gone through once. */
export class Iter extends PyObject {
  readonly type = "generator";
  readonly #source: Iterator<Value>;
  constructor(source: Iterable<Value>) {
    super();
    this.#source = source[Symbol.iterator]();
  }
  next(): IteratorResult<Value> {
    return this.#source.next();
  }
  /** Without `return`: what a loop leaves is there for the next one. */
  [Symbol.iterator](): Iterator<Value> {
    return { next: () => this.#source.next() };
  }
}

export class Fn extends PyObject {
  readonly type: string = "builtin_function_or_method";
  constructor(
    readonly name: string,
    readonly call: (args: Args) => Value,
  ) {
    super();
  }
}

/** What `hash()` makes equal keys equal by; text is itself, so that lookups of names are fast. */
function hash(key: Value): unknown {
  if (typeof key === "string") return key.startsWith("\0") ? `\0s${key}` : key;
  if (typeof key === "boolean") return BigInt(key);
  if (typeof key === "number") return Number.isInteger(key) ? BigInt(key) : key;
  if (key === null || typeof key === "bigint") return key;
  if (key instanceof Tuple) {
    const part = (hashed: unknown) => (typeof hashed === "string" ? JSON.stringify(hashed) : identity(hashed));
    return `\0t${key.items.map((item) => part(hash(item))).join()}`;
  }
  if (key instanceof Undefined) return Undefined;
  if (key instanceof Markup) return hash(key.text);
  const unhashable =
    Array.isArray(key) || key instanceof Dict || (key instanceof DictView && key.type !== "dict_values");
  if (unhashable) return fail(`unhashable type: '${typeName(key)}'`);
  return key;
}

const identities = new WeakMap<object, number>();
let lastIdentity = 0;

function identity(value: unknown): string {
  if (typeof value !== "object" && typeof value !== "function") return String(value);
  if (value === null) return "null";
  if (!identities.has(value)) identities.set(value, ++lastIdentity);
  return `@${identities.get(value)}`;
}

export function typeName(value: Value): string {
  switch (typeof value) {
    case "string":
      return "str";
    case "bigint":
      return "int";
    case "number":
      return "float";
    case "boolean":
      return "bool";
    default:
      return value === null ? "NoneType" : value instanceof PyObject ? value.type : "list";
  }
}

export function truthy(value: Value): boolean {
  if (typeof value === "string") return value !== "";
  if (value === null) return false;
  return lengthOf(value) !== 0 && value !== false && value !== 0n && value !== 0;
}

/** len(value); undefined when it has none. */
export function lengthOf(value: Value): number | undefined {
  if (typeof value === "string") return codePoints(value).length;
  if (Array.isArray(value) || value instanceof Range) return value.length;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof DictView) return value.dict.size;
  if (value instanceof Undefined) return 0;
  if (value instanceof Markup) return codePoints(value.text).length;
  return undefined;
}

export function isIterable(value: Value): boolean {
  return lengthOf(value) !== undefined || value instanceof Iter || typeName(value) === "LoopContext";
}

export function iterate(value: Value): Iterable<Value> {
  if (typeof value === "string" || Array.isArray(value) || value instanceof Iter) return value;
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) return value.keys();
  if (value instanceof DictView || value instanceof Range) return value.items();
  if (value instanceof Undefined) return [];
  if (value instanceof Markup) return unsupported("going through Markup");
  if (isIterable(value)) return unsupported(`going through a ${typeName(value)}`);
  return fail(`'${typeName(value)}' object is not iterable`);
}

/** Matches where a character takes two UTF-16 units. */
export const surrogate = /[\ud800-\udfff]/;
let lastText = "";
let lastPoints: string | string[] = "";

/** Text to be indexed by code point: itself, where no character takes two UTF-16 units. */
export function codePoints(text: string): string | string[] {
  if (text !== lastText) {
    lastPoints = surrogate.test(text) ? Array.from(text) : text;
    lastText = text;
  }
  return lastPoints;
}

/** A value of JavaScript's, as from JSON. Whole numbers are ints: JavaScript does not tell 2.0 from 2. */
export function fromJs(value: unknown): Value {
  switch (typeof value) {
    case "string":
    case "boolean":
    case "bigint":
      return value;
    case "number":
      return Number.isSafeInteger(value) ? BigInt(value) : value;
    case "object":
      if (value === null) return null;
      if (Array.isArray(value)) return value.map((item) => fromJs(item ?? null));
      return dictOf(value);
    default:
      return fail(`a ${typeof value} cannot be given to a template`);
  }
}

function dictOf(object: object): Dict {
  const dict = new Dict();
  for (const [key, item] of Object.entries(object)) if (item !== undefined) dict.set(key, fromJs(item));
  return dict;
}
