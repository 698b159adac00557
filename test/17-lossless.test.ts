import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { packageRoot, shippedModelPath } from "../lib/checkpoint.js";
import { Engine } from "../lib/index.js";
import type { GenerateRequest, GenerateResult, LoadOptions } from "../lib/types.js";
import { samples } from "./samples.js";

const full = process.env.SDAR_TEST_FULL === "1";
const parent = join(packageRoot, "models", "qwen3-nano");
const formats = full ? (["f32", "bf16", "int8", "int4"] as const) : (["bf16"] as const);

const requestOf = (prompt: string): GenerateRequest => ({
  messages: [{ role: "user", content: prompt }],
  maxTokens: 96,
});
const requests = samples()
  .filter((_, i) => full || i % 25 === 0)
  .map(({ prompt }) => requestOf(prompt));

async function inTurns(engine: Engine): Promise<GenerateResult[]> {
  const results: GenerateResult[] = [];
  for (const request of requests) results.push(await engine.generate(request).result());
  return results;
}
const together = (engine: Engine) => Promise.all(requests.map((request) => engine.generate(request).result()));

async function withEngine<T>(options: LoadOptions, work: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await Engine.load(parent, options);
  try {
    return await work(engine);
  } finally {
    await engine.dispose();
  }
}

for (const weights of formats) {
  t.test(`held-out prompts give the parent's tokens in ${weights}`, async (t) => {
    const expected = await withEngine({ weights }, together);
    const draft = { path: "sdar-nano", weights };
    for (const way of [inTurns, together]) {
      const results = await withEngine({ weights, draft }, way);
      let tokens = 0;
      let forwards = 0;
      const wrong = results.filter(({ tokens, text, finishReason }, i) => {
        const own = expected[i] as GenerateResult;
        return (
          JSON.stringify([tokens, text, finishReason]) !== JSON.stringify([own.tokens, own.text, own.finishReason])
        );
      });
      t.equal(wrong.length, 0, `all ${results.length} ${way === inTurns ? "alone" : "in a batch"}`);
      for (const { usage } of results) {
        const { draftForwards = 0, verifyForwards = 0, drafted = 0, accepted = -1 } = usage;
        if (usage.forwards !== draftForwards + verifyForwards) t.fail("forwards are those of both models");
        if (accepted < 0 || accepted > drafted) t.fail("usage tells what was drafted and accepted");
        tokens += usage.completionTokens;
        forwards += usage.forwards;
      }
      t.ok(tokens / forwards >= 3, `${(tokens / forwards).toFixed(2)} tokens per forward`);
    }
  });
}

t.test("what is not a draft for it is refused by name", async (t) => {
  await t.rejects(Engine.load(parent, { draft: parent }), { code: "INVALID_OPTION", message: /qwen3-nano.*sdar/ });
  await t.rejects(Engine.load("sdar-nano", { draft: "sdar-nano" }), {
    code: "INVALID_OPTION",
    message: /autoregressive/,
  });
  await t.rejects(Engine.load(parent, { draft: "/nowhere" }), { code: "MODEL_NOT_FOUND" });
  await t.rejects(Engine.load(parent, { draft: { path: "sdar-nano", blockLength: 1 } }), {
    code: "INVALID_OPTION",
    message: /blockLength/,
  });

  const folder = mkdtempSync(join(tmpdir(), "sdar-draft-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  cpSync(shippedModelPath(), folder, { recursive: true });
  const file = join(folder, "tokenizer.json");
  const tokenizer = JSON.parse(readFileSync(file, "utf8"));
  const { vocab } = tokenizer.model;
  [vocab.a, vocab.b] = [vocab.b, vocab.a];
  writeFileSync(file, JSON.stringify(tokenizer));
  await t.rejects(Engine.load(parent, { draft: folder }), {
    code: "INVALID_OPTION",
    option: "draft",
    message: /token \d+ is "[ab]", the target's is "[ab]"/,
  });
});

t.test("completions of one prompt add up, and a model without a draft says nothing of it", async (t) => {
  const sampled = { ...requestOf("514 + 9497"), temperature: 1, seed: 3, n: 3 };
  const [plain, lossless] = await Promise.all([
    withEngine({}, (engine) => engine.generate(sampled).result()),
    withEngine({ draft: "sdar-nano" }, (engine) => {
      t.equal(engine.model.draft, shippedModelPath());
      return engine.generate(sampled).result();
    }),
  ]);
  const tokens = ({ answers }: GenerateResult) => answers?.map((answer) => answer.tokens);
  t.same(tokens(lossless), tokens(plain));
  const sum = lossless.answers?.reduce((all, { usage }) => all + (usage.accepted ?? 0), 0);
  t.equal(lossless.usage.accepted, sum);
  t.notOk("drafted" in plain.usage);
});
