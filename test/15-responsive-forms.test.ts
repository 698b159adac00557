// No form stalls JavaScript's thread, whatever it is; those that compile do so off it.
import t from "tap";
import { Engine, type Format, SdarError } from "../lib/index.js";
import { stall } from "./stalls.js";

const list = <T>(length: number, make: (i: number) => T) => Array.from({ length }, (_, i) => make(i));
const members = (length: number, make: (i: number) => unknown) =>
  Object.fromEntries(list(length, (i) => [`member_${i}`, make(i)]));
const schema = (value: object): Format => ({ type: "json_schema", schema: value });
const regex = (pattern: string): Format => ({ type: "regex", pattern });
const nested = (depth: number) => {
  let inner: object = { type: "string" };
  for (let i = 0; i < depth; i++) inner = { properties: { a: inner } };
  return inner;
};
const references = (length: number) => ({
  $ref: "#/$defs/member_0",
  $defs: { ...members(length, (i) => ({ $ref: `#/$defs/member_${i + 1}` })), [`member_${length}`]: { type: "null" } },
});

const forms: Record<string, Format> = {
  "nested quantifiers": regex("(((a*)*)*b)*(a|a)*"),
  counts: regex("((.{1,999}x){1,999}y){1,999}"),
  "a megabyte of a pattern": regex("ab|".repeat(349_000)),
  "two megabytes of a pattern": regex("a".repeat(2_000_000)),
  "deep groups": regex(`${"(".repeat(500_000)}a${")".repeat(500_000)}`),
  "10,000 choices": { type: "choice", choices: list(10_000, (i) => `choice number ${i}`) },
  "a million choices": { type: "choice", choices: list(1_000_000, (i) => `${i}`) },
  "an enum of 30,000": schema({ enum: list(30_000, (i) => i), minimum: 3 }),
  "an enum of 100,000": schema({ enum: list(100_000, (i) => `member ${i}`) }),
  "an array of a million": schema({ enum: list(1_000_000, () => 1) }),
  "many empty objects": schema({ enum: list(300_000, () => ({})) }),
  "7,000 members": schema({
    properties: members(7000, () => ({ type: "string", maxLength: 20 })),
    additionalProperties: false,
  }),
  "too many members": schema({ properties: members(40_000, () => ({})) }),
  "a chain of references": schema(references(7000)),
  "a deep schema": schema(nested(3000)),
  "a bottomless schema": schema(nested(100_000)),
  "a string of a megabyte": schema({ const: "x".repeat(1_000_000) }),
  "a string of two megabytes": schema({ const: "\n".repeat(2_000_000) }),
  "a long grammar": { type: "grammar", grammar: `root ::= ${"(".repeat(100_000)}"a"${")".repeat(100_000)}` },
  "many rules": {
    type: "grammar",
    grammar: `root ::= r0\n${list(20_000, (i) => `r${i} ::= r${i + 1} | "a"`).join("\n")}\nr20000 ::= "b"`,
  },
};

t.test("forms that mean to stall or to explode", async (t) => {
  const engine = await Engine.load("sdar-nano");
  t.teardown(() => engine.dispose());
  for (const [what, format] of Object.entries(forms)) {
    let fastest = Number.POSITIVE_INFINITY;
    const tried = async () => {
      const began = performance.now();
      const run = engine.generate({ tokens: [1], maxTokens: 2, format });
      const error = await run.started.catch((e) => e);
      fastest = Math.min(fastest, performance.now() - began);
      run.abort();
      await run.result().catch(() => {});
      if (error)
        t.ok(
          error instanceof SdarError && error.code === "INVALID_OPTION" && error.message.length < 400,
          `${what}: ${error}`,
        );
    };
    let least = Number.POSITIVE_INFINITY;
    // The best of some tries: a busy machine stalls for reasons of its own.
    for (let tries = 0; tries < 20 && (least > 20 || fastest > 1000); tries++)
      least = Math.min(least, await stall(tried));
    t.ok(least < 20, `${what}: the loop stood still for ${least.toFixed(1)} ms`);
    // Of a thread of its own, on a machine that may be busy.
    t.ok(fastest < 5000, `${what}: took ${fastest.toFixed(0)} ms`);
  }
});
