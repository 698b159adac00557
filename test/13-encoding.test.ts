// The ids of a text: those of Hugging Face's tokenizers and of llama.cpp, in a time that is linear in the text.
import { readFileSync } from "node:fs";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import t from "tap";
import { boundOf, surelyExceeds } from "../lib/text/length-bound.js";
import { sortMarks } from "../lib/text/marks.js";
import { Tokenizer } from "../lib/text/tokenizer.js";
import { qwen3Definition, qwen3Tokenizer } from "./qwen3.js";
import { fingerprint, texts } from "./tokenizer/texts.js";

const recorded = (name: string) => readFileSync(new URL(`tokenizer/${name}`, import.meta.url), "utf8");
const definition = qwen3Definition();
const names: string[] = definition.added_tokens.map(({ content }: { content: string }) => content);
const tokenizer = qwen3Tokenizer();
const encode = (text: string) => [...tokenizer.encode(text, { addSpecial: false })];

t.test("llama.cpp's published vectors", async (t) => {
  const vectors: { text: string; ids: number[] }[] = JSON.parse(recorded("llama.cpp-qwen2.json"));
  t.equal(vectors.length, 46);
  for (const { text, ids } of vectors) t.same(encode(text), ids, JSON.stringify(text));
});

t.test("10,000 random texts have the ids of the Rust library", async (t) => {
  const lines = recorded("rust.txt").trim().split("\n");
  const unicode = Number.parseFloat(process.versions.unicode ?? "0");
  let compared = 0;
  for (const [i, text] of texts(10_000, names).entries()) {
    const [wanted, mark] = (lines[i] as string).split(" ");
    if (mark === "older" || (mark === "unassigned" && unicode >= 16)) continue;
    compared++;
    if (fingerprint(encode(text)) !== wanted) t.fail(JSON.stringify(text));
  }
  t.ok(compared > 4000, `${compared} compared`);
});

t.test("and those of the JavaScript library, whatever the Unicode version", async (t) => {
  const library = new Library(qwen3Definition(), {});
  for (const text of texts(1000, names)) {
    if (fingerprint(encode(text)) !== fingerprint(library.encode(text).ids)) t.fail(JSON.stringify(text));
  }
  t.same(encode("<|im_start|>é"), library.encode("<|im_start|>é").ids);
});

t.test("other kinds of byte-pair encoding have the library's ids", async (t) => {
  const vocab = { "<unk>": 0, a: 1, b: 2, ab: 3, abab: 4, "<0xC3>": 5, "<0xA9>": 6, c: 7, "▁": 8 };
  const merges = ["a b", "ab ab"];
  const base = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null };
  const decoder = { type: "Metaspace", replacement: "▁" };
  const variants: [what: string, model: object, rest?: object][] = [
    ["merges of merges", {}],
    ["whole words first", { ignore_merges: true }],
    ["bytes for what is unknown", { byte_fallback: true }],
    ["each unknown character", { unk_token: "<unk>" }],
    ["unknown characters as one", { unk_token: "<unk>", fuse_unk: true }],
    [
      "metaspace",
      { unk_token: "<unk>" },
      { pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "first" } },
    ],
    [
      "around a text",
      { unk_token: "<unk>" },
      {
        post_processor: {
          type: "TemplateProcessing",
          single: [{ SpecialToken: { id: "c" } }, { Sequence: { id: "A" } }],
        },
      },
    ],
  ];
  for (const [what, model, rest] of variants) {
    const json = { ...base, decoder, model: { type: "BPE", vocab, merges, ...model }, ...rest };
    const ours = new Tokenizer(json, {}, "x");
    const library = new Library(json, {});
    for (const text of ["abab", "ababab", "aab", "ab c", "é", "xyab", "ca é"]) {
      // Without unknown token and bytes nothing stands for the others.
      const known = Object.keys(model).some((name) => /unk|fallback/.test(name)) || /^[ab]+$/.test(text);
      if (known) t.same([...ours.encode(text, { addSpecial: true })], library.encode(text).ids, `${what}: ${text}`);
    }
  }
});

t.test("marks in canonical order are the same text, long runs too", async (t) => {
  const marks = [
    "\u0300",
    "\u0315",
    "\u0327",
    "\u0345",
    "\u05b0",
    "\u064e",
    "\u0f71",
    "\u0344",
    "\u0f73",
    "\u0903",
    "\u302e",
  ];
  let state = 7;
  const random = (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state % n;
  };
  for (let round = 0; round < 200; round++) {
    const run = Array.from({ length: 34 + random(60) }, () => marks[random(marks.length)]).join("");
    const text = `a${run}é${run}`;
    for (const form of ["NFC", "NFD", "NFKC"]) {
      if (sortMarks(text).normalize(form) !== text.normalize(form)) t.fail(`${form}: ${JSON.stringify(text)}`);
    }
  }
  t.equal(sortMarks("a\u0315\u0300"), "a\u0315\u0300", "short ones are left to the runtime");
});

/** The best of several, in milliseconds. */
function best(work: () => void): number {
  const times = Array.from({ length: 4 }, () => {
    const began = performance.now();
    work();
    return performance.now() - began;
  });
  return Math.min(...times);
}

t.test("16 times the text takes far less than 256 times as long", async (t) => {
  const inputs: Record<string, (n: number) => string> = {
    "one word": (n) => "a".repeat(n),
    spaces: (n) => " ".repeat(n),
    "line ends": (n) => "\n".repeat(n),
    Han: (n) => "的".repeat(n),
    "marks out of order": (n) => `e${"\u0315\u0300".repeat(n / 2)}`,
    "half a name": (n) => "<|im_star".repeat(n / 9),
    prose: (n) => "it was a fine day. ".repeat(n / 19),
  };
  for (const [what, text] of Object.entries(inputs)) {
    encode(text(2000));
    const [short, long] = [best(() => encode(text(5000))), best(() => encode(text(80_000)))];
    t.ok(long < 100 * short + 100, `${what}: ${short.toFixed(1)} and ${long.toFixed(1)} ms`);
  }
});

t.test("a text that is refused unseen has more tokens than that for sure", async (t) => {
  const bound = tokenizer.lengthBound as NonNullable<typeof tokenizer.lengthBound>;
  const long = [
    " ".repeat(9000),
    "=".repeat(3000),
    "a".repeat(5000),
    "e\u0301".repeat(3000),
    "각".repeat(2000).normalize("NFD"),
  ];
  for (const text of [...texts(2000, names), ...long, "<|im_start|>".repeat(500), "\u212b\u037e".repeat(900)]) {
    const count = encode(text).length;
    if (surelyExceeds(text, count, bound)) t.fail(JSON.stringify(text.slice(0, 60)));
  }
  t.ok(surelyExceeds("a".repeat(1_000_000), 20_000, bound), "it does refuse");
  t.ok(surelyExceeds("的".repeat(9_000_000), 32_767, bound));
  const bytes = new Uint8Array(3);
  t.equal(boundOf({ bytes, offsets: Uint32Array.of(0, 1, 3) }, []).least, 1 / 2);
  t.throws(() => tokenizer.encode("a b c d", { addSpecial: false, limit: 3 }), { code: "PROMPT_TOO_LONG" });
});

t.test("what a text may not be made of is named", async (t) => {
  const model = (edit: object) => ({ model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: [], ...edit } });
  const small = { ...definition, ...model({}) };
  const bad = (edit: object, code: string, message: RegExp) =>
    t.throws(() => new Tokenizer({ ...small, ...edit }, {}, "a/tokenizer.json"), { code, message });
  bad(model({ type: "Unigram" }), "UNSUPPORTED_TOKENIZER", /Unigram; supported is BPE/);
  bad(model({ end_of_word_suffix: "</w>" }), "UNSUPPORTED_TOKENIZER", /end_of_word_suffix/);
  bad(model({ vocab: { a: -1 } }), "TOKENIZER_INVALID", /the id of "a"/);
  bad(model({ vocab: null }), "TOKENIZER_INVALID", /model\.vocab/);
  bad(model({ merges: Array(2_000_000).fill("a b") }), "TOKENIZER_INVALID", /model\.merges, 2000000 pairs/);
  bad(model({ merges: 5 }), "TOKENIZER_INVALID", /model\.merges/);
  bad(model({ merges: ["a b c"] }), "TOKENIZER_INVALID", /merges\[0\]/);
  bad(model({ merges: [["b", "a"]] }), "TOKENIZER_INVALID", /merges\[0\].*without id/);
  bad({ added_tokens: {} }, "TOKENIZER_INVALID", /added_tokens/);
  bad({ added_tokens: [{ id: 1, content: "" }] }, "TOKENIZER_INVALID", /added_tokens\[0\]/);
  bad({ added_tokens: Array(200_000).fill({ id: 1, content: "x" }) }, "TOKENIZER_INVALID", /200000 added tokens/);
  bad(
    { normalizer: { type: "Replace", pattern: { Regex: "a|".repeat(50_000) }, content: "" } },
    "TOKENIZER_INVALID",
    /rules/,
  );
  bad({ decoder: { type: "Sequence", decoders: [null] } }, "UNSUPPORTED_TOKENIZER", /decoder/);
  const doubling = Array(40).fill({ type: "Replace", pattern: { String: "a" }, content: "aa" });
  bad({ decoder: { type: "Sequence", decoders: doubling } }, "TOKENIZER_INVALID", /decoder makes more/);
  const growing = { type: "Sequence", normalizers: doubling };
  t.throws(() => new Tokenizer({ ...small, normalizer: growing }, {}, "x").encode("a", { addSpecial: false }), {
    code: "TOKENIZER_INVALID",
    message: /normalizer makes a text longer/,
  });
});
