// Bodies of strangers: JSON without names that reach prototypes, and no more of it than can be looked at in a moment.
import { bounds } from "../limits.js";
import { badField } from "./problem.js";

/** What whole bodies may have; the engine's own bounds are narrower, and say it better. */
const most = { names: 32_768, values: 32_768, depth: 64, list: 32_768, objects: bounds.messages } as const;

/** Fields that may be long lists of numbers; whoever takes them looks at each once. */
const idFields = ["prompt", "tokens"];

/** Parses; throws ApiError 400. */
export function parseJson(text: string): unknown {
  checkStructure(text);
  const value = parsed(text);
  // Names as data are harmless until somebody copies them: nobody sends them for a good reason.
  if (/"(?:_|\\u005f){2}proto(?:_|\\u005f){2}"\s*:/i.test(text)) {
    throw badField(null, 'the body has the name "__proto__", which is not allowed', "invalid_json");
  }
  checkSize(value);
  return value;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // Of its position, not of what stands there.
    const where = /at position \d+|line \d+ column \d+/.exec((error as Error).message)?.[0];
    throw badField(null, `the body is not valid JSON${where ? ` (${where})` : ""}`, "invalid_json");
  }
}

const code = { quote: 34, colon: 58, bracket: 91, backslash: 92, brace: 123 } as const;

/** Parsing takes time for names, objects and lists, not for text: these are counted first. */
function checkStructure(text: string): void {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === code.quote) {
      i = endOfString(text, i);
      if (i < 0) return; // which is no JSON
    } else if ((c === code.colon || c === code.brace || c === code.bracket) && ++count > most.names) {
      throw badField(null, `the body has more than ${most.names} names, objects and lists`);
    }
  }
}

/** Where the string that begins there ends; -1 where it does not. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let first = end;
    while (text.charCodeAt(first - 1) === code.backslash) first--;
    if ((end - first) % 2 === 0) return end;
  }
  return -1;
}

function checkSize(body: unknown): void {
  let values = 0;
  let level: unknown[] = [body];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > most.depth) throw badField(null, `the body has more than ${most.depth} levels of lists and objects`);
    const next: unknown[] = [];
    for (const value of level) {
      const inner = depth === 0 ? withoutIds(body) : partsOf(value);
      values += inner.length;
      if (values > most.values) throw badField(null, `the body has more than ${most.values} values`);
      const before = next.length;
      for (const each of inner) if (typeof each === "object" && each !== null) next.push(each);
      // Each costs who checks it much more than a text does.
      const objects = next.length - before;
      if (inner.length > most.list || objects > most.objects) {
        const allowed = objects > most.objects ? `${most.objects} objects` : `${most.list} values`;
        throw badField(null, `the body has a list or an object of more than ${allowed}`);
      }
    }
    level = next;
  }
}

const partsOf = (value: unknown): unknown[] => {
  if (typeof value !== "object" || value === null) return [];
  return Array.isArray(value) ? value : Object.values(value);
};

function withoutIds(body: unknown): unknown[] {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return partsOf(body);
  return Object.entries(body).flatMap(([name, value]): unknown[] => {
    if (!idFields.includes(name) || !Array.isArray(value)) return [value];
    return value.every((each) => typeof each === "number" || Array.isArray(each)) ? [] : [value];
  });
}
