// Bodies of strangers: JSON without names that reach prototypes, and no more of it than can be looked at in a moment.
import { badField } from "./problem.js";

/** Beyond the engine's own bounds, which say it better. */
const most = { values: 100_000, depth: 64, ids: 2 ** 20 } as const;

/** Parses; throws ApiError 400. */
export function parseJson(text: string): unknown {
  let poisoned = false;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    // Of its position, not of what stands there.
    const where = /at position \d+|line \d+ column \d+/.exec((error as Error).message)?.[0];
    throw badField(null, `the body is not valid JSON${where ? ` (${where})` : ""}`, "invalid_json");
  }
  // Names as data are harmless until somebody copies them: nobody sends them for a good reason.
  poisoned = /"(?:_|\\u005f){2}proto(?:_|\\u005f){2}"\s*:/i.test(text);
  if (poisoned) throw badField(null, 'the body has the name "__proto__", which is not allowed', "invalid_json");
  checkSize(value);
  return value;
}

/** Lists of token ids are checked by who takes them: a loop over numbers is cheap. */
const isIds = (value: unknown[]): boolean => value.length > 64 && typeof value[0] === "number";

function checkSize(body: unknown): void {
  let values = 0;
  let level: unknown[] = [body];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > most.depth) throw badField(null, `the body has more than ${most.depth} levels of lists and objects`);
    const next: unknown[] = [];
    for (const value of level) {
      if (typeof value !== "object" || value === null) continue;
      const inner = Array.isArray(value) ? value : Object.values(value);
      if (isIds(inner) && inner.length <= most.ids && inner.every((id) => typeof id === "number")) continue;
      values += inner.length;
      if (values > most.values) throw badField(null, `the body has more than ${most.values} values`);
      for (const each of inner) if (typeof each === "object" && each !== null) next.push(each);
    }
    level = next;
  }
}
