import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../lib/checkpoint.js";
import { Engine } from "../lib/index.js";
import type { GenerateRequest } from "../lib/types.js";

const parent = join(packageRoot, "models", "qwen3-nano");

t.test("the parent writes a token a forward, and streams what it writes", async (t) => {
  const engine = await Engine.load(parent, { weights: "f32" });
  t.match(engine.model, { decoding: "autoregressive", modelType: "qwen3", blockLength: 1, maskTokenId: -1 });
  const request: GenerateRequest = { messages: [{ role: "user", content: "ISO date: Jun 15 1972" }], maxTokens: 32 };
  const run = engine.generate(request);
  let text = "";
  for await (const chunk of run) text += chunk.text;
  const result = await run.result();
  t.equal(text, "1972-06-15");
  t.equal(result.text, text);
  t.equal(result.finishReason, "end");
  t.equal(result.usage.forwards, result.usage.completionTokens);
  t.equal(result.usage.tokensPerForward, 1);
  t.same(
    result.tokens.map(({ position }) => position),
    result.tokens.map((_, i) => result.usage.promptTokens + i),
  );

  const stopped = await engine.generate({ ...request, stop: "-06" }).result();
  t.match(stopped, { text: "1972", finishReason: "stop", stopMatched: "-06" });
  const sampled: GenerateRequest = { ...request, temperature: 2, seed: 5, n: 3, ignoreEos: true, minTokens: 20 };
  const [one, other] = await Promise.all([engine.generate(sampled).result(), engine.generate(sampled).result()]);
  t.same(
    one.answers?.map((a) => a.tokens),
    other.answers?.map((a) => a.tokens),
    "the same seed gives the same tokens",
  );
  const texts = one.answers?.map(({ text }) => text);
  t.ok(new Set(texts).size > 1, "completions differ");
  await engine.dispose();
});

t.test("options of blocks are refused by name", async (t) => {
  const engine = await Engine.load(parent);
  const options: Partial<GenerateRequest>[] = [
    { blockLength: 4 },
    { denoise: { steps: 2 } },
    { quality: "fast" },
    { drafts: true },
  ];
  for (const option of options) {
    const [name] = Object.keys(option);
    await t.rejects(engine.generate({ tokens: [1], ...option } as GenerateRequest).result(), {
      code: "INVALID_OPTION",
      option: name,
      message: /autoregressive/,
    });
  }
  await engine.generate({ tokens: [1], drafts: false, maxTokens: 1 }).result();
  await engine.dispose();

  const blocks = await Engine.load("sdar-nano");
  t.equal(blocks.model.decoding, "block_diffusion");
  await blocks.dispose();
});
