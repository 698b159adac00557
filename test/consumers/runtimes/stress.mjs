// Many requests at once, of which some hang up, beside a second engine; then everything ends by itself.
import assert from "node:assert/strict";
import { Engine } from "sdar-engine";

const engine = await Engine.load("sdar-nano", { maxConcurrent: 16, queue: { maxRequests: 64 } });
const other = await Engine.load("sdar-nano", { weights: "int8" });
const numbers = Array.from({ length: 200 }, (_, i) => i);
const counts = { answered: 0, left: 0 };

await Promise.all(
  numbers.map(async (i) => {
    const content = `Sort: ${[97, i % 90, 98].join(" ")}`;
    const run = (i % 5 === 0 ? other : engine).generate({
      messages: [{ role: "user", content }],
      whenFull: "wait",
      key: `tenant ${i % 3}`,
    });
    for await (const part of run.textStream) {
      if (i % 4 === 1 && part !== "") break;
    }
    counts[(await run.result()).finishReason === "abort" ? "left" : "answered"]++;
  }),
);
assert.equal(counts.answered + counts.left, 200);
assert.ok(counts.answered >= 150, `${counts.answered} were answered`);
let mapped = 0;
for await (const { result } of engine.map(numbers, (i) => ({ prompt: `${i}`, maxTokens: 4 }))) mapped += result ? 1 : 0;
assert.equal(mapped, 200);
await Promise.all([engine.dispose(), other.dispose()]);
