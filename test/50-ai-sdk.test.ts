// sdar-engine/ai-sdk under the real AI SDK: texts, objects and calls are those of the engine called directly.
import {
  generateObject,
  generateText,
  type ModelMessage,
  NoObjectGeneratedError,
  Output,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";
import t from "tap";
import { z } from "zod";
import { createSdar, sdar } from "../lib/adapters/ai-sdk.js";
import { Engine } from "../lib/index.js";
import { toolEngine } from "./tool-model.js";

const engine = await Engine.load("sdar-nano");
t.teardown(() => engine.dispose());
const model = sdar(engine);
const prompt = "Count the atoms in Ca3(PO4)2";
const messages = [{ role: "user", content: prompt }];
const maxTokens = 48;

t.test("text, usage, metadata as the engine gives them", async (t) => {
  const direct = await engine.generate({ messages, maxTokens }).result();
  const given = await generateText({ model, prompt, maxOutputTokens: maxTokens });
  t.equal(given.text, direct.text);
  t.equal(given.finishReason, direct.finishReason === "length" ? "length" : "stop");
  t.equal(given.rawFinishReason, direct.finishReason);
  t.equal(given.usage.inputTokens, direct.usage.promptTokens);
  t.equal(given.usage.outputTokens, direct.usage.completionTokens);
  t.same(given.warnings, []);
  const metadata = given.providerMetadata?.sdar as Record<string, unknown>;
  t.equal(metadata.forwards, direct.usage.forwards);
  t.equal(metadata.tokensPerForward, direct.usage.tokensPerForward);
  t.same(
    metadata.tokens,
    direct.tokens.map((token) => ({ ...token })),
  );
  t.match(given.response, { modelId: "sdar-nano", id: /^[0-9a-f-]{36}$/ });
});

t.test("streamed text is the same text", async (t) => {
  const direct = await engine.generate({ messages, maxTokens }).result();
  const stream = streamText({ model, prompt, maxOutputTokens: maxTokens });
  const parts: string[] = [];
  let text = "";
  for await (const part of stream.fullStream) {
    if (part.type === "text-delta") text += part.text;
    if (parts.at(-1) !== part.type) parts.push(part.type);
  }
  t.equal(text, direct.text);
  t.same(parts, ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]);
  t.match(await stream.providerMetadata, { sdar: { forwards: direct.usage.forwards } });
  t.equal((await stream.totalUsage).outputTokens, direct.usage.completionTokens);
});

t.test("settings reach the engine", async (t) => {
  const sampling = { temperature: 0.8, topK: 20, topP: 0.9, presencePenalty: 0.5, frequencyPenalty: 0.25, seed: 7 };
  const system = "Answer briefly.";
  const options = {
    repetitionPenalty: 1.1,
    denoise: { strategy: "low_confidence_static", steps: 2 },
    blockLength: 4,
  } as const;
  const direct = await engine
    .generate({
      messages: [{ role: "system", content: system }, ...messages],
      maxTokens,
      ...sampling,
      ...options,
      stop: "8",
    })
    .result();
  const { denoise, ...others } = options;
  const given = await generateText({
    model: sdar(engine, { blockLength: 8, quality: "fast", repetitionPenalty: 1.1 }),
    system,
    prompt,
    maxOutputTokens: maxTokens,
    ...sampling,
    stopSequences: ["8"],
    providerOptions: { sdar: { ...others, ...denoise } },
  });
  t.equal(given.text, direct.text);
  t.match(given.providerMetadata, { sdar: { forwards: direct.usage.forwards, seed: 7 } });
});

t.test("a conversation with calls, results and reasoning is the engine's", async (t) => {
  const engine = await toolEngine(t);
  const call = { toolCallId: "a1", toolName: "weather" };
  const conversation: ModelMessage[] = [
    { role: "system", content: "Be brief." },
    {
      role: "user",
      content: [
        { type: "text", text: "Weather " },
        { type: "text", text: "in Oslo?" },
      ],
    },
    {
      role: "assistant",
      content: [
        { type: "reasoning", text: "I ask." },
        { type: "text", text: "Asking." },
        { type: "tool-call", ...call, input: { city: "Oslo" } },
      ],
    },
    { role: "tool", content: [{ type: "tool-result", ...call, output: { type: "json", value: { degrees: 3 } } }] },
    { role: "user", content: "And?" },
  ];
  const direct = engine.generate({
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: "Weather in Oslo?" },
      {
        role: "assistant",
        reasoning: "I ask.",
        content: "Asking.",
        toolCalls: [{ id: "a1", name: "weather", arguments: { city: "Oslo" } }],
      },
      { role: "tool", toolCallId: "a1", name: "weather", content: '{"degrees":3}' },
      { role: "user", content: "And?" },
    ],
    maxTokens: 24,
  });
  const { text, usage } = await generateText({
    model: sdar(engine),
    messages: conversation,
    maxOutputTokens: 24,
    allowSystemInMessages: true,
  });
  t.equal(text, await direct.text());
  t.equal(usage.inputTokens, (await direct.result()).usage.promptTokens);
});

const order = z.object({ name: z.string().max(12), qty: z.int().min(1).max(99) });
const ask = "Extract JSON: Chen wants 42 bottles, paying $23.71 for each one.";

t.test("objects have the schema's form", async (t) => {
  const direct = engine.generate({
    messages: [{ role: "user", content: ask }],
    maxTokens,
    format: { type: "json_schema", schema: z.toJSONSchema(order) },
  });
  const { value } = await direct.result();
  const { object, usage } = await generateObject({ model, schema: order, prompt: ask, maxOutputTokens: maxTokens });
  t.same(object, value);
  t.ok((usage.outputTokens ?? 0) > 0);

  const stream = streamObject({ model, schema: order, prompt: ask, maxOutputTokens: maxTokens });
  const partial: unknown[] = [];
  for await (const each of stream.partialObjectStream) partial.push(each);
  t.same(partial.at(-1), value);
  t.same(await stream.object, value);

  const { output } = await generateText({
    model,
    prompt: ask,
    output: Output.object({ schema: order }),
    maxOutputTokens: maxTokens,
  });
  t.same(output, value);
  const any = await generateObject({ model, output: "no-schema", prompt: ask, maxOutputTokens: 40 }).catch(
    (error) => error,
  );
  t.ok(NoObjectGeneratedError.isInstance(any) || any.object !== undefined, "JSON of any form, unless it is cut short");
});

const city = z.object({ city: z.enum(["Oslo", "Rome"]) });
const asked: unknown[] = [];
const weather = tool({
  description: "The weather of a city",
  inputSchema: city,
  execute: async (input) => {
    asked.push(input);
    return { degrees: 21 };
  },
});

t.test("tools are called, and their results answered, over several steps", async (t) => {
  asked.length = 0;
  const engine = await toolEngine(t);
  const model = sdar(engine, { templateOptions: { enable_thinking: false } });
  const templateOptions = { enable_thinking: false };
  const settings = { model, tools: { weather }, maxOutputTokens: 64 } as const;
  const given = await generateText({
    ...settings,
    prompt: "What is the weather in Rome?",
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  });
  t.equal(given.steps.length, 2);
  t.equal(given.steps[0]?.finishReason, "tool-calls");
  const [call] = given.steps[0]?.toolCalls ?? [];
  t.match(call, { toolName: "weather", input: { city: /^(Oslo|Rome)$/ } });
  t.same(asked[0], call?.input);

  const { $schema: _, ...parameters } = z.toJSONSchema(city);
  const tools = [{ name: "weather", description: "The weather of a city", parameters }];
  const first = { role: "user", content: "What is the weather in Rome?" };
  const direct = await engine
    .generate({ messages: [first], tools, toolChoice: "required", maxTokens: 64, templateOptions })
    .result();
  t.same(
    given.steps[0]?.toolCalls.map(({ input }) => input),
    direct.toolCalls?.map(({ value }) => value),
  );
  const results = direct.toolCalls?.map(({ id, name }) => ({
    role: "tool",
    toolCallId: id,
    name,
    content: '{"degrees":21}',
  }));
  const second = engine.generate({
    messages: [
      first,
      { role: "assistant", content: direct.text, toolCalls: direct.toolCalls ?? [] },
      ...(results ?? []),
    ],
    tools,
    toolChoice: "none",
    maxTokens: 64,
    templateOptions,
  });
  t.equal(given.text, await second.text());

  const stream = streamText({ ...settings, prompt: "Weather?", toolChoice: { type: "tool", toolName: "weather" } });
  const parts = [];
  for await (const part of stream.fullStream) parts.push(part);
  const inputs = parts.filter(({ type }) => type.startsWith("tool-"));
  t.same(
    inputs.map(({ type }) => type),
    ["tool-input-start", "tool-input-delta", "tool-input-end", "tool-call", "tool-result"],
  );
  t.equal(await stream.finishReason, "tool-calls");
});

t.test("raw parts are the engine's chunks, drafts among them", async (t) => {
  const providerOptions = { sdar: { drafts: true } };
  const stream = streamText({ model, prompt, maxOutputTokens: 16, providerOptions, includeRawChunks: true });
  const raw = [];
  for await (const part of stream.fullStream) if (part.type === "raw") raw.push(part.rawValue);
  t.ok(raw.some((chunk) => (chunk as { draft?: unknown }).draft));
});

t.test("a path is loaded once, on first use", async (t) => {
  const provider = createSdar({ load: { threads: 1 }, options: { maxTokens: 8 } });
  t.teardown(() => provider.dispose());
  const [a, b] = await Promise.all([1, 2].map(() => generateText({ model: provider("sdar-nano"), prompt })));
  t.equal(a?.text, b?.text);
  t.equal(a?.usage.outputTokens, 8);
  const missing = await generateText({ model: provider("/nowhere"), prompt }).catch((e) => e);
  t.match(missing, { isRetryable: false, data: { code: "MODEL_NOT_FOUND" } });
});
