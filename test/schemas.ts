// Random forms: schemas of all keywords that are enforced, patterns, choices and grammars.
import type { Random } from "../lib/bench/random.js";

type Schema = Record<string, unknown> | boolean;

const names = ["id", "name", "qty", "a b", "Größe", 'q"', "x1", "x2"];
const formats = ["date", "time", "date-time", "uuid", "email", "ipv4", "ipv6", "hostname", "duration", "json-pointer"];
const patterns = ["^[a-f]+$", "^\\d{2,4}$", "x", "^(ab|c)*$", "[^ ]{3}", "^\\p{Lu}", "^é?[^é]*$"];
const words = ["a", "bc", "red", "green", "中文", "", 'a"b', "\n"];

const some = <T>(random: Random, value: T, share = 0.5) => (random.maybe(share) ? value : undefined);

/** Without what is undefined. */
const defined = (schema: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(schema).filter(([, value]) => value !== undefined));

function value(random: Random, depth = 1): unknown {
  if (depth > 0 && random.maybe(0.2)) return random.times(random.whole(0, 2), () => value(random, depth - 1));
  if (depth > 0 && random.maybe(0.2)) return { [random.of(names)]: value(random, depth - 1) };
  return random.of([null, true, false, 0, -1, 25, 1.5, 1e21, ...words]);
}

function text(random: Random): Schema {
  if (random.maybe(0.25)) return { type: "string", format: random.of(formats) };
  const minLength = random.whole(0, 4);
  return defined({
    type: "string",
    minLength: some(random, minLength),
    maxLength: some(random, minLength + random.whole(3, 9)),
    pattern: some(random, random.of(patterns), 0.3),
  });
}

function number(random: Random): Schema {
  const least = random.of([-100, -1.5, 0, 0.25, 7]);
  const most = least + random.of([1, 10.5, 1000]);
  return defined({
    type: random.of(["integer", "number"]),
    [random.of(["minimum", "exclusiveMinimum"])]: some(random, least, 0.7),
    [random.of(["maximum", "exclusiveMaximum"])]: some(random, most, 0.7),
  });
}

function array(random: Random, depth: number): Schema {
  const minItems = random.whole(0, 2);
  const prefix = random.maybe(0.3) ? random.times(random.whole(1, 2), () => schema(random, depth - 1)) : undefined;
  return defined({
    type: "array",
    items: some(random, schema(random, depth - 1), 0.8),
    prefixItems: prefix,
    minItems: some(random, minItems),
    maxItems: some(random, minItems + random.whole(1, 3)),
    contains: prefix ? undefined : some(random, { const: random.of([1, "red", null]) }, 0.1),
  });
}

function object(random: Random, depth: number): Schema {
  const own = random.some(names, random.whole(0, 4));
  return defined({
    type: "object",
    properties: Object.fromEntries(own.map((name) => [name, schema(random, depth - 1)])),
    required: some(
      random,
      own.filter(() => random.maybe(0.6)),
    ),
    additionalProperties: some(random, random.maybe(0.7) ? false : schema(random, depth - 1), 0.8),
    patternProperties: some(random, { "^x[0-9]$": schema(random, depth - 1) }, 0.2),
    minProperties: some(random, random.whole(0, 1), 0.1),
    maxProperties: some(random, random.whole(3, 5), 0.1),
    propertyNames: some(random, { maxLength: 6 }, 0.1),
  });
}

/** Together with "#/$defs/tree", which a root has. */
export function schema(random: Random, depth = 3): Schema {
  const kind = depth > 0 ? random.whole(0, 12) : random.whole(0, 5);
  const part = () => schema(random, depth - 1);
  if (kind <= 1) return text(random);
  if (kind <= 3) return number(random);
  if (kind === 4) return { enum: random.times(random.whole(1, 4), () => value(random)) };
  if (kind === 5)
    return random.of<Schema>([
      { const: value(random) },
      { type: ["null", "boolean"] },
      { type: "integer", multipleOf: 3, minimum: 0, maximum: 50 },
    ]);
  if (kind <= 7) return array(random, depth);
  if (kind <= 9) return object(random, depth);
  if (kind === 10) return { anyOf: random.times(random.whole(2, 3), part) };
  if (kind === 11)
    return random.maybe()
      ? { oneOf: [number(random), text(random), { type: "null" }] }
      : {
          allOf: [object(random, depth), { type: "object", required: ["id"], properties: { id: { type: "integer" } } }],
        };
  return { $ref: "#/$defs/tree" };
}

export function rootSchema(random: Random): Record<string, unknown> {
  const tree = {
    type: "object",
    properties: { v: number(random), c: { type: "array", items: { $ref: "#/$defs/tree" }, maxItems: 2 } },
    required: ["v"],
    additionalProperties: false,
  };
  const made = schema(random);
  return { ...(typeof made === "boolean" ? {} : made), $defs: { tree } };
}

/** Of a pattern whose texts are not empty, for JavaScript's flag u. */
export function pattern(random: Random, depth = 3): string {
  if (depth === 0) return random.of(["a", "b+", "[0-9]", "\\d{1,3}", "é", "[^x]", "\\w", "中", "."]);
  const part = () => pattern(random, depth - 1);
  return random.of([
    () => `${part()}${part()}`,
    () => `(?:${part()}|${part()})`,
    () => `(${part()})${random.of(["*", "?", "{0,2}", "+?"])}${part()}`,
    () => `(?=${random.of([".", "[^q]"])})${part()}`,
  ])();
}
