// Masks of allowed ids beside those of xgrammar, over Qwen3's vocabulary: random forms that mean the same in both, and random walks.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import t, { type Test } from "tap";
import { Random } from "../lib/bench/random.js";
import { loadBinding } from "../lib/binding.js";
import type { ToolUse } from "../lib/conversation-schema.js";
import { answerForm } from "../lib/tool-form.js";
import { qwen3Definition, qwen3Info, qwen3Tokenizer } from "./qwen3.js";

type XGrammar = typeof import("@mlc-ai/web-xgrammar");
type CompiledGrammar = Awaited<ReturnType<import("@mlc-ai/web-xgrammar").GrammarCompiler["compileGrammar"]>>;

/** Of native/bench/form_addon.cc. */
interface FormBinding {
  formVocabulary(table: { bytes: Uint8Array; offsets: Uint32Array; endIds: Int32Array; size: number }): unknown;
  formWalk(vocabulary: unknown, json: string): unknown;
  formMask(walk: unknown): Int32Array | undefined;
  formAdvance(walk: unknown, id: number): boolean;
}

const full = Boolean(process.env.SDAR_TEST_FULL);
const native = loadBinding() as unknown as FormBinding;
const size = qwen3Info.vocabSize;
const end = qwen3Info.endTokenIds[0] as number;
const { bytes, offsets } = qwen3Tokenizer().tokenBytes(size);
const bytesOf = (id: number) => bytes.subarray(offsets[id], offsets[id + 1]);
const vocabulary = native.formVocabulary({ bytes, offsets, endIds: Int32Array.of(end), size });

/** Its package says that it is a module, and is none. */
function loadXGrammar(): XGrammar {
  const require = createRequire(import.meta.url);
  const file = require.resolve("@mlc-ai/web-xgrammar");
  const exports = {} as XGrammar;
  new Function("exports", "module", "require", "__filename", readFileSync(file, "utf8"))(
    exports,
    { exports },
    require,
    file,
    dirname(file),
  );
  return exports;
}

const xgrammar = loadXGrammar();
const words: string[] = [];
{
  const { model, added_tokens } = qwen3Definition();
  for (const [word, id] of Object.entries(model.vocab)) words[id as number] = word;
  for (const { id, content } of added_tokens) words[id] = content;
}
const compiler = await xgrammar.GrammarCompiler.createGrammarCompiler(
  await xgrammar.TokenizerInfo.createTokenizerInfo(words, "byte_level", false, size, [end]),
);

/** What xgrammar takes for text and we do not: names of special tokens, bytes that are never UTF-8. A bit each. */
const apart = new Int32Array(size / 32);
/** whole characters */
const whole = new Set<number>();
for (let id = 0; id < size; id++) {
  const own = bytesOf(id);
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(own, { stream: true });
    if (own.length === 0 && id !== end) throw new Error("no text");
    if (!new TextDecoder().decode(own).includes("\ufffd")) whole.add(id);
  } catch {
    (apart[id >> 5] as number) |= 1 << (id & 31);
  }
}

/** Ids whose bits are set. */
function ids(mask: Int32Array): number[] {
  const found: number[] = [];
  for (const [i, word] of mask.entries())
    for (let rest = word; rest !== 0; rest &= rest - 1) found.push(32 * i + 31 - Math.clz32(rest & -rest));
  return found;
}

/** Walks of at most `steps` tokens, ever the same in both. Returns the number of masks compared. */
async function walk(t: Test, form: object, compiled: CompiledGrammar, random: Random, steps = 12): Promise<number> {
  const matcher = await xgrammar.GrammarMatcher.createGrammarMatcher(compiled);
  const ours = native.formWalk(vocabulary, JSON.stringify(form));
  let text = "";
  let masks = 0;
  for (; masks < steps; masks++) {
    const mask = native.formMask(ours) as Int32Array;
    const theirs = await matcher.getNextTokenBitmask();
    const different = mask.map((word, i) => (word ^ (theirs[i] as number)) & ~(apart[i] as number));
    const wrong = ids(different);
    if (wrong.length > 0) {
      const shown = wrong
        .slice(0, 10)
        .map((id) => `${((mask[id >> 5] as number) >> (id & 31)) & 1 ? "+" : "-"}${words[id]}`);
      t.fail(`${JSON.stringify(form)} after ${JSON.stringify(text)}: ${wrong.length}: ${shown.join(" ")}`);
      break;
    }
    if (ids(mask.map((word, i) => word & (apart[i] as number))).length > 0)
      t.fail(`ids without text: ${JSON.stringify(form)}`);
    const allowed = ids(mask).filter((id) => whole.has(id));
    // Short ones as often as long ones: most of a string's tokens are long.
    const length = random.whole(0, 5);
    const near = allowed.filter((id) => bytesOf(id).length <= length);
    const id = random.of(near.length > 0 ? near : allowed);
    if (id === end) break;
    text += new TextDecoder().decode(bytesOf(id));
    if (!matcher.acceptToken(id)) t.fail(`xgrammar refuses ${id}`);
    if (!native.formAdvance(ours, id)) t.fail(`we refuse ${id}`);
  }
  matcher.dispose();
  return masks;
}

const characters = ["a", "b", "xyz", "the ", "é", "中文", "1", "0.", "-", "{", "name", " ", "😀"];
/** xgrammar takes other bytes for [α-ω] than those of its characters. */
const classes = ["[a-z]", "[0-9]", "[^a]", "[^\\n]", "[a-zA-Z_]", "[ .,]", "[^0-9\\n]"];

interface Syntax {
  quote(text: string): string;
  open: string;
  /** between parts in sequence */
  space: string;
}
const gbnf: Syntax = { quote: (text) => JSON.stringify(text), open: "(", space: " " };
const pattern: Syntax = { quote: (text) => text.replace(/[.{}]/g, "\\$&"), open: "(?:", space: "" };

/** A part of a grammar or a pattern: never empty, for xgrammar misses masks where a rule that may be empty is repeated. */
function part(random: Random, depth: number, syntax: Syntax): string {
  const { quote, open, space } = syntax;
  const inner = () => part(random, depth - 1, syntax);
  switch (depth > 0 ? random.whole(0, 6) : random.whole(0, 1)) {
    case 0:
      return quote(random.of(characters));
    case 1:
      return random.of(classes);
    case 2:
      return `${open}${random.times(random.whole(2, 4), inner).join("|")})`;
    case 3:
      return `${open}${inner()})${random.of(["+", "{1,3}", "{2}", "{2,}"])}`;
    case 4:
      return `${inner()}${space}${open}${inner()})${random.of(["*", "?", "{0,2}"])}`;
    case 5:
      return `${open}${inner()})${random.of(["*", "?", "{0,2}"])}${space}${inner()}`;
    default:
      return `${inner()}${space}${inner()}`;
  }
}

/** Of values whose texts both write alike. */
function schema(random: Random, depth: number): object {
  switch (depth > 0 ? random.whole(0, 8) : random.whole(0, 4)) {
    case 0:
      return { type: "boolean" };
    case 1:
      return { type: "integer" };
    case 2:
      return { enum: random.some(["a", "b c", "中文", 1, 25, null, true, "red"], random.whole(1, 5)) };
    case 3:
      return { const: random.of(["x", 7, null, "Ω", false]) };
    case 4:
      return { type: "null" };
    case 5: {
      const minItems = random.whole(0, 2);
      return { type: "array", items: schema(random, depth - 1), minItems, maxItems: minItems + random.whole(1, 3) };
    }
    case 6:
      return { anyOf: random.times(random.whole(2, 3), () => schema(random, depth - 1)) };
    default: {
      const names = random.some(["id", "name", "qty", "Größe", "a b", "tags"], random.whole(1, 4));
      return {
        type: "object",
        properties: Object.fromEntries(names.map((name) => [name, schema(random, depth - 1)])),
        required: names.filter(() => random.maybe(0.7)),
        additionalProperties: false,
      };
    }
  }
}

t.test("in text, a call that has begun is held to its tool's schema", async (t) => {
  const city = { type: "object", properties: { city: { type: "string", maxLength: 6 } }, required: ["city"] };
  const parameters = { ...city, additionalProperties: false };
  const bytesIds = new Map(
    Array.from({ length: size }, (_, id) => id).flatMap((id) => {
      const own = bytesOf(id);
      return own.length === 1 ? [[own[0], id] as const] : [];
    }),
  );
  /** Whether a text may begin like this, and whether it may end there. */
  const takes = (text: string, parallel = true): [begins: boolean, ends: boolean] => {
    const use = { tools: [{ name: "weather", parameters }], choice: "auto", parallel } as unknown as ToolUse;
    const walk = native.formWalk(vocabulary, answerForm(use, "possible") as string);
    const begins = Array.from(Buffer.from(text)).every((byte) =>
      native.formAdvance(walk, bytesIds.get(byte) as number),
    );
    return [begins, begins && native.formAdvance(walk, end)];
  };
  const head = '<tool_call>\n{"name": "weather", "arguments": ';
  const call = `${head}{"city": "Rome"}}\n</tool_call>`;
  t.same(takes("any text <tool_cal at all"), [true, true]);
  t.same(takes(`Well.\n${call}`), [true, true]);
  t.same(takes(`<think>\nhm ${head}x\n</think>\n\n${call} and ${call}.`), [true, true]);
  t.same(takes(`${call}${call}`, false), [false, false], "one alone");
  t.same(takes(`Well.\n${head}{"city": "Rome"`), [true, false], "not before its end");
  for (const wrong of [
    `${head}{}`,
    `${head}{"town"`,
    `${head}{"city": 3`,
    `${head}{"city": "Reykjavik`,
    '<tool_call>\n{"name": "now"',
    "<tool_call> ",
  ])
    t.same(takes(`Well. ${wrong}`), [false, false], wrong);
});

t.test("grammars", async (t) => {
  const random = new Random(1);
  let masks = 0;
  for (let i = 0; i < (full ? 300 : 14); i++) {
    const rules = random.times(3, (k) => {
      const next = k < 2 ? ` | ${part(random, 1, gbnf)} r${k + 1}` : "";
      return `r${k} ::= ${part(random, 2, gbnf)}${next} | "<" r${random.whole(0, k)} ">"`;
    });
    const grammar = ["root ::= r0", ...rules].join("\n");
    masks += await walk(t, { type: "grammar", grammar }, await compiler.compileGrammar(grammar), random);
  }
  t.ok(masks > (full ? 1000 : 50), `${masks} masks`);
});

t.test("regular expressions", async (t) => {
  const random = new Random(2);
  let masks = 0;
  for (let i = 0; i < (full ? 300 : 14); i++) {
    const text = part(random, 3, pattern);
    const compiled = await compiler.compileStructuralTag({
      type: "structural_tag",
      format: { type: "regex", pattern: text },
    } as never);
    masks += await walk(t, { type: "regex", pattern: text }, compiled, random);
  }
  t.ok(masks > (full ? 1000 : 50), `${masks} masks`);
});

t.test("schemas", async (t) => {
  const random = new Random(3);
  let masks = 0;
  for (let i = 0; i < (full ? 300 : 14); i++) {
    const made = schema(random, 3);
    const compiled = await compiler.compileJSONSchema(JSON.stringify(made), false, -1, [", ", ": "], true);
    masks += await walk(t, { type: "json_schema", schema: made, whitespace: "space" }, compiled, random);
  }
  t.ok(masks > (full ? 1000 : 50), `${masks} masks`);
});
