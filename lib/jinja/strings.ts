// The methods of str. Positions and lengths are in code points, white space and letters are those that Python takes.

import { asInt, asIntOrNone, asText, bound, clamp, type Native } from "./functions.js";
import { pythonSpace as space } from "./lexer.js";
import { type Arg, codePoints, fail, iterate, surrogate, Tuple, typeName, unsupported, type Value } from "./values.js";

const leadingSpace = new RegExp(`^[${space}]+`);
const onlySpace = new RegExp(`^[${space}]+$`);
const spaceRun = new RegExp(`[${space}]+`, "g");
const isSpace = (unit: string | undefined) => unit !== undefined && onlySpace.test(unit);

type Side = "left" | "right" | "both";

/** str.strip and its like: white space, or any of the characters given. */
export function strip(text: string, characters: Arg, side: Side = "both"): string {
  const given = characters === undefined || characters === null ? undefined : asText(characters);
  const set = given === undefined ? undefined : new Set(given);
  const goes = (point: string | undefined) => (set ? set.has(point as string) : isSpace(point));
  // What goes takes one unit of UTF-16 each, but for rare sets.
  const points = given !== undefined && surrogate.test(given) ? Array.from(text) : text;
  let [start, end] = [0, points.length];
  if (side !== "right") while (start < end && goes(points[start])) start++;
  if (side !== "left") while (end > start && goes(points[end - 1])) end--;
  return slicePoints(points, start, end);
}

function slicePoints(points: string | string[], start: number, end: number): string {
  return typeof points === "string" ? points.slice(start, end) : points.slice(start, end).join("");
}

/** str.split without a separator, from the left. */
export function splitSpace(text: string, limit = -1): string[] {
  const parts: string[] = [];
  let rest = text.replace(leadingSpace, "");
  while (rest !== "") {
    spaceRun.lastIndex = 0;
    const gap = limit >= 0 && parts.length === limit ? null : spaceRun.exec(rest);
    if (!gap) return [...parts, rest];
    parts.push(rest.slice(0, gap.index));
    rest = rest.slice(gap.index + gap[0].length);
  }
  return parts;
}

function split(text: string, separator: Arg, limit: number): string[] {
  if (separator === undefined || separator === null) return splitSpace(text, limit);
  const by = separatorOf(separator);
  const parts = text.split(by);
  if (limit < 0 || parts.length <= limit + 1) return parts;
  return [...parts.slice(0, limit), parts.slice(limit).join(by)];
}

function splitFromRight(text: string, separator: Arg, limit: number): string[] {
  if (limit < 0) return split(text, separator, limit);
  if (separator === undefined || separator === null) {
    const turned = splitSpace(Array.from(text).reverse().join(""), limit);
    return turned.map((part) => Array.from(part).reverse().join("")).reverse();
  }
  const by = separatorOf(separator);
  const parts = text.split(by);
  if (parts.length <= limit + 1) return parts;
  const kept = parts.length - limit;
  return [parts.slice(0, kept).join(by), ...parts.slice(kept)];
}

function separatorOf(separator: Arg): string {
  return asText(separator) === "" ? fail("empty separator") : asText(separator);
}

const lineEnd = "\\n\\v\\f\\r\\x1c-\\x1e\\x85\\u2028\\u2029";
const lineWithEnd = new RegExp(`[^${lineEnd}]*(?:\\r\\n|[${lineEnd}])|.+$`, "gsu");
const lastLineEnd = new RegExp(`(?:\\r\\n|[${lineEnd}])$`, "u");

export function splitLines(text: string, keepEnds = false): string[] {
  const lines = text.match(lineWithEnd) ?? [];
  return keepEnds ? lines : lines.map((line) => line.replace(lastLineEnd, ""));
}

export function replace(text: string, old: string, by: string, count: number): string {
  if (count < 0) return old === "" ? betweenAll(text, by, -1) : text.replaceAll(old, () => by);
  if (old === "") return betweenAll(text, by, count);
  const parts = text.split(old);
  const done = Math.min(count, parts.length - 1);
  return [...parts.slice(0, done), parts.slice(done).join(old)].join(by);
}

/** Replacing nothing: `by` before each character and at the end, `count` times. */
function betweenAll(text: string, by: string, count: number): string {
  const points = Array.from(text);
  const times = count < 0 ? points.length + 1 : Math.min(count, points.length + 1);
  return points.map((point, i) => (i < times ? by : "") + point).join("") + (times > points.length ? by : "");
}

/** text[start:stop], and where it begins; undefined when start is beyond the end. */
function part(text: string, start: Arg, stop: Arg): { from: number; text: string } | undefined {
  if (start === undefined && stop === undefined) return { from: 0, text };
  const points = codePoints(text);
  const first = asIntOrNone(start ?? null, 0);
  const end = clamp(asIntOrNone(stop ?? null, points.length), points.length);
  const from = clamp(first, points.length);
  if (first > points.length || from > end) return undefined;
  return { from, text: slicePoints(points, from, end) };
}

function find(text: string, wanted: Arg, start: Arg, stop: Arg, last: boolean): number {
  const within = part(text, start, stop);
  const needle = asText(wanted);
  if (!within) return -1;
  const unit = last ? within.text.lastIndexOf(needle) : within.text.indexOf(needle);
  return unit < 0 ? -1 : within.from + codePoints(within.text.slice(0, unit)).length;
}

function count(text: string, wanted: Arg, start: Arg, stop: Arg): number {
  const within = part(text, start, stop);
  const needle = asText(wanted);
  if (!within) return 0;
  return needle === "" ? codePoints(within.text).length + 1 : within.text.split(needle).length - 1;
}

/** startswith and endswith, of one text or a tuple of them. */
function affix(text: string, wanted: Arg, start: Arg, stop: Arg, matches: (part: string, affix: string) => boolean) {
  const within = part(text, start, stop);
  const some = wanted instanceof Tuple ? wanted.items.map((one) => asText(one)) : [asText(wanted)];
  return within !== undefined && some.some((one) => matches(within.text, one));
}

function pad(text: string, width: Arg, fill: Arg, side: Side): string {
  const character = asText(fill, " ");
  if (codePoints(character).length !== 1) fail("The fill character must be exactly one character long");
  const [wide, length] = [asInt(width), codePoints(text).length];
  const missing = wide - length;
  if (missing <= 0) return text;
  if (missing > 10_000_000) fail("a width above 10000000");
  // Where both sides do not get the same, the one that does is as in CPython.
  const left = side === "left" ? missing : side === "right" ? 0 : (missing >> 1) + (missing & wide & 1);
  return character.repeat(left) + text + character.repeat(missing - left);
}

/** Letters whose title case is neither their upper case nor its first letter and the rest in lower case. */
const digraphs = "ǄǅǆǇǈǉǊǋǌǱǲǳ";

function titleCase(character: string): string {
  if (character === "") return "";
  const at = digraphs.indexOf(character);
  if (at >= 0) return digraphs[at - (at % 3) + 1] as string;
  if (/[\u10d0-\u10ff]/.test(character)) return character;
  const [first, ...rest] = Array.from(character.toUpperCase());
  if (first === undefined || rest.length === 0) return character.toUpperCase();
  return /[ßﬀ-ﬆﬓ-ﬗև]/.test(character)
    ? first + rest.join("").toLowerCase()
    : unsupported(`the title case of ${character}`);
}

const cased = /[\p{Lowercase}\p{Uppercase}\p{Lt}]/u;

export function capitalize(text: string): string {
  const [first = ""] = text;
  return titleCase(first) + lowerRest(text, first.length);
}

/** The lower case of what follows: as a whole, since a sigma depends on its neighbours. */
function lowerRest(text: string, units: number): string {
  return text.slice(0, units).toLowerCase().length === units
    ? text.toLowerCase().slice(units)
    : text.slice(units).toLowerCase();
}

function title(text: string): string {
  let inWord = false;
  const lowered = Array.from(text).every((point) => point.toLowerCase().length === point.length)
    ? text.toLowerCase()
    : undefined;
  let unit = 0;
  return Array.from(text, (point) => {
    const lower = lowered?.slice(unit, unit + point.length) ?? point.toLowerCase();
    unit += point.length;
    const result = inWord ? lower : titleCase(point);
    inWord = cased.test(point);
    return result;
  }).join("");
}

function swapCase(text: string): string {
  if (text.includes("Σ")) unsupported("swapcase of Σ");
  return Array.from(text, (point) =>
    /\p{Uppercase}/u.test(point) ? point.toLowerCase() : /\p{Lowercase}/u.test(point) ? point.toUpperCase() : point,
  ).join("");
}

/** istitle: upper case only after what has no case, lower case only after what has. */
function isTitle(text: string): boolean {
  let [inWord, any] = [false, false];
  for (const point of text) {
    const [upper, lower] = [/[\p{Uppercase}\p{Lt}]/u.test(point), /\p{Lowercase}/u.test(point)];
    if ((upper && inWord) || (lower && !inWord)) return false;
    inWord = upper || lower;
    any ||= inWord;
  }
  return any;
}

export const isLower = (text: string) => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text);
export const isUpper = (text: string) => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text);

export function join(separator: string, items: Value): string {
  return Array.from(iterate(items), (item, index) =>
    typeof item === "string" ? item : fail(`sequence item ${index}: expected str instance, ${typeName(item)} found`),
  ).join(separator);
}

function partition(text: string, separator: Arg, last: boolean): Value {
  const by = separatorOf(separator);
  const at = last ? text.lastIndexOf(by) : text.indexOf(by);
  if (at < 0) return new Tuple(last ? ["", "", text] : [text, "", ""]);
  return new Tuple([text.slice(0, at), by, text.slice(at + by.length)]);
}

function zeroFill(text: string, width: Arg): string {
  const sign = /^[-+]/.test(text) ? (text[0] as string) : "";
  return sign + pad(text.slice(sign.length), BigInt(asInt(width) - sign.length), "0", "left");
}

const is = (pattern: RegExp) => bound<string>("", (text) => pattern.test(text));
const found = (index: number) => (index < 0 ? fail("substring not found") : BigInt(index));
const finder = (last: boolean, must: boolean) =>
  bound<string>("sub start? stop? /", (text, wanted, start, stop) => {
    const index = find(text, wanted, start, stop, last);
    return must ? found(index) : BigInt(index);
  });

export const stringMethods: Record<string, Native> = {
  capitalize: bound<string>("", capitalize),
  center: bound<string>("width fill? /", (text, width, fill) => pad(text, width, fill, "both")),
  count: bound<string>("sub start? stop? /", (text, wanted, start, stop) => BigInt(count(text, wanted, start, stop))),
  endswith: bound<string>("suffix start? stop? /", (text, suffix, start, stop) =>
    affix(text, suffix, start, stop, (within, one) => within.endsWith(one)),
  ),
  find: finder(false, false),
  index: finder(false, true),
  isalnum: is(/^[\p{L}\p{N}]+$/u),
  isalpha: is(/^\p{L}+$/u),
  isascii: is(/^[\0-\x7f]*$/),
  isdecimal: is(/^\p{Nd}+$/u),
  isdigit: bound<string>("", (text) =>
    /\p{No}/u.test(text) ? unsupported(`isdigit of '${text}'`) : /^\p{Nd}+$/u.test(text),
  ),
  isidentifier: is(/^[\p{XID_Start}_]\p{XID_Continue}*$/u),
  islower: bound<string>("", isLower),
  isprintable: is(/^(?: |[^\p{C}\p{Z}])*$/u),
  isspace: is(onlySpace),
  istitle: bound<string>("", isTitle),
  isupper: bound<string>("", isUpper),
  join: bound<string>("iterable /", (text, items) => join(text, items as Value)),
  ljust: bound<string>("width fill? /", (text, width, fill) => pad(text, width, fill, "right")),
  lower: bound<string>("", (text) => text.toLowerCase()),
  lstrip: bound<string>("chars? /", (text, characters) => strip(text, characters, "left")),
  partition: bound<string>("sep /", (text, separator) => partition(text, separator, false)),
  removeprefix: bound<string>("prefix /", (text, prefix) =>
    text.startsWith(asText(prefix)) ? text.slice(asText(prefix).length) : text,
  ),
  removesuffix: bound<string>("suffix /", (text, suffix) =>
    text.endsWith(asText(suffix)) ? text.slice(0, text.length - asText(suffix).length) : text,
  ),
  replace: bound<string>("old new count? /", (text, old, by, times) =>
    replace(text, asText(old), asText(by), asInt(times, -1)),
  ),
  rfind: finder(true, false),
  rindex: finder(true, true),
  rjust: bound<string>("width fill? /", (text, width, fill) => pad(text, width, fill, "left")),
  rpartition: bound<string>("sep /", (text, separator) => partition(text, separator, true)),
  rsplit: bound<string>("sep? maxsplit?", (text, separator, limit) =>
    splitFromRight(text, separator, asInt(limit, -1)),
  ),
  rstrip: bound<string>("chars? /", (text, characters) => strip(text, characters, "right")),
  split: bound<string>("sep? maxsplit?", (text, separator, limit) => split(text, separator, asInt(limit, -1))),
  splitlines: bound<string>("keepends?", (text, keep) => splitLines(text, asInt(keep, 0) !== 0)),
  startswith: bound<string>("prefix start? stop? /", (text, prefix, start, stop) =>
    affix(text, prefix, start, stop, (within, one) => within.startsWith(one)),
  ),
  strip: bound<string>("chars? /", (text, characters) => strip(text, characters)),
  swapcase: bound<string>("", swapCase),
  title: bound<string>("", title),
  upper: bound<string>("", (text) => text.toUpperCase()),
  zfill: bound<string>("width /", zeroFill),
};
