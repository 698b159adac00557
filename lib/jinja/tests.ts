// The tests of Jinja2: value is name(args).
import { type Comparison, comparisons, contains, equal, numeric } from "./compare.js";
import { isFilter } from "./filters.js";
import { bound, type Native } from "./functions.js";
import { operators } from "./operators.js";
import { isLower, isUpper } from "./strings.js";
import { str } from "./text.js";
import {
  type Args,
  Dict,
  DictView,
  Fn,
  fail,
  Iter,
  isIterable,
  lengthOf,
  Markup,
  Undefined,
  unsupported,
  type Value,
} from "./values.js";

const compared = (operator: Comparison): Native =>
  bound("other /", (value, other) => comparisons[operator](value, other as Value));
const remainder = (value: Value, divisor: Value) => operators["%"](value, divisor);
const [eq, ne, lt, le, gt, ge] = [
  compared("=="),
  compared("!="),
  compared("<"),
  compared("<="),
  compared(">"),
  compared(">="),
] as const;
const is = (check: (value: Value) => boolean): Native => bound("", check);

/** `a is b`: of ints, floats and texts that are equal, CPython alone knows whether they are one. */
function same(a: Value, b: Value): boolean {
  if (a === null || typeof a === "boolean" || typeof a === "object") return a === b;
  return typeof a === typeof b && equal(a, b) ? unsupported("sameas of equal numbers or texts") : false;
}

const tests: Record<string, Native> = {
  "!=": ne,
  "<": lt,
  "<=": le,
  "==": eq,
  ">": gt,
  ">=": ge,
  boolean: is((value) => typeof value === "boolean"),
  callable: is((value) => value instanceof Fn || value instanceof Undefined),
  defined: is((value) => !(value instanceof Undefined)),
  divisibleby: bound("num", (value, divisor) => equal(remainder(value, divisor as Value), 0n)),
  eq,
  equalto: eq,
  escaped: is((value) => value instanceof Markup),
  even: is((value) => equal(remainder(value, 2n), 0n)),
  filter: is((value) => typeof value === "string" && isFilter(value)),
  false: is((value) => value === false),
  float: is((value) => typeof value === "number"),
  ge,
  greaterthan: gt,
  gt,
  in: bound("seq", (value, sequence) => contains(sequence as Value, value)),
  integer: is((value) => typeof value === "bigint"),
  iterable: is(isIterable),
  le,
  lessthan: lt,
  lower: is((value) => isLower(str(value))),
  lt,
  mapping: is((value) => value instanceof Dict),
  ne,
  none: is((value) => value === null),
  number: is((value) => numeric(value) !== undefined),
  odd: is((value) => equal(remainder(value, 2n), 1n)),
  sameas: bound("other", (value, other) => same(value, other as Value)),
  sequence: is((value) => lengthOf(value) !== undefined && !(value instanceof DictView) && !(value instanceof Iter)),
  string: is((value) => typeof value === "string" || value instanceof Markup),
  test: is((value) => typeof value === "string" && isTest(value)),
  true: is((value) => value === true),
  undefined: is((value) => value instanceof Undefined),
  upper: is((value) => isUpper(str(value))),
};

export const isTest = (name: string): boolean => Object.hasOwn(tests, name);

export function runTest(name: string, value: Value, args: Args): Value {
  const test = isTest(name) ? tests[name] : undefined;
  return test ? test(value, args) : fail(`No test named '${name}'.`);
}
