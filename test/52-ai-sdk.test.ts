// The AI SDK's providers for both protocols, and requests as coding agents send them.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, type LanguageModel, stepCountIs, streamText, tool } from "ai";
import t from "tap";
import { z } from "zod";
import { Engine } from "../lib/index.js";
import { called, scripted } from "./scripted.js";
import { serving, toolModel } from "./serving.js";

const engine = await Engine.load(toolModel(t), { generate: { maxTokens: 60 } });
t.teardown(() => engine.dispose());
const prompt = "Is it warm in Rome?";
const messages = [{ role: "user", content: prompt }];

const providers: [name: string, model: (url: string) => LanguageModel][] = [
  ["openai", (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" })("nano")],
  ["anthropic", (url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: "none" })("nano")],
];

for (const [name, modelOf] of providers) {
  t.test(`${name}: texts, objects and tools`, async (t) => {
    const { url } = await serving(t, engine);
    const asked = { model: modelOf(url), prompt, maxOutputTokens: 60, maxRetries: 0 };
    const direct = await engine.generate({ messages, maxTokens: 60 }).result();
    const { text, usage } = await generateText(asked);
    t.equal(text, direct.text);
    t.match(usage, { inputTokens: direct.usage.promptTokens, outputTokens: direct.usage.completionTokens });
    const streamed = streamText(asked);
    let pieces = "";
    for await (const piece of streamed.textStream) pieces += piece;
    t.equal(pieces, direct.text);
    t.match(await streamed.usage, { outputTokens: direct.usage.completionTokens });
    const { object } = await generateObject({ ...asked, schema: z.object({ warm: z.boolean() }) });
    t.match(object, { warm: Boolean });

    const own = await scripted(t, [
      { pieces: ["Let me see.\n", called("weather", { city: "Rome" })] },
      { pieces: ["21 degrees."] },
    ]);
    const { url: scriptedUrl } = await serving(t, own.engine);
    const weather = tool({
      description: "How it is in a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `${city}: 21 degrees`,
    });
    const result = await generateText({
      ...asked,
      model: modelOf(scriptedUrl),
      tools: { weather },
      stopWhen: stepCountIs(3),
      providerOptions: { openai: { store: false } },
    });
    t.equal(result.text, "21 degrees.");
    t.match(own.prompts[1], /Rome: 21 degrees/);
    t.match(own.prompts[1], /Let me see\./, "what was said before the call is still there");
  });
}

/** As they come with agents: of several types, with what nobody enforces. */
const schema = {
  $schema: "http://json-schema.org/draft-07/schema#",
  type: "object",
  properties: {
    files: { type: "array", uniqueItems: true, items: { type: "string", format: "path" } },
    mode: { type: "string", enum: ["read", "write"], default: "read" },
  },
  required: ["files"],
  additionalProperties: false,
};
const names = Array.from({ length: 40 }, (_, i) => `mcp__server__tool_${i}`);
const description = "Does a thing in a folder. ".repeat(4);
const system = "You are a coding agent. Follow the rules. ".repeat(20);

t.test("requests as agents send them are answered", async (t) => {
  const { engine: own } = await scripted(t, [{ pieces: ["Done."] }]);
  const { ask } = await serving(t, own, { bodyLimit: 2 ** 20 });
  const anthropic = {
    model: "nano",
    max_tokens: 32_000,
    system: [
      { type: "text", text: "You are an agent." },
      { type: "text", text: system, cache_control: { type: "ephemeral", ttl: "1h" } },
    ],
    messages: [{ role: "user", content: [{ type: "text", text: prompt, cache_control: { type: "ephemeral" } }] }],
    tools: [
      ...names.map((name) => ({ name, description, input_schema: schema })),
      { type: "web_search_20250305", name: "web_search", max_uses: 5 },
      { type: "bash_20250124", name: "bash" },
    ],
    tool_choice: { type: "auto" },
    thinking: { type: "adaptive" },
    metadata: { user_id: "x" },
    context_management: { edits: [] },
    service_tier: "auto",
    unknown_to_us: { deep: [1, { x: null }] },
  };
  const whole = await ask("/v1/messages?beta=true", anthropic, {
    "anthropic-beta": "x",
    "anthropic-version": "2023-06-01",
  });
  t.match(await whole.json(), { content: [{ type: "text", text: "Done." }], stop_reason: "end_turn" });
  const { max_tokens, ...counted } = anthropic;
  t.match(await (await ask("/v1/messages/count_tokens?beta=true", counted)).json(), { input_tokens: Number });

  const openai = {
    model: "nano",
    instructions: system,
    input: [
      { type: "message", role: "developer", content: [{ type: "input_text", text: "Be brief." }] },
      { type: "message", role: "user", content: [{ type: "input_text", text: prompt }] },
    ],
    tools: [
      ...names.map((name) => ({ type: "function", name, description, strict: false, parameters: schema })),
      { type: "custom", name: "apply_patch", format: { type: "grammar", syntax: "lark", definition: "x" } },
      { type: "web_search", external_web_access: false },
      { type: "local_shell" },
    ],
    tool_choice: "auto",
    parallel_tool_calls: false,
    reasoning: { effort: "medium", summary: "auto" },
    include: ["reasoning.encrypted_content"],
    store: false,
    stream: true,
    prompt_cache_key: "abc",
    text: { verbosity: "low" },
    client_metadata: { x: "y" },
  };
  const stream = await (await ask("/v1/responses", openai)).text();
  t.match(stream, /event: response\.completed\n/);
  t.match(stream, /"delta":"Done\."/);
});
