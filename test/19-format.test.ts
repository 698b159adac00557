// Answers of a given form, end to end: on the shipped model, which fills blocks, and on its autoregressive parent.
import { join } from "node:path";
import t from "tap";
import { z } from "zod";
import { packageRoot } from "../lib/checkpoint.js";
import { Engine, type Format, type GenerateOptions, type Token } from "../lib/index.js";

const prompt = "Extract JSON: Chen from Cairo wants 42 orange bottles, paying $23.71 for each one.";
const base = { prompt, maxTokens: 80, seed: 3, temperature: 1 } as const;
const person = z.object({
  name: z.string().max(12),
  qty: z.int().min(0).max(99),
  tags: z.array(z.enum(["a", "b"])).max(3),
});
const schema = {
  type: "object",
  properties: { a: { type: "string", maxLength: 6 }, b: { type: "array", items: { type: "integer" }, maxItems: 3 } },
  required: ["a", "b"],
  additionalProperties: false,
} as const;

const models = [
  { name: "sdar-nano", options: {} },
  { name: "qwen3-nano", options: {} },
  { name: "qwen3-nano with a draft", options: { draft: join(packageRoot, "models", "sdar-nano") } },
] as const;

/** Each kind of format, with what its texts look like. */
const formats: Record<string, [Format, RegExp]> = {
  zod: [person, /^\{"name": ".*", "qty": \d\d?, "tags": \[.*\]\}$/],
  none: [{ type: "json_schema", schema, whitespace: "none" }, /^\{"a":".*","b":\[(-?\d+(,-?\d+)*)?\]\}$/],
  space: [{ type: "json_schema", schema, whitespace: "space" }, /^\{"a": ".*", "b": \[(-?\d+(, -?\d+)*)?\]\}$/],
  some: [
    { type: "json_schema", schema, whitespace: "some" },
    /^\{\s*"a"\s*:\s*".*"\s*,\s*"b"\s*:\s*\[[-\d,\s]*\]\s*\}$/,
  ],
  json: [{ type: "json" }, /^["[{\dtfn-]/],
  regex: [{ type: "regex", pattern: /(\d{3}-){2}[a-e]{1,4}|no/u }, /^((\d{3}-){2}[a-e]{1,4}|no)$/],
  choice: [{ type: "choice", choices: ["Cairo", "Chen", "Zürich", "Cairo"] }, /^(Cairo|Chen|Zürich)$/],
  grammar: [{ type: "grammar", grammar: 'root ::= "(" root ")" | [x-z]+' }, /^\(*[xyz]+\)*$/],
};

for (const { name, options } of models) {
  t.test(name, async (t) => {
    const engine = await Engine.load(join(packageRoot, "models", name.split(" ")[0] as string), options);
    t.teardown(() => engine.dispose());
    const blocks = engine.model.decoding === "block_diffusion";
    const generate = <Value>(format: Format<Value>, more: GenerateOptions = {}) =>
      engine.generate({ ...base, ...more, format }).result();

    t.test("each kind of format: the text is of it, and value is what it says", async (t) => {
      const alone = [];
      for (const [what, [format, pattern]] of Object.entries(formats)) {
        const result = await generate(format);
        t.match(result.text, pattern, what);
        t.match(result.finishReason, /^(end|length)$/);
        t.ok(result.tokens.length <= base.maxTokens);
        const json = !["regex", "choice", "grammar"].includes(what);
        t.same(result.value, json ? JSON.parse(result.text) : result.text);
        t.notOk("valueError" in result);
        alone.push(result);
      }
      const together = await Promise.all(Object.values(formats).map(([format]) => generate(format)));
      t.same(
        together.map(({ text, tokens }) => ({ text, tokens })),
        alone.map(({ text, tokens }) => ({ text, tokens })),
        "the same tokens among others",
      );
    });

    t.test("streamed, in drafts, and with n", async (t) => {
      const run = engine.generate({ ...base, n: 3, format: person, ...(blocks && { drafts: true }) });
      const texts = ["", "", ""];
      const tokens: Token[][] = [[], [], []];
      let drafts = 0;
      for await (const chunk of run) {
        texts[chunk.answer] += chunk.text;
        tokens[chunk.answer]?.push(...chunk.tokens);
        drafts += chunk.draft ? 1 : 0;
      }
      const { answers = [], value } = await run.result();
      t.same(
        texts,
        answers.map(({ text }) => text),
      );
      t.same(
        tokens,
        answers.map((answer) => answer.tokens),
      );
      t.ok(answers.every((answer) => person.safeParse(answer.value).success));
      t.same(value, answers[0]?.value);
      t.equal(drafts > 0, blocks);
      const again = await generate(person);
      t.same(again.tokens, answers[0]?.tokens, "drafts and other completions change nothing");
      if (!blocks) return;
      for (const strategy of ["sequential", "entropy_bounded", "pairwise_factor", "low_confidence_static"] as const)
        for (const blockLength of [4, 16]) {
          const { text } = await generate(person, { blockLength, denoise: { strategy } });
          t.ok(person.safeParse(JSON.parse(text)).success, `${strategy}, ${blockLength}`);
        }
    });

    t.test("the prefix cache changes nothing", async (t) => {
      const long = { prompt: `${prompt} `.repeat(3), maxTokens: 40 };
      const first = await engine.generate({ ...base, ...long, format: person }).result();
      const second = await engine.generate({ ...base, ...long, format: person }).result();
      t.ok(second.usage.cachedTokens > 0);
      t.same(second.tokens, first.tokens);
    });

    t.test("what zod makes of the text, and what it refuses", async (t) => {
      const dated = z.object({ day: z.iso.date().transform((text) => new Date(text)), left: z.int().default(7) });
      const { value, text } = await generate(dated);
      t.ok(value?.day instanceof Date && typeof value.left === "number", text);
      const day: Date | undefined = value?.day;
      // @ts-expect-error: its output, not its input
      const input: string | undefined = value?.day;
      t.equal(day, input);
      const refused: [z.ZodType, RegExp][] = [
        [person.refine(() => false, "never"), /never/],
        [person.refine(async () => true), /Promise/],
        [
          person.transform(() => {
            throw new Error("broken");
          }),
          /broken/,
        ],
        [
          person.transform(() => {
            throw "a string";
          }),
          /a string/,
        ],
      ];
      for (const [format, message] of refused) {
        const result = await generate(format);
        t.notOk("value" in result);
        t.ok(result.valueError instanceof Error);
        t.match(result.valueError?.message, message);
        t.ok(person.safeParse(JSON.parse(result.text)).success, "the text is there all the same");
      }
    });

    t.test("a text that was cut short has no value", async (t) => {
      const stopped = await generate(person, { stop: '", "qty' });
      t.match(stopped, { finishReason: "stop", text: /^\{"name": "[^"]*$/ });
      t.notOk("value" in stopped || "valueError" in stopped);
      const run = engine.generate({ ...base, format: { type: "regex", pattern: "[a-z]{70,}" } });
      for await (const { text } of run) if (text !== "") run.abort();
      const aborted = await run.result();
      t.equal(aborted.finishReason, "abort");
      t.notOk("value" in aborted);
    });

    t.test("budgets: from the least on", async (t) => {
      const needs = (await generate(person, { maxTokens: 1 }).catch((e) => e)) as { message: string };
      const least = Number(/needs at least (\d+) tokens/.exec(needs.message)?.[1]);
      t.ok(least > 5);
      for (const maxTokens of [least, least + 1, least + 5]) {
        const result = await generate(person, { maxTokens });
        t.ok(person.safeParse(result.value).success, result.text);
        t.ok(result.tokens.length <= maxTokens);
      }
      await t.rejects(generate(person, { maxTokens: least - 1 }), { code: "INVALID_OPTION", option: "maxTokens" });
    });

    t.test("choices: how probable each is", async (t) => {
      const choices = ["Cairo", "Chen", "Zürich", "Cairo"];
      const result = await generate({ type: "choice", choices });
      t.same(
        result.choices?.map(({ text }) => text),
        ["Cairo", "Chen", "Zürich"],
      );
      const sum = result.choices?.reduce((total, { probability }) => total + probability, 0) as number;
      t.ok(Math.abs(sum - 1) < 1e-9);
      for (const { text, logprob } of result.choices ?? []) {
        const score = await engine.score({ prompt, completion: text, endToken: true });
        t.ok(Math.abs(score.logprob - logprob) < 1e-4);
      }
      t.notOk("choices" in (await generate({ type: "choice", choices, probabilities: false })));
      t.notOk(
        "choices" in (await generate({ type: "choice", choices: Array.from({ length: 65 }, (_, i) => `c${i}`) })),
      );
    });

    t.test("scores are what each token had when it was written", async (t) => {
      const sequential: GenerateOptions = blocks ? { denoise: { strategy: "sequential", steps: 64 } } : {};
      const written = await engine.generate({ prompt, maxTokens: 20, ignoreEos: true, ...sequential }).result();
      const completion = written.tokens.map(({ id }) => id);
      const scored = await engine.score({ prompt, completion });
      t.same(
        scored.tokens.map(({ id }) => id),
        completion,
      );
      for (const [i, { logprob }] of scored.tokens.entries())
        t.ok(Math.abs(logprob - (written.tokens[i]?.logprob as number)) < 1e-3, `${i}: ${logprob}`);
      const sum = scored.tokens.reduce((total, { logprob }) => total + logprob, 0);
      t.ok(Math.abs(scored.logprob - sum) < 1e-9);
      t.equal(scored.usage.completionTokens, completion.length);
      const ended = await engine.score({ prompt, completion: "Chen", endToken: true });
      t.ok(engine.model.endTokenIds.includes(ended.tokens.at(-1)?.id as number));
      const refused: [object, { code: string; option?: string }][] = [
        [{ completion: "" }, { code: "INVALID_OPTION", option: "completion" }],
        [{}, { code: "INVALID_OPTION", option: "completion" }],
        [{ completion: [1_000_000] }, { code: "TOKEN_OUT_OF_RANGE" }],
        [
          { completion: "a", endToken: 1 },
          { code: "INVALID_OPTION", option: "endToken" },
        ],
        [
          { completion: "a", temperature: 1 },
          { code: "INVALID_OPTION", option: "temperature" },
        ],
        [{ completion: "a", signal: AbortSignal.abort() }, { code: "ABORTED" }],
        [{ completion: "a b ".repeat(1200) }, { code: "INVALID_OPTION", option: "completion" }],
      ];
      for (const [more, error] of refused) await t.rejects(engine.score({ prompt, ...more } as never), error);
    });
  });
}
