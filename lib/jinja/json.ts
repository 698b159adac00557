// The filter tojson, as transformers has it: Python's json.dumps without escapes for HTML.
import { sorted } from "./compare.js";
import { asInt, bound } from "./functions.js";
import { floatText, integerText, longestText } from "./text.js";
import { type Arg, Dict, fail, iterate, Tuple, truthy, typeName, type Value } from "./values.js";

interface Layout {
  ascii: boolean;
  indent: string | undefined;
  between: string;
  afterKey: string;
  sortKeys: boolean;
  /** for how much more text there is room */
  room: { units: number };
}

export const tojson = bound(
  "ensure_ascii? indent? separators? sort_keys?",
  (value, ascii, indent, separators, sortKeys) => {
    const step = indentOf(indent);
    const [between, afterKey] = separatorsOf(separators, step);
    return write(value, "\n", {
      ascii: ascii !== undefined && truthy(ascii),
      indent: step,
      between,
      afterKey,
      sortKeys: sortKeys !== undefined && truthy(sortKeys),
      room: { units: longestText },
    });
  },
);

function indentOf(indent: Arg): string | undefined {
  if (indent === undefined || indent === null) return undefined;
  return typeof indent === "string" ? indent : " ".repeat(Math.min(1000, Math.max(0, asInt(indent))));
}

function separatorsOf(separators: Arg, indent: string | undefined): [string, string] {
  if (separators === undefined || separators === null) return [indent === undefined ? ", " : ",", ": "];
  const [between, afterKey, ...more] = iterate(separators);
  if (typeof between === "string" && typeof afterKey === "string" && more.length === 0) return [between, afterKey];
  return fail("tojson: separators must be two texts");
}

/** `lineStart` is a line end with the indentation of what holds the value. */
function write(value: Value, lineStart: string, layout: Layout): string {
  layout.room.units -= lineStart.length + (typeof value === "string" ? value.length : 1);
  if (layout.room.units < 0) return fail(`text of more than ${longestText} units`);
  if (value === null) return "null";
  if (typeof value === "boolean") return String(value);
  if (typeof value === "bigint") return integerText(value);
  if (typeof value === "number") return float(value);
  if (typeof value === "string") return quoted(value, layout.ascii);
  const inner = layout.indent === undefined ? "" : lineStart + layout.indent;
  const enclosed = (open: string, parts: string[], close: string) => {
    const end = layout.indent === undefined ? "" : lineStart;
    return parts.length === 0 ? open + close : open + inner + parts.join(layout.between + inner) + end + close;
  };
  const nested = inner || lineStart;
  if (Array.isArray(value) || value instanceof Tuple) {
    return enclosed(
      "[",
      Array.from(iterate(value), (item) => write(item, nested, layout)),
      "]",
    );
  }
  if (!(value instanceof Dict)) return fail(`Object of type ${typeName(value)} is not JSON serializable`);
  const entries = [...value.entries()];
  const ordered = layout.sortKeys ? sorted(entries, ([key]) => key, false) : entries;
  const pairs = ordered.map(
    ([key, item]) => quoted(keyText(key), layout.ascii) + layout.afterKey + write(item, nested, layout),
  );
  return enclosed("{", pairs, "}");
}

function float(value: number): string {
  if (Number.isFinite(value)) return floatText(value);
  return Number.isNaN(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}

function keyText(key: Value): string {
  if (typeof key === "string") return key;
  if (key === null || typeof key === "boolean") return String(key);
  if (typeof key === "bigint") return integerText(key);
  return typeof key === "number"
    ? float(key)
    : fail(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}

/** Half a pair of UTF-16, which JSON.stringify would escape and Python does not. */
const loneSurrogate = /[\ud800-\udfff]/u;

function quoted(text: string, ascii: boolean): string {
  let result = JSON.stringify(text);
  if (loneSurrogate.test(text)) {
    result = result.replace(/\\\\|\\u(d[89a-f][0-9a-f]{2})/g, (found, hex) =>
      hex ? String.fromCharCode(Number.parseInt(hex, 16)) : found,
    );
  }
  if (!ascii) return result;
  return result.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
