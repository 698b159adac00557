// str() and repr(), and numbers as Python writes them.
import {
  Dict,
  DictView,
  fail,
  Markup,
  type PyObject,
  Range,
  Tuple,
  typeName,
  Undefined,
  unsupported,
  type Value,
} from "./values.js";

/** The longest text that one operation may make, in UTF-16 units. */
export const longestText = 10_000_000;

/** The most digits of an int that Python turns into text. */
const mostDigits = 4300;

export function str(value: Value): string {
  if (typeof value === "string") return value;
  if (value instanceof Markup) return value.text;
  if (value instanceof Undefined) return "";
  return repr(value);
}

/** `room` bounds the text: a list may hold another one many times over. */
export function repr(value: Value, room = { units: longestText }): string {
  const text = reprWithin(value, room);
  room.units -= typeof value === "object" ? 2 : text.length;
  return room.units < 0 ? fail(`text of more than ${longestText} units`) : text;
}

function reprWithin(value: Value, room: { units: number }): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "bigint") return integerText(value);
  if (typeof value === "number") return floatText(value);
  if (typeof value === "string") return quoted(value);
  const inner = (one: Value) => repr(one, room);
  if (Array.isArray(value)) return `[${value.map(inner).join(", ")}]`;
  if (value instanceof Tuple) return `(${value.items.map(inner).join(", ")}${value.items.length === 1 ? "," : ""})`;
  if (value instanceof Dict) {
    return `{${Array.from(value.entries(), ([key, item]) => `${inner(key)}: ${inner(item)}`).join(", ")}}`;
  }
  if (value instanceof DictView) return `${value.type}(${inner(value.items())})`;
  if (value instanceof Range) {
    const parts = value.step === 1n ? [value.start, value.stop] : [value.start, value.stop, value.step];
    return `range(${parts.join(", ")})`;
  }
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Markup) return `Markup(${quoted(value.text)})`;
  return (value as PyObject & { repr?(): string }).repr?.() ?? unsupported(`writing a ${typeName(value)}`);
}

export function integerText(value: bigint): string {
  const text = value.toString();
  return text.length > mostDigits + (value < 0n ? 1 : 0) ? fail(`an int of more than ${mostDigits} digits`) : text;
}

/** repr() of a float: the fewest digits that mean the same, with an exponent below 1e-4 and from 1e16 on. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0.0";
  const [mantissa, power] = value.toExponential().split("e") as [string, string];
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) return `${mantissa}e${signed(exponent)}`;
  const sign = value < 0 ? "-" : "";
  const digits = mantissa.replace(/[-.]/g, "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

/** An exponent as C writes it: at least two digits. */
export function signed(exponent: number): string {
  return `${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

/** What repr() of text escapes: all that is not printable, which are Unicode's categories C and Z but the space. */
const escaped = /[\\\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const named: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const inner = text.replace(escaped, (character) => {
    if (named[character]) return named[character];
    const code = character.codePointAt(0) as number;
    const hex = (digits: number) => code.toString(16).padStart(digits, "0");
    if (code < 0x100) return `\\x${hex(2)}`;
    return code < 0x10000 ? `\\u${hex(4)}` : `\\U${hex(8)}`;
  });
  return quote + (quote === "'" ? inner.replaceAll("'", "\\'") : inner) + quote;
}

/** value · 10^digits, exactly, rounded half to even: the way Python rounds and formats floats. */
export function scaled(value: number, digits: number): bigint {
  if (!Number.isFinite(value)) return fail(`cannot convert float ${floatText(value)} to integer`);
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, Math.abs(value));
  const raw = bits.getBigUint64(0);
  const field = Number(raw >> 52n);
  const fraction = raw & ((1n << 52n) - 1n);
  const exponent = Math.max(field, 1) - 1075;
  let numerator = field === 0 ? fraction : fraction | (1n << 52n);
  let denominator = 1n;
  if (exponent > 0) numerator <<= BigInt(exponent);
  else denominator <<= BigInt(-exponent);
  if (digits > 0) numerator *= 10n ** BigInt(digits);
  else denominator *= 10n ** BigInt(-digits);
  const result = halfEven(numerator, denominator);
  return value < 0 ? -result : result;
}

/** numerator / denominator, both at least 0, rounded half to even. */
export function halfEven(numerator: bigint, denominator: bigint): bigint {
  const quotient = numerator / denominator;
  const twice = 2n * (numerator % denominator);
  return twice > denominator || (twice === denominator && quotient % 2n === 1n) ? quotient + 1n : quotient;
}
