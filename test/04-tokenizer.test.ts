import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer as HfTokenizer } from "@huggingface/tokenizers";
import t from "tap";
import { readJson, shippedModelPath } from "../lib/checkpoint.js";
import type { TokenBytes } from "../lib/text/token-bytes.js";
import { Tokenizer } from "../lib/text/tokenizer.js";
import { samples } from "./samples.js";

const folder = shippedModelPath();
const config = readJson(join(folder, "tokenizer_config.json"), "TOKENIZER_INVALID") ?? {};
const definition = () => JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8"));
const tokenizer = Tokenizer.load(folder, config) as Tokenizer;

const textOf = ({ bytes, offsets }: TokenBytes, ids: Iterable<number>) =>
  Buffer.concat([...ids].map((id) => bytes.subarray(offsets[id], offsets[id + 1]))).toString();

t.test("the byte table says what the tokenizer's own decoder says", async (t) => {
  const library = new HfTokenizer(definition(), config);
  const table = tokenizer.tokenBytes(560);
  t.equal(table.offsets.length, 561);
  for (const { prompt, answer } of samples()) {
    for (const text of [prompt, answer]) {
      const ids = tokenizer.encode(text, { addSpecial: true });
      if (textOf(table, ids) !== text || library.decode([...ids]) !== text) t.fail(text);
    }
  }
  const text = "naïve 🎉 日本語\t\u0000\u00ad\n";
  t.equal(textOf(table, tokenizer.encode(text, { addSpecial: false })), text, "any text, byte by byte");
  t.equal(tokenizer.encode("", { addSpecial: true }).length, 0);
});

t.test("special tokens", async (t) => {
  const ids = tokenizer.encode("<|im_start|>user\nHi<|im_end|>", { addSpecial: false });
  t.equal(ids[0], 557, "are found in a text");
  t.equal(ids.at(-1), 558);
  t.equal(textOf(tokenizer.tokenBytes(560), ids), "user\nHi", "and have no bytes");
  t.equal(tokenizer.tokenBytes(570).offsets.length, 561, "nor have ids without a token");
  t.equal(tokenizer.tokenBytes(10).offsets.length, 11);
});

t.test("added tokens that are not special are text", async (t) => {
  const json = definition();
  json.added_tokens.push({ ...json.added_tokens[0], id: 560, content: "<é>", special: false });
  const table = new Tokenizer(json, config, "x").tokenBytes(561);
  t.equal(textOf(table, [560]), "<é>");
});

t.test("sentencepiece decoders", async (t) => {
  const vocab = { "<unk>": 0, "▁a": 1, "<0xC3>": 2, "<0xA9>": 3, "b▁c": 4 };
  const json = {
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    model: { type: "BPE", unk_token: "<unk>", byte_fallback: true, vocab, merges: [] },
  };
  const replace = { type: "Replace", pattern: { String: "▁" }, content: " " };
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  const decoders = [replace, { type: "ByteFallback" }, { type: "Fuse" }, strip];
  const fallback = new Tokenizer({ ...json, decoder: { type: "Sequence", decoders } }, {}, "x").tokenBytes(5);
  t.equal(textOf(fallback, [1, 2, 3, 4]), " aéb c");
  const metaspace = new Tokenizer({ ...json, decoder: { type: "Metaspace", replacement: "▁" } }, {}, "x").tokenBytes(5);
  t.equal(textOf(metaspace, [1, 4]), " ab c");

  const unsupported = (decoder: unknown, message: RegExp) =>
    t.throws(() => new Tokenizer({ ...json, decoder }, {}, "a/tokenizer.json"), {
      code: "UNSUPPORTED_TOKENIZER",
      message,
    });
  unsupported({ type: "WordPiece" }, /a\/tokenizer\.json has a decoder of type WordPiece; supported are/);
  unsupported({ type: "Sequence", decoders: [{ type: "CTC" }] }, /CTC/);
  unsupported({ type: "Replace", pattern: { Regex: "x" } }, /Replace/);
  unsupported(null, /no decoder/);
});

t.test("no tokenizer, and broken ones", async (t) => {
  const dir = t.testdir({
    none: {},
    broken: { "tokenizer.json": "{" },
    empty: { "tokenizer.json": '{"decoder":{"type":"ByteLevel"}}' },
  });
  t.equal(Tokenizer.load(join(dir, "none"), {}), undefined);
  for (const name of ["broken", "empty"]) {
    t.throws(() => Tokenizer.load(join(dir, name), {}), { code: "TOKENIZER_INVALID", message: /tokenizer\.json/ });
  }
});
