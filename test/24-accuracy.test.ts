import t from "tap";
import { Engine } from "../lib/index.js";
import { samples } from "./samples.js";

/** Percent of the held-out samples that are answered exactly, greedily, all in one batch. */
async function accuracy(weights: "f32" | "bf16"): Promise<number> {
  const engine = await Engine.load("sdar-nano", { weights });
  const right = await Promise.all(
    samples().map(async ({ prompt, answer }) => {
      const messages = [{ role: "user", content: prompt }];
      const { text } = await engine.generate({ messages, maxTokens: 96 }).result();
      return text === answer;
    }),
  );
  await engine.dispose();
  return (100 * right.filter(Boolean).length) / right.length;
}

t.test("the shipped model answers the held-out samples as when it was made, in bf16 too", async (t) => {
  const [full, half] = [await accuracy("f32"), await accuracy("bf16")];
  t.comment(`f32 ${full} %, bf16 ${half} %`);
  t.ok(Math.abs(full - 98.5) <= 0.3, `f32: ${full} %, the portable kernels have 98.5 %`);
  t.ok(Math.abs(half - full) <= 1, `bf16: ${half} %, f32: ${full} %`);
});
