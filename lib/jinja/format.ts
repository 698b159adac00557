// Text from a pattern: str % values, and str.format().
import { numeric } from "./compare.js";
import { asFloat, asInt, truncated } from "./functions.js";
import { floatText, integerText, repr, scaled, signed, str } from "./text.js";
import {
  type Args,
  codePoints,
  Dict,
  fail,
  orElse,
  Range,
  Tuple,
  typeName,
  Undefined,
  unsupported,
  type Value,
} from "./values.js";

interface Spec {
  flags: string;
  fill?: string;
  align?: string;
  width: number;
  precision?: number;
  type: string;
}

/** No field is wider, and no number has more digits behind the point. */
const mostWide = 100_000;

const conversion = /%(?:\(([^()]*)\))?([-+ #0]*)(\*|\d+)?(?:\.(\*|\d*))?[hlL]?(.?)/gsu;

/** pattern % values, where the values are a tuple, a dict for named ones, or a single one. */
export function formatPercent(pattern: string, values: Value): string {
  const positional = values instanceof Tuple ? values.items : [values];
  let used = 0;
  let byName = false;
  const next = () =>
    used < positional.length ? (positional[used++] as Value) : fail("not enough arguments for format string");
  const text = pattern.replace(
    conversion,
    (_, name: string | undefined, flags: string, width = "", precision, type: string) => {
      if (type === "%" && name === undefined) return "%";
      if (type === "") return fail("incomplete format");
      if (name !== undefined) byName = true;
      const wide = width === "*" ? asInt(next()) : Number(width);
      const fine = precision === undefined ? undefined : precision === "*" ? asInt(next()) : Number(precision);
      const spec = { flags: wide < 0 ? `${flags}-` : flags, width: Math.abs(wide), precision: fine, type };
      return percentField(name === undefined ? next() : lookUp(values, name), spec);
    },
  );
  const one =
    !(values instanceof Tuple) &&
    (values instanceof Dict || values instanceof Range || values instanceof Undefined || Array.isArray(values));
  if (used < positional.length && !byName && !one) return fail("not all arguments converted during string formatting");
  return text;
}

function lookUp(values: Value, name: string): Value {
  if (!(values instanceof Dict)) return fail("format requires a mapping");
  return orElse(values.get(name), () => fail(`KeyError: ${repr(name)}`));
}

function percentField(value: Value, spec: Spec): string {
  const { flags, type } = spec;
  const align = flags.includes("-") ? "<" : ">";
  const zeros = flags.includes("0") && align !== "<" && !"sracr".includes(type);
  const sign = flags.includes("+") ? "+" : flags.includes(" ") ? " " : "";
  const laidOut = { ...spec, align: zeros ? "=" : align, fill: zeros ? "0" : " " };
  switch (type) {
    case "s":
    case "r":
      return padded("", cut(type === "s" ? str(value) : repr(value), spec.precision), laidOut);
    case "c":
      if (typeof value === "string" && codePoints(value).length === 1) return padded("", value, laidOut);
      return typeof value === "bigint"
        ? padded("", String.fromCodePoint(Number(value)), laidOut)
        : fail("%c requires int or char");
    case "d":
    case "i":
    case "u":
    case "x":
    case "X":
    case "o": {
      if (typeof value === "number" && !"diu".includes(type)) return fail(`%${type} format: an integer is required`);
      if (numeric(value) === undefined) return failOn(value, `%${type} format: a real number is required`);
      const whole = truncated(value);
      const digits = inBase(whole < 0n ? -whole : whole, type, flags.includes("#")).digits.padStart(
        spec.precision ?? 0,
        "0",
      );
      return padded((whole < 0n ? "-" : sign) + inBase(0n, type, flags.includes("#")).prefix, digits, laidOut);
    }
    case "e":
    case "E":
    case "f":
    case "F":
    case "g":
    case "G":
      return padded(...floatParts(floatOf(value), type, spec.precision ?? 6, sign, flags.includes("#")), laidOut);
    default:
      return type === "a" ? unsupported("%a") : fail(`unsupported format character '${type}'`);
  }
}

function failOn(value: Value, message: string): never {
  return fail(value instanceof Undefined ? value.reason : `${message}, not ${typeName(value)}`);
}

function floatOf(value: Value): number {
  const x = numeric(value);
  return x === undefined ? failOn(value, "must be real number") : asFloat(x);
}

function cut(text: string, precision: number | undefined): string {
  return precision === undefined ? text : Array.from(text).slice(0, precision).join("");
}

function padded(sign: string, body: string, { fill = " ", align = ">", width }: Spec): string {
  if (width > mostWide) return fail(`a width above ${mostWide}`);
  const missing = Math.max(0, width - codePoints(sign + body).length);
  if (align === "=") return sign + fill.repeat(missing) + body;
  const before = align === ">" ? missing : align === "^" ? missing >> 1 : 0;
  return fill.repeat(before) + sign + body + fill.repeat(missing - before);
}

function inBase(value: bigint, type: string, alternate: boolean): { prefix: string; digits: string } {
  const base = { x: 16, X: 16, o: 8, b: 2 }[type];
  if (base === undefined) return { prefix: "", digits: integerText(value) };
  const digits = value.toString(base);
  return { prefix: alternate ? `0${type}` : "", digits: type === "X" ? digits.toUpperCase() : digits };
}

/** Sign and digits of a float in one of the styles e, f, g and %. */
function floatParts(
  value: number,
  type: string,
  precision: number,
  plus: string,
  alternate: boolean,
): [string, string] {
  const sign = value < 0 || Object.is(value, -0) ? "-" : plus;
  const size = Math.abs(value);
  const style = type.toLowerCase();
  if (alternate) unsupported(`'#' with ${type}`);
  if (precision > mostWide) fail(`a precision above ${mostWide}`);
  const body = !Number.isFinite(size)
    ? floatText(size)
    : style === "f"
      ? fixed(size, precision)
      : style === "e"
        ? exponential(size, precision)
        : general(size, precision || 1);
  return [sign, type === style ? body : body.toUpperCase()];
}

function fixed(size: number, precision: number): string {
  const digits = scaled(size, precision)
    .toString()
    .padStart(precision + 1, "0");
  return precision === 0 ? digits : `${digits.slice(0, -precision)}.${digits.slice(-precision)}`;
}

/** precision + 1 digits, and the exponent of the first. */
function significant(size: number, precision: number): [digits: string, exponent: number] {
  if (size === 0) return ["0".repeat(precision + 1), 0];
  const exponent = Number(size.toExponential().split("e")[1]);
  const digits = scaled(size, precision - exponent).toString();
  return digits.length > precision + 1 ? [digits.slice(0, -1), exponent + 1] : [digits, exponent];
}

function exponential(size: number, precision: number): string {
  const [digits, exponent] = significant(size, precision);
  return `${digits[0]}${precision > 0 ? "." : ""}${digits.slice(1)}e${signed(exponent)}`;
}

function general(size: number, precision: number): string {
  const [, exponent] = significant(size, precision - 1);
  const bare = (text: string) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (exponent >= -4 && exponent < precision) return bare(fixed(size, precision - 1 - exponent));
  const [mantissa, power] = exponential(size, precision - 1).split("e") as [string, string];
  return `${bare(mantissa)}e${power}`;
}

/** How a field like {0.name[key]} goes on from a value. */
export interface Path {
  attribute(value: Value, name: string): Value;
  item(value: Value, key: Value): Value;
}

/** pattern.format(*positional, **named). */
export function formatFields(pattern: string, { positional, named }: Args, path: Path): string {
  let automatic = 0;
  let numbered = false;
  const field = (text: string, depth: number): string => {
    if (depth > 3) return fail("Max string recursion exceeded");
    let result = "";
    for (let at = 0; at < text.length; at++) {
      const character = text[at] as string;
      if (character !== "{" && character !== "}") result += character;
      else if (text[at + 1] === character) result += text[at++];
      else if (character === "}") fail("Single '}' encountered in format string");
      else {
        const end = closing(text, at);
        result += replacement(text.slice(at + 1, end), depth);
        at = end;
      }
    }
    return result;
  };
  const replacement = (text: string, depth: number): string => {
    const [, where = "", converted, spec = ""] =
      /^((?:\[[^\]]*\]|[^!:[])*)(?:!(.?))?(?::(.*))?$/s.exec(text) ?? fail(`bad field {${text}}`);
    let value = fieldValue(where);
    if (converted !== undefined && !"sr".includes(converted || "?")) fail(`conversion !${converted}`);
    if (converted) value = converted === "r" ? repr(value) : str(value);
    return formatValue(value, field(spec, depth + 1));
  };
  const fieldValue = (where: string): Value => {
    const [head = ""] = /^[^.[]*/.exec(where) as RegExpExecArray;
    numbered ||= /^\d+$/.test(head);
    if (numbered && (head === "" || automatic > 0))
      fail("cannot switch between manual field specification and automatic field numbering");
    // Python's versions differ in whether "{.name}" counts as a field without a number.
    if (head === "" && where !== "") unsupported(`the field {${where}}`);
    const index = head === "" ? automatic++ : /^\d+$/.test(head) ? Number(head) : undefined;
    let value: Value =
      index === undefined
        ? orElse(named.get(head), () => fail(`KeyError: '${head}'`))
        : orElse(positional[index], () => fail(`Replacement index ${index} out of range for positional args tuple`));
    for (const [, name, item] of where.slice(head.length).matchAll(/\.([^.[]+)|\[([^\]]+)\]/g)) {
      value =
        name !== undefined
          ? path.attribute(value, name)
          : path.item(value, /^\d+$/.test(item as string) ? BigInt(item as string) : (item as string));
    }
    return value;
  };
  return field(pattern, 1);
}

function closing(text: string, open: number): number {
  let depth = 0;
  for (let at = open; at < text.length; at++) {
    if (text[at] === "{") depth++;
    if (text[at] === "}" && --depth === 0) return at;
  }
  return fail("expected '}' before end of string");
}

const specification = /^(?:(.)?([<>=^]))?([-+ ]?)(#?)(0?)(\d*)([,_]?)(?:\.(\d+))?([a-zA-Z%]?)$/su;

/** format(value, spec). */
function formatValue(value: Value, text: string): string {
  if (text === "") return str(value);
  const match = specification.exec(text) ?? fail(`Invalid format specifier '${text}'`);
  const [, fill, align, sign, hash, zero, width, group, precision, type] = match as (string | undefined)[] as string[];
  const spec: Spec = {
    flags: sign as string,
    fill: fill ?? (zero ? "0" : " "),
    align: align ?? (zero ? "=" : undefined),
    width: Number(width),
    precision: precision === undefined ? undefined : Number(precision),
    type: type as string,
  };
  const x = typeof value === "boolean" && type === "" ? undefined : numeric(value);
  if (typeof value === "string") {
    if ((type !== "" && type !== "s") || sign || hash || group)
      return fail(`Invalid format specifier '${text}' for a str`);
    if (spec.align === "=")
      return align
        ? fail("'=' alignment not allowed in string format specifier")
        : padded("", cut(value, spec.precision), { ...spec, align: "<" });
    return padded("", cut(value, spec.precision), { ...spec, align: spec.align ?? "<" });
  }
  if (value instanceof Undefined) return fail(value.reason);
  if (x === undefined) return unsupported(`the format specifier '${text}' of a ${typeName(value)}`);
  const plus = sign === "-" ? "" : (sign as string);
  if (group && zero) return unsupported("grouping with leading zeros");
  if (typeof x === "bigint" && "bdoxXn".includes(type || "d")) {
    if (spec.precision !== undefined) return fail("Precision not allowed in integer format specifier");
    if (type === "n" || (group && type && type !== "d")) return unsupported(`the format specifier '${text}'`);
    const { prefix, digits } = inBase(x < 0n ? -x : x, type as string, hash !== "");
    return padded((x < 0n ? "-" : plus) + prefix, grouped(digits, group as string), spec);
  }
  if (!"eEfFgG%".includes(type || "?") || type === "") {
    if (type === "" && spec.precision === undefined && !hash) {
      const body = floatText(Math.abs(x as number));
      return padded((x as number) < 0 || Object.is(x, -0) ? "-" : plus, groupedFloat(body, group as string), spec);
    }
    return unsupported(`the format specifier '${text}' of a ${typeName(value)}`);
  }
  const percent = type === "%" ? "%" : "";
  const [before, body] = floatParts(
    asFloat(x) * (percent ? 100 : 1),
    percent ? "f" : (type as string),
    spec.precision ?? 6,
    plus,
    hash !== "",
  );
  return padded(before, groupedFloat(body, group as string) + percent, spec);
}

const grouped = (digits: string, by: string) => (by ? digits.replace(/\B(?=(\d{3})+$)/g, by) : digits);

function groupedFloat(body: string, by: string): string {
  const [whole = "", ...rest] = body.split(/(?=[.eE])/);
  return /^\d+$/.test(whole) ? grouped(whole, by) + rest.join("") : body;
}
