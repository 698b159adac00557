import t from "tap";
import { loadBinding } from "../lib/binding.js";
import { Engine, type GenerateRequest, type GenerateResult, type LoadOptions, type Quality } from "../lib/index.js";
import { strategies } from "../lib/quality.js";
import { goldenModel } from "./golden.js";
import { samples } from "./samples.js";

/** 33 requests that differ in everything that may differ inside a batch. */
function mixed(vocabSize: number): GenerateRequest[] {
  let state = 12345;
  const random = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  return Array.from({ length: 33 }, (_, i) => ({
    tokens: Array.from({ length: 1 + random(70) }, () => random(vocabSize)),
    maxTokens: 24 + random(24),
    blockLength: [4, 8, 3, 16, 1, 7, 32][i % 7],
    denoise: {
      strategy: strategies[i % strategies.length],
      steps: 1 + random(4),
      threshold: 0.5,
      factor: 1 + (i % 4),
      confidence: i % 3 ? "model" : "sampled",
    },
    temperature: i % 3 === 0 ? 0 : 0.3 + i / 20,
    topK: i % 5 === 0 ? 20 : 0,
    topP: i % 4 === 0 ? 0.9 : 1,
    minP: i % 7 === 0 ? 0.02 : 0,
    ...(i % 5 === 1 ? { repetitionPenalty: 1.2, presencePenalty: 0.3, frequencyPenalty: -0.2 } : {}),
    ...(i % 8 === 3 ? { topLogprobs: 5, suppress: [3, 9, i] } : {}),
    seed: i,
    ignoreEos: true,
    ...(i % 6 === 0 ? { logitBias: { [i]: 2, 5: -3 } } : {}),
  }));
}

const outcome = ({ tokens, finishReason, text }: GenerateResult) => JSON.stringify({ tokens, finishReason, text });

async function withEngine<T>(name: string, options: LoadOptions, use: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await Engine.load(goldenModel(name), { prefillTokens: 512, ...options });
  try {
    return await use(engine);
  } finally {
    await engine.dispose();
  }
}

const sets = loadBinding().instructionSets();
const subjects = [
  ...sets.map((isa) => ({ name: "tiny-dense", isa, weights: "f32" as const })),
  // In plain loops it takes minutes.
  ...sets
    .filter((isa) => isa !== "portable" || process.env.SDAR_TEST_FULL)
    .map((isa) => ({ name: "sdar-nano", isa, weights: "bf16" as const })),
  { name: "tiny-moe", isa: sets[0] as string, weights: "f32" as const },
];

for (const { name, isa, weights } of subjects) {
  t.test(`alone or among 32 others: ${name}, ${weights}, ${isa}`, async (t) => {
    const options = { isa, weights };
    const alone = await withEngine(name, { ...options, threads: 1 }, async (engine) => {
      const results: string[] = [];
      for (const request of mixed(engine.model.vocabSize))
        results.push(outcome(await engine.generate(request).result()));
      t.equal(engine.stats().maxSequences, 1, "one sequence a step");
      return results;
    });
    for (const threads of [1, 2, 3]) {
      await withEngine(name, { ...options, threads }, async (engine) => {
        const runs = mixed(engine.model.vocabSize).map((request) => engine.generate(request).result());
        const together = (await Promise.all(runs)).map(outcome);
        t.same(
          together.map((text, i) => (text === alone[i] ? "" : i)).filter((i) => i !== ""),
          [],
          `${threads} threads`,
        );
        const { steps, sequences, maxSequences } = engine.stats();
        t.ok(maxSequences >= 16, `the largest step carried ${maxSequences} sequences`);
        // How many more depends on how fast requests are submitted while the first run.
        t.ok(sequences / steps >= 4, `${(sequences / steps).toFixed(1)} on average`);
      });
    }
  });
}

t.test("every quality in one batch gives what it gives alone", async (t) => {
  await withEngine("shipped", { threads: 2 }, async (engine) => {
    const qualities: (Quality | undefined)[] = ["exact", "balanced", "fast", undefined];
    const requests = samples()
      .slice(0, 40)
      .map(
        ({ prompt }, i): GenerateRequest => ({
          messages: [{ role: "user", content: prompt }],
          quality: qualities[i % 4],
          maxTokens: 256,
        }),
      );
    const alone: GenerateResult[] = [];
    for (const request of requests) alone.push(await engine.generate(request).result());
    t.equal(engine.stats().maxSequences, 1);
    const together = await Promise.all(requests.map((request) => engine.generate(request).result()));
    t.ok(engine.stats().maxSequences > 8);
    t.same(together.map(outcome), alone.map(outcome));
    const forwards = (request: GenerateRequest) =>
      engine
        .generate(request)
        .result()
        .then(({ usage }) => usage.forwards);
    const sort = { messages: [{ role: "user", content: "Sort: 67 35 68 70 36" }] };
    const [exact, balanced, fast] = await Promise.all([
      forwards({ ...sort, quality: "exact" }),
      forwards({ ...sort, quality: "balanced" }),
      forwards({ ...sort, quality: "fast" }),
    ]);
    t.ok(exact > balanced && balanced >= fast, `${exact} > ${balanced} >= ${fast} forwards`);
  });
});

t.test("a seed decides what is sampled", async (t) => {
  await withEngine("tiny-dense", { weights: "f32" }, async (engine) => {
    const sample = async (seed?: number | bigint) => {
      const request = { tokens: [1, 2, 3], maxTokens: 40, temperature: 1, ignoreEos: true, seed };
      const result = await engine.generate(request).result();
      return { seed: result.seed, ids: result.tokens.map(({ id }) => id).join() };
    };
    const drawn = await sample();
    t.same(await sample(drawn.seed), drawn, "the reported seed reproduces the result");
    t.not((await sample(1)).ids, (await sample(2)).ids);
    t.not((await sample(1n << 63n)).ids, (await sample(0)).ids, "all 64 bits count");
  });
});
