// The filters of Jinja2, with the tojson of transformers. Text is what str() makes of a value, as Jinja2 has it.
import { attribute, getAttribute, getItem } from "./attributes.js";
import { compare, equal, numeric, sorted } from "./compare.js";
import { escapeHtml, urlencode } from "./escape.js";
import { formatPercent } from "./format.js";
import { asFloat, asInt, bound, type Native, parseFloatText, parseInteger, truncated } from "./functions.js";
import { tojson } from "./json.js";
import { pythonSpace } from "./lexer.js";
import { negate, operators } from "./operators.js";
import { capitalize, join, replace, splitLines, stringMethods, strip } from "./strings.js";
import { runTest } from "./tests.js";
import { halfEven, scaled, str } from "./text.js";
import {
  type Arg,
  type Args,
  codePoints,
  Dict,
  fail,
  Iter,
  isIterable,
  iterate,
  lengthOf,
  Markup,
  orElse,
  Tuple,
  truthy,
  typeName,
  Undefined,
  unsupported,
  type Value,
} from "./values.js";

const noArgs: Args = { positional: [], named: new Map() };

/** A filter that takes what str() makes of the value. */
function textFilter(signature: string, run: (text: string, ...args: Arg[]) => Value): Native {
  return bound(signature, (value, ...args) => run(plain(value), ...args));
}

/** str(value); methods of Markup escape what they are given, which nothing here does. */
function plain(value: Value): string {
  return value instanceof Markup ? unsupported("a filter on Markup") : str(value);
}

function length(value: Value): bigint {
  const found = typeName(value) === "LoopContext" ? (getAttribute(value, "length") as bigint) : lengthOf(value);
  return found === undefined ? fail(`object of type '${typeName(value)}' has no len()`) : BigInt(found);
}

/** What takes an attribute's value out of an item, along a path like "function.name" or "0.name". */
export function getter(path: Arg, fallback?: Arg, postprocess = (value: Value) => value): (item: Value) => Value {
  const parts: Value[] =
    path === undefined || path === null
      ? []
      : typeof path === "string"
        ? path.split(".").map((part) => (/^\p{Nd}+$/u.test(part) ? BigInt(part) : part))
        : [path];
  return (item) => {
    let value = item;
    for (const part of parts) {
      value = getItem(value, part);
      if (value instanceof Undefined && fallback !== undefined && fallback !== null) value = fallback;
    }
    return postprocess(value);
  };
}

const ignoreCase = (value: Value): Value => (typeof value === "string" ? value.toLowerCase() : value);
const caseOf = (sensitive: Arg) => (sensitive !== undefined && truthy(sensitive) ? undefined : ignoreCase);

/** An iterator that does nothing until it is asked, as a generator function of Python's. */
function lazily(generate: () => Iterable<Value>): Iter {
  return new Iter(
    (function* () {
      yield* generate();
    })(),
  );
}

const isTrue = (value: Arg) => value !== undefined && truthy(value);

function extreme(sign: 1 | -1): Native {
  return bound("case_sensitive? attribute?", (value, sensitive, path) => {
    const key = getter(path, undefined, caseOf(sensitive));
    let best: { item: Value; key: Value } | undefined;
    for (const item of iterate(value)) {
      const candidate = { item, key: key(item) };
      if (!best || compare(candidate.key, best.key) * sign > 0) best = candidate;
    }
    return orElse(best?.item, () => new Undefined("No aggregated item, sequence was empty."));
  });
}

function selecting(keep: boolean, byAttribute: boolean): Native {
  return (value, { positional, named }) =>
    lazily(function* () {
      if (!truthy(value)) return;
      const [path, ...rest] = byAttribute ? positional : [null, ...positional];
      if (path === undefined) fail("Missing parameter for attribute name");
      const get = getter(path);
      const [test, ...args] = rest;
      for (const item of iterate(value)) {
        const passed =
          test === undefined ? truthy(get(item)) : truthy(runTest(str(test), get(item), { positional: args, named }));
        if (passed === keep) yield item;
      }
    });
}

function map(value: Value, { positional, named }: Args): Value {
  return lazily(function* () {
    if (!truthy(value)) return;
    let apply: (item: Value) => Value;
    if (positional.length === 0 && named.has("attribute")) {
      for (const name of named.keys())
        if (name !== "attribute" && name !== "default") fail(`Unexpected keyword argument '${name}'`);
      apply = getter(named.get("attribute"), named.get("default"));
    } else {
      const [name, ...args] = positional;
      if (name === undefined) fail("map requires a filter argument");
      apply = (item) => runFilter(str(name as Value), item, { positional: args, named });
    }
    for (const item of iterate(value)) yield apply(item);
  });
}

function groupby(value: Value, path: Arg, fallback: Arg, sensitive: Arg): Value {
  const key = getter(path, fallback, caseOf(sensitive));
  const groups: { key: Value; items: Value[] }[] = [];
  for (const item of sorted([...iterate(value)], key, false)) {
    const last = groups.at(-1);
    if (last && equal(last.key, key(item))) last.items.push(item);
    else groups.push({ key: key(item), items: [item] });
  }
  // Without regard to case, a group has the name that its first item has.
  const shown = getter(path, fallback);
  return groups.map(({ items }) => new Tuple([shown(items[0] as Value), items], ["grouper", "list"]));
}

function round(value: Value, precision: Arg, method: Arg): Value {
  const how = orElse(method, () => "common");
  const digits = asInt(precision, 0);
  const x =
    numeric(value) ??
    fail(value instanceof Undefined ? value.reason : `type ${typeName(value)} doesn't define __round__ method`);
  if (Math.abs(digits) > 1000) return fail("round: a precision beyond 1000");
  if (how === "common") {
    if (typeof x === "bigint") {
      const unit = digits < 0 ? 10n ** BigInt(-digits) : 1n;
      return x < 0n ? -halfEven(-x, unit) * unit : halfEven(x, unit) * unit;
    }
    return Number.isFinite(x) ? roundedFloat(x, digits) : x;
  }
  if (how !== "ceil" && how !== "floor") return fail("method must be common, ceil or floor");
  const power = operators["**"](10n, BigInt(digits));
  const times = asFloat(numeric(operators["*"](value, power)) as number);
  return operators["/"](truncated(how === "ceil" ? Math.ceil(times) : Math.floor(times)), power);
}

function roundedFloat(x: number, digits: number): number {
  const result = Number(`${scaled(x, digits)}e${-digits}`);
  return result === 0 && (x < 0 || Object.is(x, -0)) ? -0 : result;
}

function toInt(value: Value, fallback: Arg = 0n, base: Arg = 10n): Value {
  if (value instanceof Undefined) return fail(value.reason);
  const parsed = typeof value === "string" ? parseInteger(value, asInt(base)) : undefined;
  const x = parsed ?? (typeof value === "string" ? parseFloatText(value) : numeric(value));
  if (typeof x !== "number") return x ?? fallback;
  // int(inf) raises what Jinja2 takes for text alone.
  if (!Number.isFinite(x))
    return Number.isNaN(x) || typeof value === "string" ? fallback : fail("cannot convert float infinity to integer");
  return truncated(x);
}

function toFloat(value: Value, fallback: Arg = 0): Value {
  if (value instanceof Undefined) return fail(value.reason);
  const x = typeof value === "string" ? parseFloatText(value) : numeric(value);
  return x === undefined ? fallback : asFloat(x);
}

function indent(value: Value, width: Arg, first: Arg, blank: Arg): string {
  if (value instanceof Markup) return unsupported("indent of Markup");
  if (typeof value !== "string")
    return fail(value instanceof Undefined ? value.reason : `indent needs text, not ${typeName(value)}`);
  const indention = typeof width === "string" ? width : " ".repeat(Math.min(10_000, Math.max(0, asInt(width, 4))));
  const lines = splitLines(`${value}\n`);
  const indented = lines.map((line, i) => (i > 0 && (line || isTrue(blank)) ? indention + line : line)).join("\n");
  return isTrue(first) ? indention + indented : indented;
}

function truncate(value: Value, most: Arg, killWords: Arg, end: Arg, leeway: Arg): Value {
  if (typeof value !== "string") return unsupported(`truncate of a ${typeName(value)}`);
  const [points, limit, tail] = [codePoints(value), asInt(most, 255), str(orElse(end, () => "..."))];
  const room = limit - codePoints(tail).length;
  const slack = leeway === null ? 5 : asInt(leeway, 5);
  if (room < 0 || slack < 0) return fail(`truncate: a length of ${limit} and a leeway of ${slack}`);
  if (points.length <= limit + slack) return value;
  const kept = Array.from(points).slice(0, room).join("");
  return (isTrue(killWords) || !kept.includes(" ") ? kept : kept.slice(0, kept.lastIndexOf(" "))) + tail;
}

function reverse(value: Value): Value {
  if (typeof value === "string") return Array.from(value).reverse().join("");
  if (value instanceof Markup) return unsupported("reverse of Markup");
  if (!isIterable(value)) return fail("argument must be iterable");
  const items = [...iterate(value)].reverse();
  return value instanceof Iter ? items : new Iter(items);
}

function last(value: Value): Value {
  if (value instanceof Iter || !isIterable(value)) return fail(`'${typeName(value)}' object is not reversible`);
  return orElse([...iterate(value)].at(-1), () => new Undefined("No last item, sequence was empty."));
}

function first(value: Value): Value {
  const next = iterate(value)[Symbol.iterator]().next();
  return next.done ? new Undefined("No first item, sequence was empty.") : next.value;
}

function batch(value: Value, count: Arg, fill: Arg): Value {
  return lazily(function* () {
    const size = asInt(count);
    let group: Value[] = [];
    for (const item of iterate(value)) {
      if (group.length === size) {
        yield group;
        group = [];
      }
      group.push(item);
    }
    if (group.length === 0) return;
    if (fill !== undefined && fill !== null) while (group.length < size) group.push(fill);
    yield group;
  });
}

function slices(value: Value, count: Arg, fill: Arg): Value {
  return lazily(function* () {
    const [items, parts] = [[...iterate(value)], asInt(count)];
    if (parts === 0) fail("integer division or modulo by zero");
    const [each, longer] = [Math.floor(items.length / parts), items.length % parts];
    let at = 0;
    for (let i = 0; i < parts; i++) {
      const next = at + each + (i < longer ? 1 : 0);
      const group = items.slice(at, next);
      at = next;
      if (fill !== undefined && fill !== null && i >= longer) group.push(fill);
      yield group;
    }
  });
}

function dictsort(value: Value, sensitive: Arg, by: Arg, reversed: Arg): Value {
  const place =
    by === undefined || by === "key" ? 0 : by === "value" ? 1 : fail('You can only sort by either "key" or "value"');
  if (!(value instanceof Dict))
    return fail(value instanceof Undefined ? value.reason : `'${typeName(value)}' object has no attribute 'items'`);
  const key = caseOf(sensitive) ?? ((one: Value) => one);
  return sorted([...value.entries()], (entry) => key(entry[place]), isTrue(reversed)).map(
    (entry) => new Tuple([...entry]),
  );
}

const wordBreaks = new RegExp(`([-${pythonSpace}({[<]+)`);

const titled = (text: string) =>
  text
    .split(wordBreaks)
    .map((word) => {
      const [head = ""] = word;
      return head.toUpperCase() + word.slice(head.length).toLowerCase();
    })
    .join("");

const isDefault = (value: Value, boolean: Arg) => value instanceof Undefined || (isTrue(boolean) && !truthy(value));
const defaultFilter = bound("default_value? boolean?", (value, fallback, boolean) =>
  isDefault(value, boolean) ? orElse(fallback, () => "") : value,
);
const center = stringMethods.center as Native;
const lengthFilter = bound("", length);
const escapeFilter = bound("", escapeHtml);

const filters: Record<string, Native> = {
  abs: bound("", (value) =>
    numeric(value) === undefined
      ? negate(value)
      : (numeric(value) as number) < 0
        ? negate(value)
        : (numeric(value) as number),
  ),
  attr: bound("name", (value, name) => {
    const key = str(name as Value);
    return orElse(attribute(value, key), () => new Undefined(`'${typeName(value)}' object has no attribute '${key}'`));
  }),
  batch: bound("linecount fill_with?", batch),
  capitalize: textFilter("", capitalize),
  center: textFilter("width?", (text, width) => center(text, { ...noArgs, positional: [orElse(width, () => 80n)] })),
  count: lengthFilter,
  d: defaultFilter,
  default: defaultFilter,
  dictsort: bound("case_sensitive? by? reverse?", dictsort),
  e: escapeFilter,
  escape: escapeFilter,
  first: bound("", first),
  float: bound("default?", toFloat),
  forceescape: bound("", (value) => escapeHtml(str(value))),
  format: (value, { positional, named }) => {
    if (positional.length > 0 && named.size > 0) fail("can't handle positional and keyword arguments at the same time");
    return formatPercent(plain(value), named.size > 0 ? new Dict(named) : new Tuple(positional));
  },
  groupby: bound("attribute default? case_sensitive?", groupby),
  indent: bound("width? first? blank?", indent),
  int: bound("default? base?", toInt),
  items: bound("", (value) =>
    lazily(() => {
      if (value instanceof Undefined) return [];
      return value instanceof Dict
        ? Array.from(value.entries(), (entry) => new Tuple([...entry]))
        : fail("Can only get item pairs from a mapping.");
    }),
  ),
  join: bound("d? attribute?", (value, separator, path) => {
    const get = getter(path);
    return join(
      str(orElse(separator, () => "")),
      Array.from(iterate(value), (item) => str(get(item))),
    );
  }),
  last: bound("", last),
  length: lengthFilter,
  list: bound("", (value) => [...iterate(value)]),
  lower: textFilter("", (text) => text.toLowerCase()),
  map,
  max: extreme(1),
  min: extreme(-1),
  reject: selecting(false, false),
  rejectattr: selecting(false, true),
  replace: bound("old new count?", (value, old, by, count) =>
    replace(str(value), str(old as Value), str(by as Value), count === null ? -1 : asInt(count, -1)),
  ),
  reverse: bound("", reverse),
  round: bound("precision? method?", round),
  safe: bound("", (value) => (value instanceof Markup ? value : new Markup(str(value)))),
  select: selecting(true, false),
  selectattr: selecting(true, true),
  slice: bound("slices fill_with?", slices),
  sort: bound("reverse? case_sensitive? attribute?", (value, reversed, sensitive, path) => {
    const paths = typeof path === "string" ? path.split(",") : [path];
    const keys = paths.map((one) => getter(one, undefined, caseOf(sensitive)));
    return sorted([...iterate(value)], (item) => keys.map((key) => key(item)), isTrue(reversed));
  }),
  string: bound("", (value) => (value instanceof Markup ? value : str(value))),
  sum: bound("attribute? start?", (value, path, start) => {
    if (typeof start === "string") fail("sum() can't sum strings");
    const get = getter(path);
    let total: Value = orElse(start, () => 0n);
    for (const item of iterate(value)) total = operators["+"](total, get(item));
    return total;
  }),
  title: textFilter("", titled),
  tojson,
  trim: textFilter("chars?", (text, characters) => strip(text, characters)),
  truncate: bound("length? killwords? end? leeway?", truncate),
  unique: bound("case_sensitive? attribute?", (value, sensitive, path) =>
    lazily(function* () {
      const [key, seen] = [getter(path, undefined, caseOf(sensitive)), new Dict()];
      for (const item of iterate(value)) {
        if (seen.has(key(item))) continue;
        seen.set(key(item), true);
        yield item;
      }
    }),
  ),
  upper: textFilter("", (text) => text.toUpperCase()),
  urlencode: bound("", urlencode),
  wordcount: textFilter("", (text) => BigInt(text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0)),
};

/** Jinja2 has these too. */
const notHere = new Set(["filesizeformat", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"]);

export const isFilter = (name: string): boolean => Object.hasOwn(filters, name) || notHere.has(name);

export function runFilter(name: string, value: Value, args: Args): Value {
  const filter = Object.hasOwn(filters, name) ? filters[name] : undefined;
  if (filter) return filter(value, args);
  return notHere.has(name) ? unsupported(`the filter '${name}'`) : fail(`No filter named '${name}'.`);
}
