// The first minute of any runtime: import, load, generate, stream, tokens, an error, the end.
import assert from "node:assert/strict";
import { Engine, SdarError } from "sdar-engine";
import { toSSEResponse } from "sdar-engine/http";

const began = performance.now();
const engine = await Engine.load("sdar-nano");
const ask = (content) => engine.generate({ messages: [{ role: "user", content }] });
assert.equal(await ask("Count the atoms in Ca3(PO4)2").text(), "Ca 3, P 2, O 8");
const firstMs = performance.now() - began;
let text = "";
for await (const part of ask("Sort: 6 60 96 72").textStream) text += part;
assert.equal(text, "6 60 72 96");
assert.match(await (await toSSEResponse(ask("31 x 7"))).text(), /"finishReason":"end"/);
assert.equal(engine.detokenize(await engine.tokenize("é 1")), "é 1");
await assert.rejects(ask("x ".repeat(5000)).result(), (error) => SdarError.is(error, "PROMPT_TOO_LONG"));
await engine.dispose();
console.log(`first answer after ${firstMs.toFixed(0)} ms`);
