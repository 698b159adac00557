// Values that are generated, judged by ajv: random schemas, patterns and choices in mixed batches, from the least budget up.
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import t from "tap";
import { Random } from "../lib/bench/random.js";
import { Engine, type Format, type GenerateOptions, type GenerateResult, SdarError } from "../lib/index.js";
import { strategies } from "../lib/quality.js";
import { pattern, rootSchema } from "./schemas.js";

const full = process.env.SDAR_TEST_FULL === "1";
const ajv = new Ajv2020({ strict: false, multipleOfPrecision: 6, logger: false });
formats.default(ajv);

interface Case {
  format: Format;
  valid(result: GenerateResult): boolean;
}

function randomCase(random: Random): Case {
  const kind = random.next();
  if (kind < 0.7) {
    const schema = rootSchema(random);
    const whitespace = random.of(["none", "space", "some"] as const);
    const judge = ajv.compile(schema);
    return { format: { type: "json_schema", schema, whitespace }, valid: ({ value }) => Boolean(judge(value)) };
  }
  if (kind < 0.85) {
    const source = pattern(random);
    const whole = new RegExp(`^(?:${source})$`, "u");
    return { format: { type: "regex", pattern: source }, valid: ({ value }) => whole.test(value as string) };
  }
  const choices = random.times(random.whole(1, 5), () => random.of(["yes", "no", "maybe", "none", "nobody", "中"]));
  return {
    format: { type: "choice", choices, probabilities: false },
    valid: ({ value }) => choices.includes(value as string),
  };
}

function options(random: Random): GenerateOptions {
  return {
    temperature: random.of([0, 0.7, 1, 2]),
    seed: random.whole(0, 1e6),
    blockLength: random.of([4, 5, 8, 16, 32]),
    denoise: {
      strategy: random.of(strategies),
    },
    ...(random.maybe(0.2) && { topK: 5 }),
    ...(random.maybe(0.2) && { topP: 0.8 }),
    ...(random.maybe(0.1) && { repetitionPenalty: 1.3 }),
  };
}

t.test("what is generated is valid", async (t) => {
  const engine = await Engine.load("sdar-nano", { kvCache: { tokens: 512 }, maxConcurrent: 64 });
  t.teardown(() => engine.dispose());
  const counts = { valid: 0, refused: 0, ended: 0, preempted: 0 };
  engine.on("preempted", () => counts.preempted++);
  const random = new Random(7);
  const count = full ? 10_000 : 150;

  async function one(): Promise<void> {
    const { format, valid } = randomCase(random);
    const tokens = random.times(random.of([3, 55, 62, 120]), () => random.whole(0, 500));
    const shared = { tokens, ...options(random), format };
    const spare = random.of([0, 1, 2, 5, 20, 90]);
    const needs = await engine
      .generate({ ...shared, maxTokens: 1 })
      .result()
      .catch((error) => error);
    const least = needs instanceof SdarError ? Number(/needs at least (\d+) tokens/.exec(needs.message)?.[1]) : 1;
    if (Number.isNaN(least)) {
      // What cannot be told apart, or fitted, is refused by the place in the schema.
      t.match(needs, { code: "INVALID_OPTION", message: /^format/ });
      counts.refused++;
      return;
    }
    const result = await engine.generate({ ...shared, maxTokens: least + spare }).result();
    const right = valid(result) && result.tokens.length <= least + spare;
    if (right) counts.valid++;
    else t.fail(`${JSON.stringify(shared)}: ${JSON.stringify(result.text)}, ${ajv.errorsText()}`);
    counts.ended += result.finishReason === "end" ? 1 : 0;
  }
  let left = count;
  await Promise.all(
    random.times(64, async () => {
      while (left-- > 0) await one();
    }),
  );
  t.comment(JSON.stringify({ ...counts, ...engine.stats().pages, preemptions: engine.stats().preemptions }));
  t.equal(counts.valid + counts.refused, count);
  t.ok(counts.refused < count / 4, `${counts.refused} refused`);
  t.ok(counts.ended > count / 4 && counts.ended < counts.valid);
  // Who is preempted when depends on the machine.
  if (full) t.ok(counts.preempted > 0);
});
