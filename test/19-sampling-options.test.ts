// What each sampling option does, end to end: on the shipped model, which fills blocks, and on its autoregressive parent.
import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../lib/checkpoint.js";
import { Engine, type GenerateOptions, type GenerateResult } from "../lib/index.js";
import type { Token } from "../lib/types.js";

const prompt = "The order of steps is:";
const base = { maxTokens: 48, ignoreEos: true, seed: 11 } as const;

const models = [
  { name: "sdar-nano", options: {} },
  { name: "qwen3-nano", options: {} },
  { name: "qwen3-nano with a draft", options: { draft: join(packageRoot, "models", "sdar-nano") } },
] as const;

const ids = ({ tokens }: GenerateResult) => tokens.map(({ id }) => id);
const logprobs = (token: Token) => new Map(token.topLogprobs?.map(({ id, logprob }) => [id, logprob]));

for (const { name, options } of models) {
  const path = join(packageRoot, "models", name.split(" ")[0] as string);
  t.test(name, async (t) => {
    const engine = await Engine.load(path, options);
    t.teardown(() => engine.dispose());
    const generate = (more: GenerateOptions) => engine.generate({ prompt, ...base, ...more }).result();
    const plain = await generate({});

    t.test("topLogprobs: the most probable ids of each position, and nothing unasked", async (t) => {
      t.ok(plain.tokens.every((token) => !("topLogprobs" in token)));
      const result = await generate({ topLogprobs: 20, temperature: 0.8 });
      const unasked = await generate({ temperature: 0.8 });
      t.same(ids(result), ids(unasked), "asking changes no token");
      for (const token of result.tokens) {
        const top = token.topLogprobs ?? [];
        t.equal(top.length, 20);
        t.ok(top.every(({ logprob }, i) => i === 0 || logprob <= (top[i - 1]?.logprob ?? 0)));
        t.equal(new Set(top.map(({ id }) => id)).size, 20);
        const total = top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
        t.ok(total > 0 && total < 1.001);
        const own = logprobs(token).get(token.id);
        t.ok(own === undefined ? token.logprob <= (top[19]?.logprob ?? 0) + 1e-5 : own === token.logprob);
      }
      const streamed: Token[] = [];
      const run = engine.generate({ prompt, ...base, topLogprobs: 20, temperature: 0.8 });
      for await (const chunk of run) streamed.push(...chunk.tokens);
      t.same(streamed, result.tokens, "streamed as well");
      const { answers = [] } = await generate({ topLogprobs: 2, temperature: 1, n: 2 });
      t.ok(answers.every(({ tokens }) => tokens.every((token) => token.topLogprobs?.length === 2)));
    });

    t.test("suppress: ids that are never chosen", async (t) => {
      const suppress = [...new Set(ids(plain))].slice(0, 5);
      const without = await generate({ suppress });
      t.notOk(ids(without).some((id) => suppress.includes(id)));
      const most = Array.from({ length: engine.model.vocabSize }, (_, id) => id).filter((id) => id % 7 !== 3);
      const few = await generate({ suppress: most, temperature: 1.5 });
      t.ok(ids(few).every((id) => id % 7 === 3));
    });

    t.test("minP: 1 leaves the most probable one, less leaves more", async (t) => {
      // One at a time from the left: temperature changes the confidence, and by it the order.
      const order: GenerateOptions =
        engine.model.decoding === "autoregressive" ? {} : { denoise: { strategy: "sequential", steps: 64 } };
      const [greedy, sure, any] = await Promise.all([
        generate(order),
        generate({ ...order, temperature: 3, minP: 1 }),
        generate({ ...order, temperature: 3, minP: 0 }),
      ]);
      t.same(ids(sure), ids(greedy));
      t.not(String(ids(any)), String(ids(greedy)));
    });

    t.test("penalties: a repeated token becomes less likely, a rewarded one more", async (t) => {
      const distinct = (result: GenerateResult) => new Set(ids(result)).size;
      const penalised = await generate({ frequencyPenalty: 2, presencePenalty: 2 });
      t.ok(distinct(penalised) > distinct(plain), `${distinct(penalised)} distinct tokens, not ${distinct(plain)}`);
      const repeating = await generate({ frequencyPenalty: -2, presencePenalty: -2 });
      t.ok(distinct(repeating) < distinct(penalised));
      t.ok(distinct(await generate({ repetitionPenalty: 5 })) > distinct(plain));
      const batch = await Promise.all([
        generate({ repetitionPenalty: 1.4, temperature: 0.9 }),
        generate({ presencePenalty: 1, temperature: 0.7 }),
        generate({ frequencyPenalty: 0.6 }),
      ]);
      t.same(
        (await generate({ presencePenalty: 1, temperature: 0.7 })).tokens,
        batch[1]?.tokens,
        "the same bits alone",
      );
    });
  });
}
