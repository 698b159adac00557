// Tools held to their schemas, and formats after reasoning: with SDAR's published chat template, on a model that knows neither.
import { copyFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import t, { type Test } from "tap";
import { shippedModelPath } from "../lib/checkpoint.js";
import { Engine, type GenerateRequest, type Tool } from "../lib/index.js";
import { asked, now, sdarTemplate, thinkingTemplate } from "./conversations.js";

const full = process.env.SDAR_TEST_FULL === "1";
const ajv = new Ajv2020({ strict: false });
const weather = {
  name: "weather",
  parameters: {
    type: "object",
    properties: {
      city: { type: "string", maxLength: 10 },
      days: { type: "integer", minimum: 1, maximum: 9 },
      unit: { enum: ["C", "F"] },
    },
    required: ["city", "days"],
    additionalProperties: false,
  },
};
const tools: Tool[] = [weather, now];
const judges = new Map([
  ["weather", ajv.compile(weather.parameters)],
  ["now", ajv.compile({ type: "object" })],
]);
const messages = [asked];
const request = { messages, tools, maxTokens: 150, templateOptions: { enable_thinking: false } };
const regex = { type: "regex", pattern: "[a-z]{3}[0-9]" } as const;

/** The shipped model with another chat template. */
async function load(t: Test, template: string): Promise<Engine> {
  const folder = t.testdir({});
  for (const name of readdirSync(shippedModelPath())) copyFileSync(join(shippedModelPath(), name), join(folder, name));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: template }));
  const engine = await Engine.load(folder);
  t.teardown(() => engine.dispose());
  return engine;
}

t.test("calls are valid by the schemas of their tools", async (t) => {
  const engine = await load(t, sdarTemplate);
  const generate = (more: Partial<GenerateRequest>) =>
    engine.generate({ ...request, ...more } as GenerateRequest).result();
  for (const temperature of [0, 1, 2])
    for (const seed of full ? [1, 2, 3, 4, 5] : [1]) {
      const sampled = { temperature, seed };
      const required = await generate({ ...sampled, toolChoice: "required" });
      t.ok(required.toolCalls && required.toolCalls.length > 0, required.text);
      t.equal(required.text, "");
      for (const { name, value } of required.toolCalls ?? []) t.ok(judges.get(name)?.(value), JSON.stringify(value));

      const single = await generate({ ...sampled, toolChoice: "required", parallelToolCalls: false });
      t.equal(single.toolCalls?.length, 1);
      const named = await generate({ ...sampled, toolChoice: { name: "weather" } });
      t.same(
        named.toolCalls?.map(({ name }) => name),
        ["weather"],
      );
      t.ok(judges.get("weather")?.(named.toolCalls?.[0]?.value), JSON.stringify(named.toolCalls));

      const none = await generate({ ...sampled, toolChoice: "none", maxTokens: 40 });
      t.notOk(none.toolCalls);
      t.notMatch(none.text, "<tool_call>");
      const auto = await generate({ ...sampled, toolChoice: "auto", maxTokens: 60 });
      for (const { name, value } of auto.toolCalls ?? []) t.ok(judges.get(name)?.(value), JSON.stringify(value));

      const either = await generate({ ...sampled, toolChoice: "auto", format: regex });
      if (either.toolCalls) t.notOk("value" in either);
      else t.match(either.value, /^[a-z]{3}[0-9]$/);
    }
});

t.test("a tool whose schema is not enforced is refused by its place", async (t) => {
  const engine = await load(t, sdarTemplate);
  const strange = { name: "f", parameters: { type: "object", properties: { a: { uniqueItems: true } } } };
  await t.rejects(engine.generate({ messages, tools: [now, strange], toolChoice: "required" }).result(), {
    code: "INVALID_OPTION",
    message: /tools\[1\]\.parameters#\/properties\/a\/uniqueItems/,
  });
  await t.rejects(engine.generate({ messages, tools, toolChoice: "required", maxTokens: 5 }).result(), {
    code: "INVALID_OPTION",
    option: "maxTokens",
    message: /tools need at least \d+ tokens/,
  });
});

t.test("a format after reasoning", async (t) => {
  for (const [template, opened] of [
    [thinkingTemplate, true],
    [sdarTemplate, false],
  ] as const) {
    const engine = await load(t, template);
    for (const temperature of [0, 1, 2]) {
      const options = { messages, temperature, seed: 5, maxTokens: 60, templateOptions: { enable_thinking: true } };
      const result = await engine.generate({ ...options, format: regex }).result();
      t.match(result.value, /^[a-z]{3}[0-9]$/, `${opened}: ${result.text}`);
      t.equal(result.text.trim(), result.value);
      t.notMatch(result.reasoning ?? "", "</think>");
      const { choices } = await engine
        .generate({ ...options, format: { type: "choice", choices: ["a", "b"] } })
        .result();
      t.equal(choices === undefined, opened, "what comes before a choice must be known");
    }
  }
});
