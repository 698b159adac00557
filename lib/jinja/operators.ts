// + - * / // % ** and the signs: as Python computes.
import { numeric } from "./compare.js";
import { formatPercent } from "./format.js";
import { asFloat } from "./functions.js";
import { longestText } from "./text.js";
import { fail, Markup, Tuple, typeName, Undefined, unsupported, type Value } from "./values.js";

export type Operator = "+" | "-" | "*" | "/" | "//" | "%" | "**";

/** Bounds of what one operation may make. */
const longestList = 10_000_000;
const mostBits = 100_000;

function refuse(operator: string, a: Value, b: Value): never {
  for (const value of [a, b]) {
    if (value instanceof Undefined) fail(value.reason);
    if (value instanceof Markup) unsupported(`'${operator}' with Markup`);
  }
  return fail(`unsupported operand type(s) for ${operator}: '${typeName(a)}' and '${typeName(b)}'`);
}

function add(a: Value, b: Value): Value {
  if (typeof a === "string" && typeof b === "string") return a + b;
  if (Array.isArray(a) && Array.isArray(b)) return bounded([...a, ...b]);
  if (a instanceof Tuple && b instanceof Tuple) return new Tuple(bounded([...a.items, ...b.items]));
  return arithmetic("+", a, b);
}

function multiply(a: Value, b: Value): Value {
  const [sequence, times] = typeof a === "string" || Array.isArray(a) || a instanceof Tuple ? [a, b] : [b, a];
  if (typeof times !== "bigint" && typeof times !== "boolean") return arithmetic("*", a, b);
  const count = Math.max(0, Number(times));
  if (typeof sequence === "string") {
    return sequence.length * count > longestText
      ? fail(`text of more than ${longestText} units`)
      : sequence.repeat(count);
  }
  if (Array.isArray(sequence)) return repeated(sequence, count);
  if (sequence instanceof Tuple) return new Tuple(repeated(sequence.items, count));
  return arithmetic("*", a, b);
}

function repeated(items: Value[], count: number): Value[] {
  if (items.length * count > longestList) return fail(`a list of more than ${longestList} items`);
  return Array.from({ length: items.length === 0 ? 0 : count }, () => items).flat();
}

function bounded(items: Value[]): Value[] {
  return items.length > longestList ? fail(`a list of more than ${longestList} items`) : items;
}

function arithmetic(operator: Operator, a: Value, b: Value): Value {
  const [x, y] = [numeric(a), numeric(b)];
  if (x === undefined || y === undefined) return refuse(operator, a, b);
  return typeof x === "bigint" && typeof y === "bigint"
    ? integers[operator](x, y)
    : floats[operator](asFloat(x), asFloat(y));
}

const bitsOf = (x: bigint) => x.toString(16).length * 4;

const small = (x: bigint) => (bitsOf(x) > mostBits ? fail(`an int of more than ${mostBits} bits`) : x);

const integers: Record<Operator, (x: bigint, y: bigint) => Value> = {
  "+": (x, y) => small(x + y),
  "-": (x, y) => small(x - y),
  "*": (x, y) => small(x * y),
  "/": (x, y) => {
    if (y === 0n) return fail("division by zero");
    const exact = [x, y].every((one) => Number.isSafeInteger(Number(one)));
    return exact ? Number(x) / Number(y) : unsupported("dividing ints beyond 2^53");
  },
  "//": (x, y) => (y === 0n ? fail("integer division or modulo by zero") : (x - floored(x, y)) / y),
  "%": (x, y) => (y === 0n ? fail("integer modulo by zero") : floored(x, y)),
  "**": (x, y) => {
    if (y < 0n) return floats["**"](asFloat(x), asFloat(y));
    if (x * x > 1n && BigInt(bitsOf(x)) * y > BigInt(mostBits)) return fail(`an int of more than ${mostBits} bits`);
    return x * x > 1n ? x ** y : y === 0n || x === 1n ? 1n : x === 0n ? 0n : y % 2n === 0n ? 1n : -1n;
  },
};

/** x modulo y with the sign of y. */
function floored(x: bigint, y: bigint): bigint {
  const rest = x % y;
  return rest !== 0n && rest < 0n !== y < 0n ? rest + y : rest;
}

const floats: Record<Operator, (x: number, y: number) => number> = {
  "+": (x, y) => x + y,
  "-": (x, y) => x - y,
  "*": (x, y) => x * y,
  "/": (x, y) => (y === 0 ? fail("float division by zero") : x / y),
  "//": (x, y) => dividedFloat(x, y)[0],
  "%": (x, y) => dividedFloat(x, y)[1],
  "**": (x, y) => {
    if (y === 0 || x === 1) return 1;
    if (x < 0 && Number.isFinite(x) && !Number.isInteger(y)) return unsupported("a complex number");
    // C's pow and JavaScript's may differ in the last digit, where they cannot be exact.
    const exact =
      Number.isSafeInteger(x) && Number.isSafeInteger(y) && Math.abs(x) ** Math.abs(y) <= Number.MAX_SAFE_INTEGER;
    if (!exact) return y === 0.5 ? Math.sqrt(x) : unsupported(`the power ${x} ** ${y}`);
    if (x === 0 && y < 0) return fail("0.0 cannot be raised to a negative power");
    return y < 0 ? 1 / x ** -y : x ** y;
  },
};

/** Quotient and rest, as CPython computes them. */
function dividedFloat(x: number, y: number): [number, number] {
  if (y === 0) return fail("float modulo by zero");
  let rest = x % y;
  let quotient = (x - rest) / y;
  if (rest === 0) rest = y < 0 ? -0 : 0;
  else if (rest < 0 !== y < 0) {
    rest += y;
    quotient -= 1;
  }
  if (quotient === 0) return [x / y < 0 || Object.is(x / y, -0) ? -0 : 0, rest];
  const whole = Math.floor(quotient);
  return [quotient - whole > 0.5 ? whole + 1 : whole, rest];
}

export const operators: Record<Operator, (a: Value, b: Value) => Value> = {
  "+": add,
  "-": (a, b) => arithmetic("-", a, b),
  "*": multiply,
  "/": (a, b) => arithmetic("/", a, b),
  "//": (a, b) => arithmetic("//", a, b),
  "%": (a, b) => (typeof a === "string" ? formatPercent(a, b) : arithmetic("%", a, b)),
  "**": (a, b) => arithmetic("**", a, b),
};

export function negate(value: Value): Value {
  const x = numeric(value);
  return x === undefined ? refuseSign("-", value) : -x;
}

export function plus(value: Value): Value {
  return numeric(value) ?? refuseSign("+", value);
}

function refuseSign(sign: string, value: Value): never {
  if (value instanceof Undefined) return fail(value.reason);
  return fail(`bad operand type for unary ${sign}: '${typeName(value)}'`);
}
