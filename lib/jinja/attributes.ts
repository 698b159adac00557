// value.name and value[key], in the order in which Jinja2's sandbox looks; the methods of list, tuple and dict.
import { contains, equal } from "./compare.js";
import { formatFields } from "./format.js";
import { asInt, bound, clamp, type Native, sliceIndices } from "./functions.js";
import { stringMethods } from "./strings.js";
import { repr, str } from "./text.js";
import {
  type Arg,
  codePoints,
  Dict,
  DictView,
  Fn,
  fail,
  Markup,
  orElse,
  PyObject,
  Range,
  Tuple,
  typeName,
  Undefined,
  unsupported,
  type Value,
} from "./values.js";

/** An attribute, else the item of that name. */
export function getAttribute(value: Value, name: string): Value {
  return orElse(attribute(value, name), () => orElse(item(value, name), () => missing(value, name)));
}

/** An item, else, where the key is text, the attribute of that name. */
export function getItem(value: Value, key: Value): Value {
  return orElse(item(value, key), () =>
    orElse(typeof key === "string" ? attribute(value, key) : undefined, () => missing(value, key)),
  );
}

function missing(value: Value, key: Value): Undefined {
  const what = typeof key === "string" ? `attribute ${repr(key)}` : `element ${repr(key)}`;
  return new Undefined(`${value === null ? "None" : `'${typeName(value)} object'`} has no ${what}`);
}

/** An attribute alone; undefined when there is none. Those that the sandbox keeps back come as Undefined. */
export function attribute(value: Value, name: string): Arg {
  if (value instanceof Undefined) return fail(value.reason);
  if (name.startsWith("_")) return value instanceof Dict && !name.startsWith("__") ? undefined : unsafe(value, name);
  if (value instanceof PyObject) {
    const own = value.attribute(name);
    if (own !== undefined) return own;
  }
  const type = typeName(value);
  const method = methods[type]?.[name];
  if (method) return new Fn(`${type}.${name}`, (args) => method(value, args));
  if (mutators[type]?.has(name)) return unsafe(value, name);
  if (others[type]?.has(name)) return unsupported(`${type}.${name}`);
  if (value instanceof Markup || type === "builtin_function_or_method") return unsupported(`${type}.${name}`);
  return undefined;
}

function unsafe(value: Value, name: string): Undefined {
  return new Undefined(`access to attribute '${name}' of '${typeName(value)}' object is unsafe.`);
}

function item(value: Value, key: Value): Arg {
  if (value instanceof Undefined) return fail(value.reason);
  if (value instanceof Dict) return Array.isArray(key) || key instanceof Dict ? undefined : value.get(key);
  if (value instanceof Markup) return unsupported("an item of Markup");
  if (typeof key !== "bigint" && typeof key !== "boolean") return undefined;
  const index = Number(key);
  if (value instanceof Range) {
    const at = index < 0 ? index + value.length : index;
    return at >= 0 && at < value.length ? value.at(at) : undefined;
  }
  const items = typeof value === "string" ? codePoints(value) : value instanceof Tuple ? value.items : value;
  return typeof items === "string" || Array.isArray(items) ? items.at(index) : undefined;
}

/** value[start:stop:step]; None stands for what is left out. */
export function slice(value: Value, ...bounds: [start: Value, stop: Value, step: Value]): Value {
  if (value instanceof Undefined) return fail(value.reason);
  if (value instanceof Range || value instanceof Markup) return unsupported(`a slice of a ${typeName(value)}`);
  const items = typeof value === "string" ? codePoints(value) : value instanceof Tuple ? value.items : value;
  if (!(typeof items === "string" || Array.isArray(items))) return fail(`'${typeName(value)}' object has no slices`);
  const picked = sliceIndices(bounds, items.length).map((index) => items[index] as Value);
  if (typeof value === "string") return picked.join("");
  return value instanceof Tuple ? new Tuple(picked) : picked;
}

function indexIn(items: Value[], wanted: Arg, start: Arg, stop: Arg): Value {
  const end = clamp(asInt(stop, items.length), items.length);
  for (let i = clamp(asInt(start, 0), items.length); i < end; i++) {
    if (equal(items[i] as Value, wanted as Value)) return BigInt(i);
  }
  return fail(`${repr(wanted as Value)} is not in list`);
}

const path = { attribute: getAttribute, item: getItem };

const countIn = (items: Value[], wanted: Arg) => BigInt(items.filter((one) => contains([wanted as Value], one)).length);

const methods: Record<string, Record<string, Native>> = {
  str: {
    ...stringMethods,
    format: (pattern, args) => formatFields(pattern as string, args, path),
    format_map: bound<string>("mapping /", (pattern, mapping) => {
      if (!(mapping instanceof Dict)) return fail("format_map needs a dict");
      const named = new Map(Array.from(mapping.entries(), ([key, value]) => [str(key), value]));
      return formatFields(pattern, { positional: [], named }, path);
    }),
  },
  list: {
    copy: bound<Value[]>("", (list) => [...list]),
    count: bound<Value[]>("value /", countIn),
    index: bound<Value[]>("value start? stop? /", indexIn),
  },
  tuple: {
    count: bound<Tuple>("value /", (tuple, wanted) => countIn(tuple.items, wanted)),
    index: bound<Tuple>("value start? stop? /", (tuple, wanted, start, stop) =>
      indexIn(tuple.items, wanted, start, stop),
    ),
  },
  dict: {
    copy: bound<Dict>("", (dict) => new Dict(dict.entries())),
    get: bound<Dict>("key default? /", (dict, key, fallback) =>
      orElse(dict.get(key as Value), () => orElse(fallback, () => null)),
    ),
    items: bound<Dict>("", (dict) => new DictView("dict_items", dict)),
    keys: bound<Dict>("", (dict) => new DictView("dict_keys", dict)),
    values: bound<Dict>("", (dict) => new DictView("dict_values", dict)),
  },
};

const words = (text: string) => new Set(text.split(" "));

/** What an immutable sandbox does not let be called. */
const mutators: Record<string, Set<string>> = {
  list: words("append clear extend insert pop remove reverse sort"),
  dict: words("clear pop popitem setdefault update"),
};

/** What Python has besides, to be told from a name that is not there. */
const numbers = "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag numerator real to_bytes";
const others: Record<string, Set<string>> = {
  str: words("casefold encode expandtabs isnumeric maketrans translate"),
  dict: words("fromkeys"),
  int: words(numbers),
  bool: words(numbers),
  float: words("as_integer_ratio conjugate fromhex hex imag is_integer real"),
  range: words("count index start step stop"),
  dict_keys: words("isdisjoint mapping"),
  dict_values: words("mapping"),
  dict_items: words("isdisjoint mapping"),
  generator: words("close gi_code gi_frame gi_running gi_suspended gi_yieldfrom send throw"),
};
