// What a template runs with: scopes, output, macros, loops and the global functions.
import { equal } from "./compare.js";
import { bound } from "./functions.js";
import { repr, str } from "./text.js";
import { strftimeNow } from "./time.js";
import {
  type Arg,
  type Args,
  Dict,
  Fn,
  fail,
  iterate,
  orElse,
  PyObject,
  Range,
  Tuple,
  typeName,
  Undefined,
  unsupported,
  type Value,
} from "./values.js";

/** Bounds of one rendering. Jinja2's sandbox has the first alone. */
const longestRange = 100_000;
const mostIterations = 2_000_000;
const longestOutput = 100_000_000;

/** Text as it is written. */
export class Output {
  #parts: string[] = [];
  #length = 0;
  write(text: string): void {
    this.#length += text.length;
    if (this.#length > longestOutput) fail(`more than ${longestOutput} characters of output`);
    this.#parts.push(text);
  }
  toString(): string {
    return this.#parts.join("");
  }
}

/** A scope: variables set in it, then those of the scopes around it. */
export class Frame {
  readonly #variables = new Map<string, Value>();
  readonly #parent: Frame | undefined;
  readonly #budget: { iterations: number };
  constructor(parent?: Frame) {
    this.#parent = parent;
    this.#budget = parent ? parent.#budget : { iterations: mostIterations };
  }
  get(name: string): Value {
    for (let frame: Frame | undefined = this; frame; frame = frame.#parent) {
      const value = frame.#variables.get(name);
      if (value !== undefined) return value;
    }
    return new Undefined(`'${name}' is undefined`);
  }
  set(name: string, value: Value): void {
    this.#variables.set(name, value);
  }
  countIteration(): void {
    if (--this.#budget.iterations < 0) fail(`more than ${mostIterations} iterations`);
  }
}

export function call(callee: Value, args: Args): Value {
  if (callee instanceof Fn) return callee.call(args);
  if (callee instanceof Undefined) return fail(callee.reason);
  return fail(`'${typeName(callee)}' object is not callable`);
}

export interface Parameter {
  name: string;
  fallback: ((frame: Frame) => Value) | undefined;
}

/** A macro, or the body of a call block, whose name is undefined. */
export class Macro extends Fn {
  override readonly type = "Macro";
  constructor(
    readonly title: string | undefined,
    readonly parameters: Parameter[],
    /** which of caller, kwargs and varargs the body uses */
    readonly uses: Set<string>,
    readonly closure: Frame,
    readonly body: (frame: Frame) => string,
  ) {
    super(title ?? "caller", (args) => this.run(args));
  }

  run({ positional, named }: Args): string {
    const { parameters, uses, title } = this;
    const rest = new Map(named);
    const frame = new Frame(this.closure);
    const given = parameters.map(({ name }, index): Arg => {
      if (index < positional.length) return positional[index];
      const value = rest.get(name);
      rest.delete(name);
      return value;
    });
    const takesCaller = uses.has("caller") && !parameters.some(({ name }) => name === "caller");
    if (takesCaller) {
      frame.set(
        "caller",
        orElse(rest.get("caller"), () => new Undefined("No caller defined")),
      );
      rest.delete("caller");
    }
    if (uses.has("kwargs")) frame.set("kwargs", new Dict(rest));
    else for (const name of rest.keys()) fail(`macro '${title}' takes no keyword argument '${name}'`);
    const varargs = positional.slice(parameters.length);
    if (uses.has("varargs")) frame.set("varargs", new Tuple(varargs));
    else if (varargs.length > 0) fail(`macro '${title}' takes not more than ${parameters.length} argument(s)`);
    // A parameter's default may use the parameters before it, and sees those after it as not given.
    for (const [index, { name }] of parameters.entries()) {
      frame.set(
        name,
        orElse(given[index], () => new Undefined(`parameter '${name}' was not provided`)),
      );
    }
    for (const [index, { name, fallback }] of parameters.entries()) {
      if (given[index] === undefined && fallback) frame.set(name, fallback(frame));
    }
    return this.body(frame);
  }

  repr(): string {
    return this.title === undefined ? "<Macro anonymous>" : `<Macro ${repr(this.title)}>`;
  }

  override attribute(name: string): Arg {
    if (name === "name") return this.title ?? null;
    if (name === "arguments") return new Tuple(this.parameters.map((parameter) => parameter.name));
    return name.startsWith("c") || name === "explicit_caller" ? unsupported(`macro.${name}`) : undefined;
  }
}

/** `loop` inside of a for. */
export class Loop extends Fn {
  override readonly type = "LoopContext";
  index0 = -1;
  #changed: Arg;
  constructor(
    readonly items: Value[],
    readonly depth0: number,
    recurse: ((items: Value, depth0: number) => string) | undefined,
  ) {
    super("loop", (args) => {
      if (!recurse) return fail("The loop must have the 'recursive' marker to be called recursively.");
      return bound("iterable", (_, items) => recurse(items as Value, depth0 + 1))(null, args);
    });
  }

  override attribute(name: string): Arg {
    const { index0, items, depth0 } = this;
    switch (name) {
      case "index0":
        return BigInt(index0);
      case "index":
        return BigInt(index0 + 1);
      case "revindex0":
        return BigInt(items.length - index0 - 1);
      case "revindex":
        return BigInt(items.length - index0);
      case "first":
        return index0 === 0;
      case "last":
        return index0 === items.length - 1;
      case "length":
        return BigInt(items.length);
      case "depth0":
        return BigInt(depth0);
      case "depth":
        return BigInt(depth0 + 1);
      case "previtem":
        return orElse(items[index0 - 1], () => new Undefined("there is no previous item"));
      case "nextitem":
        return orElse(items[index0 + 1], () => new Undefined("there is no next item"));
      case "cycle":
        return positionalOnly("loop.cycle", (values) =>
          values.length > 0 ? (values[index0 % values.length] as Value) : fail("no items for cycling given"),
        );
      case "changed":
        return positionalOnly("loop.changed", (values) => {
          const now = new Tuple(values);
          const changed = this.#changed === undefined || !equal(this.#changed, now);
          if (changed) this.#changed = now;
          return changed;
        });
      default:
        return undefined;
    }
  }

  repr(): string {
    return `<LoopContext ${this.index0 + 1}/${this.items.length}>`;
  }
}

function positionalOnly(name: string, run: (values: Value[]) => Value): Fn {
  return new Fn(name, ({ positional, named }) =>
    named.size > 0 ? fail(`${name}() takes no keyword arguments`) : run(positional),
  );
}

export class Namespace extends PyObject {
  readonly type = "Namespace";
  constructor(readonly values: Dict) {
    super();
  }
  override attribute(name: string): Arg {
    return this.values.get(name);
  }
  repr(): string {
    return `<Namespace ${repr(this.values)}>`;
  }
}

class Cycler extends PyObject {
  readonly type = "Cycler";
  #at = 0;
  constructor(readonly items: Value[]) {
    super();
  }
  override attribute(name: string): Arg {
    const current = this.items[this.#at] as Value;
    if (name === "current") return current;
    if (name === "items") return new Tuple(this.items);
    if (name === "pos") return BigInt(this.#at);
    if (name === "next" || name === "reset") {
      return positionalOnly(`cycler.${name}`, () => {
        const value = this.items[this.#at] as Value;
        this.#at = name === "next" ? (this.#at + 1) % this.items.length : 0;
        return name === "next" ? value : null;
      });
    }
    return undefined;
  }
}

class Joiner extends Fn {
  override readonly type = "Joiner";
  constructor(separator: Value) {
    let used = false;
    super("joiner", () => {
      const text = used ? separator : "";
      used = true;
      return text;
    });
  }
}

/** dict(*args, **named). */
function dictOf({ positional, named }: Args): Dict {
  const [source, ...more] = positional;
  if (more.length > 0) fail("dict expected at most 1 argument");
  const dict = new Dict();
  if (source instanceof Dict) for (const [key, value] of source.entries()) dict.set(key, value);
  else if (source !== undefined) {
    for (const pair of iterate(source)) {
      const [key, value, ...rest] = iterate(pair);
      if (key === undefined || value === undefined || rest.length > 0) return fail("dict: each item must be a pair");
      dict.set(key, value);
    }
  }
  for (const [name, value] of named) dict.set(name, value);
  return dict;
}

function rangeOf(values: Value[]): Value {
  const numbers = values.map((value) => {
    if (typeof value === "bigint" || typeof value === "boolean") return BigInt(value);
    return fail(
      value instanceof Undefined ? value.reason : `'${typeName(value)}' object cannot be interpreted as an integer`,
    );
  });
  if (numbers.length < 1 || numbers.length > 3) return fail("range expected 1 to 3 arguments");
  const [start, stop, step] =
    numbers.length === 1
      ? [0n, numbers[0] as bigint, 1n]
      : [numbers[0] as bigint, numbers[1] as bigint, numbers[2] ?? 1n];
  const range = new Range(start, stop, step);
  return range.length > longestRange
    ? fail(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${longestRange}).`)
    : range;
}

const simple = (name: string, signature: string, run: (...args: Arg[]) => Value) => {
  const native = bound(signature, (_, ...args) => run(...args));
  return new Fn(name, (args) => native(null, args));
};

/** What every template knows: Jinja2's globals, and the two of transformers. */
export function globals(): Frame {
  const frame = new Frame();
  const functions = [
    positionalOnly("range", rangeOf),
    new Fn("dict", dictOf),
    new Fn("namespace", (args) => new Namespace(dictOf(args))),
    positionalOnly("cycler", (items) =>
      items.length > 0 ? new Cycler(items) : fail("at least one item has to be provided"),
    ),
    simple("joiner", "sep?", (separator) => new Joiner(orElse(separator, () => ", "))),
    simple("raise_exception", "message", (message) => fail(str(message as Value))),
    simple("strftime_now", "format", (format) => strftimeNow(format as Value)),
    new Fn("lipsum", () => unsupported("lipsum")),
  ];
  for (const one of functions) frame.set(one.name, one);
  return frame;
}
