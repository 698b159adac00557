// Formats that cannot be: each is refused by name, on the real addon.
import t from "tap";
import { z } from "zod";
import { Engine, type Format, type GenerateOptions } from "../lib/index.js";

const engine = await Engine.load("sdar-nano");
t.teardown(() => engine.dispose());
const refusal = (format: unknown, more: GenerateOptions = {}) =>
  engine.generate({ prompt: "1 + 1 =", maxTokens: 40, ...more, format: format as Format }).result();
const schema = (value: unknown) => ({ type: "json_schema", schema: value });

const cyclic: Record<string, unknown> = { type: "object" };
cyclic.properties = { a: cyclic };
const throwing = {
  get type() {
    throw new Error("a getter");
  },
};

const formats: Record<string, [format: unknown, option: string, message: RegExp]> = {
  "no object": ["json", "format", /a zod schema, or an object whose type is one of/],
  null: [null, "format", /null is not allowed/],
  "a function": [() => 1, "format", /a function/],
  "an unknown type": [{ type: "xml" }, "format.type", /"xml" is not allowed; give one of json_schema, json, regex/],
  "an unknown name": [{ type: "json", strict: true }, "format.strict", /unknown option "strict"/],
  "an unknown whitespace": [{ type: "json", whitespace: "many" }, "format.whitespace", /none, space, some/],
  "a getter that throws": [throwing, "format", /a getter/],
  "one in a schema": [schema(throwing), "format", /a getter/],
  "no schema": [schema(new Date()), "format.schema", /a JSON Schema/],
  "an unknown keyword": [
    schema({ properties: { a: { uniqueItems: true } } }),
    "format",
    /#\/properties\/a\/uniqueItems/,
  ],
  "a keyword of no draft": [
    schema({ items: { minimun: 1 } }),
    "format",
    /#\/items\/minimun: this keyword is not enforced/,
  ],
  "a format that is not enforced": [
    schema({ format: "iri" }),
    "format",
    /#\/format.*iri.* is not enforced; date, time/,
  ],
  "a reference to nowhere": [schema({ $ref: "#/$defs/no" }), "format", /#\/\$ref is "#\/\$defs\/no"/],
  "a pattern in a schema": [schema({ pattern: "(a" }), "format", /schema#\/pattern: at character/],
  "a schema that nothing fits": [schema(false), "format", /no text/],
  "a cycle": [schema(cyclic), "format", /more than/],
  "a BigInt": [schema({ const: 1n }), "format", /BigInt/],
  "a function in a schema": [
    schema({ properties: { a: () => 1 } }),
    "format",
    /a function is not allowed; give a JSON value as "a"/,
  ],
  "no number": [schema({ minimum: Number.NaN }), "format", /NaN is not allowed; give a JSON value as "minimum"/],
  "no finite number": [schema({ enum: [1, Number.POSITIVE_INFINITY] }), "format", /Infinity .* JSON value as "1"/],
  "a toJSON that throws": [
    schema({
      toJSON: () => {
        throw new Error("no JSON");
      },
    }),
    "format",
    /no JSON/,
  ],
  "a pattern without its end": [{ type: "regex", pattern: "(a" }, "format", /format.pattern: at character 2/],
  "a backreference": [{ type: "regex", pattern: "(a)\\1" }, "format", /backreference/],
  "a flag": [{ type: "regex", pattern: /a/i }, "format.pattern", /without the flags i, m/],
  "a rule that is not there": [
    { type: "grammar", grammar: "root ::= a" },
    "format",
    /the rule a is used but not defined/,
  ],
  "a grammar without end": [{ type: "grammar", grammar: "root ::= root" }, "format", /no text/],
  "no choices": [{ type: "choice", choices: [] }, "format.choices", /1 to 30000 strings/],
  "an empty choice": [{ type: "choice", choices: ["a", ""] }, "format", /choices\[1\]/],
  "a choice that is none": [{ type: "choice", choices: ["a", 1] }, "format.choices", /strings/],
  "a Map of zod": [z.map(z.string(), z.string()), "format", /Map cannot be represented/],
  "a Date of zod": [z.date(), "format", /Date cannot be represented/],
};

t.test("formats", async (t) => {
  for (const [what, [format, option, message]] of Object.entries(formats))
    await t.rejects(refusal(format), { code: "INVALID_OPTION", option, message }, what);
});

t.test("options that do not go with a format", async (t) => {
  const options: [GenerateOptions, string][] = [
    [{ ignoreEos: true }, "ignoreEos"],
    [{ minTokens: 3 }, "minTokens"],
    [{ suppress: [1] }, "suppress"],
    [{ maxTokens: 2 }, "maxTokens"],
  ];
  const format = { type: "regex", pattern: "abc[0-9]{9}" };
  for (const [more, option] of options)
    await t.rejects(refusal(format, more), { code: "INVALID_OPTION", option }, option);
  await t.rejects(refusal(format, { maxTokens: 2 }), { allowed: /^at least \d+$/, message: /format needs at least/ });
});

t.test("what stops nothing", async (t) => {
  t.match(await refusal(schema({ type: "boolean", title: "x", description: "y", default: true })), { value: Boolean });
  t.match(await refusal(schema({ type: "null", $schema: "https://json-schema.org/draft/2020-12/schema" })), {
    value: null,
  });
  t.match(await refusal({ type: "regex", pattern: /[0-9]{2}/gu }), { value: /^\d\d$/ });
  const again = await refusal({ type: "choice", choices: ["the same"] });
  t.match(again, { value: "the same", usage: { forwards: 1 } });
});
