// sdar-engine/langchain under LangChain's core: texts, objects and calls are those of the engine called directly.
import { AIMessage, type AIMessageChunk, HumanMessage, SystemMessage, ToolMessage } from "@langchain/core/messages";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { tool } from "@langchain/core/tools";
import t from "tap";
import { z } from "zod";
import { ChatSdar } from "../lib/adapters/langchain.js";
import { Engine } from "../lib/index.js";
import { folder, room, sdarTemplate } from "./conversations.js";
import { eventually } from "./eventually.js";
import { fakeEngine } from "./fake-binding.js";
import { toolEngine } from "./tool-model.js";

const engine = await Engine.load("sdar-nano");
t.teardown(() => engine.dispose());
const model = new ChatSdar({ model: engine, maxTokens: 48 });
const prompt = "Count the atoms in Ca3(PO4)2";
const direct = (content: string, more: object = {}) =>
  engine.generate({ messages: [{ role: "user", content }], maxTokens: 48, ...more }).result();

t.test("invoke, batch and stream give the engine's text and counts", async (t) => {
  const wanted = await direct(prompt);
  const message = await model.invoke(prompt);
  t.equal(message.content, wanted.text);
  const { promptTokens, completionTokens, cachedTokens } = wanted.usage;
  t.match(message.usage_metadata, {
    input_tokens: promptTokens,
    output_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  });
  t.type(message.usage_metadata?.input_token_details?.cache_read, typeof cachedTokens);
  t.match(message.response_metadata, {
    model_name: "sdar-nano",
    finish_reason: wanted.finishReason,
    forwards: wanted.usage.forwards,
    tokensPerForward: wanted.usage.tokensPerForward,
    tokens: wanted.tokens.map(({ id, step, confidence }) => ({ id, step, confidence })),
  });

  const several = await model.batch([prompt, "31 x 7"]);
  t.same(
    several.map(({ content }) => content),
    [wanted.text, (await direct("31 x 7")).text],
  );

  let whole: AIMessageChunk | undefined;
  const told: string[] = [];
  const callbacks = [{ handleLLMNewToken: (token: string) => void told.push(token) }];
  for await (const chunk of await model.stream(prompt, { callbacks })) whole = whole?.concat(chunk) ?? chunk;
  t.equal(whole?.content, wanted.text);
  t.equal(told.join(""), wanted.text);
  t.equal(whole?.response_metadata.forwards, wanted.usage.forwards);
  t.equal(whole?.usage_metadata?.output_tokens, completionTokens);
});

t.test("stop strings, and options of the model and of the call", async (t) => {
  const stopped = await direct(prompt, { stop: ["2"] });
  t.equal((await model.invoke(prompt, { stop: ["2"] })).content, stopped.text);
  const sampled = { temperature: 0.9, seed: 3, topK: 40, denoise: { strategy: "low_confidence_static", steps: 2 } };
  const warm = new ChatSdar({ model: engine, temperature: 0.9, maxTokens: 9, options: { seed: 3, quality: "fast" } });
  const options = { maxTokens: 48, topK: 40, strategy: "low_confidence_static", steps: 2 } as const;
  t.equal((await warm.invoke(prompt, { options })).content, (await direct(prompt, sampled)).text);
});

t.test("a chain of a prompt, the model and a parser", async (t) => {
  const chain = ChatPromptTemplate.fromMessages([
    ["system", "Answer briefly."],
    ["human", "{a} x {b}"],
  ])
    .pipe(model)
    .pipe(new StringOutputParser());
  const messages = [
    { role: "system", content: "Answer briefly." },
    { role: "user", content: "31 x 7" },
  ];
  const wanted = await engine.generate({ messages, maxTokens: 48 }).text();
  t.equal(await chain.invoke({ a: 31, b: 7 }), wanted);
  let streamed = "";
  for await (const part of await chain.stream({ a: 31, b: 7 })) streamed += part;
  t.equal(streamed, wanted);
});

const order = z.object({ name: z.string().max(12), qty: z.int().min(1).max(99) });
const ask = "Extract JSON: Chen wants 42 bottles, paying $23.71 for each one.";

t.test("structured output is held to its schema", async (t) => {
  const { $schema: _, ...schema } = z.toJSONSchema(order);
  const { value, text } = await direct(ask, { format: { type: "json_schema", schema } });
  t.same(await model.withStructuredOutput(order).invoke(ask), value);
  t.same(await model.withStructuredOutput(schema).invoke(ask), value);
  const { raw, parsed } = await model.withStructuredOutput(order, { includeRaw: true }).invoke(ask);
  t.same([raw.content, parsed], [text, value]);
  t.throws(() => model.withStructuredOutput(order, { method: "functionCalling" }), {
    code: "INVALID_OPTION",
    option: "method",
  });
  await t.rejects(new ChatSdar({ model: engine, maxTokens: 2 }).withStructuredOutput(order).invoke(ask), {
    code: "INVALID_OPTION",
  });
});

const city = z.object({ city: z.enum(["Oslo", "Rome"]) });

t.test("tools are called, and their results answered", async (t) => {
  const engine = await toolEngine(t);
  const options = { templateOptions: { enable_thinking: false } };
  const model = new ChatSdar({ model: engine, maxTokens: 64, options });
  const weather = tool(async ({ city }) => `21 degrees in ${city}`, {
    name: "weather",
    description: "Weather",
    schema: city,
  });
  const { $schema: _, ...parameters } = z.toJSONSchema(city);
  const named = { name: "weather", description: "Weather", parameters };
  const asked = new HumanMessage("Is it warm in Rome?");
  const request = { ...options, maxTokens: 64, tools: [named] };
  const wanted = await engine
    .generate({ ...request, messages: [{ role: "user", content: asked.text }], toolChoice: "required" })
    .result();

  const called = await model.bindTools([weather], { tool_choice: "any" }).invoke([asked]);
  t.equal(called.response_metadata.finish_reason, "tool_calls");
  const calls = wanted.toolCalls?.map(({ name, value }) => ({ name, args: value }));
  t.match(called.tool_calls, calls);
  const raw = await model
    .bindTools([{ type: "function", function: named }], { tool_choice: "weather" })
    .invoke([asked]);
  t.equal(raw.tool_calls?.length, 1);

  let streamed: AIMessageChunk | undefined;
  for await (const chunk of await model.bindTools([weather], { tool_choice: "any" }).stream([asked]))
    streamed = streamed?.concat(chunk) ?? chunk;
  t.match(streamed?.tool_calls, calls);

  const results = await Promise.all(
    (called.tool_calls ?? []).map(
      async (call) => (await weather.invoke({ ...call, type: "tool_call" })) as ToolMessage,
    ),
  );
  t.ok(results[0] instanceof ToolMessage);
  const answer = await model.bindTools([weather], { tool_choice: "none" }).invoke([asked, called, ...results]);
  const second = engine.generate({
    ...request,
    toolChoice: "none",
    messages: [
      { role: "user", content: asked.text },
      { role: "assistant", content: wanted.text, toolCalls: wanted.toolCalls ?? [] },
      ...results.map(({ tool_call_id, content }) => ({
        role: "tool",
        toolCallId: tool_call_id,
        name: "weather",
        content: content as string,
      })),
    ],
  });
  t.equal(answer.content, await second.text());
});

t.test("reasoning goes out and comes back", async (t) => {
  const { engine, native } = await fakeEngine({ path: folder(t, sdarTemplate), info: room });
  const model = new ChatSdar({ model: engine });
  const given = model.invoke([new SystemMessage("Think."), new HumanMessage([{ type: "text", text: "Why?" }])]);
  await eventually(t, () => native.requests.length, 1);
  native.tokens(1, [...Buffer.from("<think>\nhm\n</think>\n\nSo.")]);
  native.finish(1, "end");
  native.wake();
  const message = await given;
  t.match(message, { content: "So.", additional_kwargs: { reasoning_content: "hm" } });
  const next = model.invoke(["Why?", new AIMessage(message), "And?"]);
  await eventually(t, () => native.requests.length, 2);
  native.finish(2, "end");
  native.wake();
  await next;
});

t.test("aborting, and what is refused", async (t) => {
  const options = { maxTokens: 1500, ignoreEos: true, temperature: 3, strategy: "sequential" } as const;
  const stop = new AbortController();
  const aborted = new Promise((resolve) => engine.once("finished", resolve));
  await t.rejects(async () => {
    for await (const _ of await model.stream(prompt, { options, signal: stop.signal })) stop.abort();
  });
  t.match(await aborted, { finishReason: "abort" });
  await t.rejects(model.invoke(prompt, { signal: AbortSignal.abort() }));

  await t.rejects(model.invoke(prompt, { options: { temperature: -1 } }), {
    code: "INVALID_OPTION",
    option: "temperature",
  });
  await t.rejects(model.invoke(prompt, { options: { tempo: 1 } as never }), {
    code: "INVALID_OPTION",
    option: "tempo",
  });
  await t.rejects(model.invoke([new HumanMessage([{ type: "image_url", image_url: "data:," }])]), {
    code: "INVALID_OPTION",
    option: "messages[0].content[0].type",
  });
  t.throws(() => new ChatSdar({ model: 1 as never }), { code: "INVALID_OPTION", option: "model" });
  await t.rejects(new ChatSdar({ model: "/nowhere" }).invoke(prompt), { code: "MODEL_NOT_FOUND" });
});
