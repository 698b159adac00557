// Answers a file of prompts: JSON lines in, JSON lines out in the same order.
//   node examples/batch.mjs < prompts.jsonl > answers.jsonl
// A line in: {"prompt": "…"}. A line out: the same object with "answer" and "finishReason", or with "error".
import { once } from "node:events";
import { createInterface } from "node:readline";
import { Engine } from "sdar-engine";

// The engine batches what it has, so it must have many requests; but the file may be larger than memory.
const atOnce = 256;

const engine = await Engine.load("sdar-nano");

async function answer(line) {
  let input = { line };
  try {
    input = JSON.parse(line);
    const run = engine.generate({ messages: [{ role: "user", content: input.prompt }], maxTokens: 256 });
    const { text, finishReason } = await run.result();
    return { ...input, answer: text, finishReason };
  } catch (error) {
    return { ...input, error: error.message }; // of one line, and no reason to lose the others
  }
}

async function writeNext(pending) {
  const line = JSON.stringify(await pending.shift());
  if (!process.stdout.write(`${line}\n`)) await once(process.stdout, "drain");
}

try {
  const pending = [];
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === "") continue;
    pending.push(answer(line));
    if (pending.length >= atOnce) await writeNext(pending);
  }
  while (pending.length > 0) await writeNext(pending);
  const { tokensPerSecond, batchSize } = engine.stats().recent;
  console.error(`${tokensPerSecond.toFixed(0)} tokens/s, ${batchSize.toFixed(1)} requests in a step`);
} finally {
  await engine.dispose();
}
