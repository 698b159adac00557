// Answers a file of prompts: JSON lines in, JSON lines out in the same order. Started again after it broke off, it goes on
// where it was.
//   node examples/batch.mjs prompts.jsonl answers.jsonl
// A line in: {"prompt": "…"}. A line out: the same object with "answer" and "finishReason", or with "error".
import { open, readFile, truncate } from "node:fs/promises";
import { Engine } from "sdar-engine";

const [input, output] = process.argv.slice(2);
const before = await readFile(output).catch(() => Buffer.alloc(0));
const whole = before.lastIndexOf("\n") + 1; // a line that broke off is answered again
if (whole < before.length) await truncate(output, whole);
const done = before.subarray(0, whole).toString().split("\n").length - 1;

async function* rest() {
  let index = 0;
  for await (const line of (await open(input)).readLines()) if (index++ >= done) yield line;
}

const engine = await Engine.load("sdar-nano");
const answers = await open(output, "a");
const ask = (line) => ({ messages: [{ role: "user", content: JSON.parse(line).prompt }], maxTokens: 256 });
for await (const { item, result, error } of engine.map(rest(), ask)) {
  const given = error?.code === "INTERNAL" ? { line: item } : JSON.parse(item);
  const told = result ? { answer: result.text, finishReason: result.finishReason } : { error: error.message };
  await answers.appendFile(`${JSON.stringify({ ...given, ...told })}\n`);
}
console.error(`${engine.stats().recent.tokensPerSecond.toFixed(0)} tokens/s, ${done} lines were there`);
await engine.dispose();
