// POST /v1/messages, as Anthropic's own client uses it. Texts are those of the engine called directly, or written by the test.
import { Anthropic } from "@anthropic-ai/sdk";
import t, { type Test } from "tap";
import { Engine } from "../lib/index.js";
import { parseApiKeys } from "../lib/server/index.js";
import { eventually } from "./eventually.js";
import { called, type Script, scripted } from "./scripted.js";
import { serving, toolModel } from "./serving.js";

const engine = await Engine.load(toolModel(t), { generate: { maxTokens: 200 } });
t.teardown(() => engine.dispose());
const messages = [{ role: "user" as const, content: "Is it warm in Rome?" }];
const asked = { model: "nano", max_tokens: 60, messages };
const weather = {
  name: "weather",
  description: "How it is in a city",
  input_schema: {
    type: "object" as const,
    properties: { city: { enum: ["Rome", "Oslo"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
    required: ["city", "days"],
    additionalProperties: false,
  },
};
const clientOf = (url: string, apiKey = "none") => new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });

async function scriptedClient(t: Test, scripts: Script[], options: { thinks?: boolean } = {}) {
  const made = await scripted(t, scripts, options);
  const { url, ask } = await serving(t, made.engine);
  return { ...made, ask, client: clientOf(url) };
}

t.test("a conversation, whole and streamed, is answered as the engine answers it", async (t) => {
  const { url } = await serving(t, engine, { apiKeys: parseApiKeys("sk-test") });
  const client = clientOf(url, "sk-test");
  const direct = await engine.generate({ messages, maxTokens: 60 }).result();
  const text = direct.reasoning === undefined ? direct.text : t.fail("the model thinks");
  const stopReason = direct.finishReason === "length" ? "max_tokens" : "end_turn";
  const whole = await client.messages.create(asked);
  t.match(whole, { type: "message", role: "assistant", model: "nano", stop_reason: stopReason, stop_sequence: null });
  t.match(whole.id, /^msg_/);
  t.match(whole._request_id, /^req_/, "the name of the request is where the client looks for it");
  t.same(whole.content, [{ type: "text", text }]);
  const { input_tokens, cache_read_input_tokens } = whole.usage;
  t.equal(input_tokens + (cache_read_input_tokens ?? 0), direct.usage.promptTokens);
  t.equal(whole.usage.output_tokens, direct.usage.completionTokens);

  const events: Anthropic.RawMessageStreamEvent[] = [];
  for await (const event of await client.messages.create({ ...asked, stream: true })) events.push(event);
  const types = events.map(({ type }) => type);
  t.same(
    types.filter((type, i) => type !== types[i - 1]),
    [
      "message_start",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
      "message_stop",
    ],
  );
  t.match(events[0], {
    message: { content: [], usage: { input_tokens: direct.usage.promptTokens, output_tokens: 0 } },
  });
  const gathered = await client.messages.stream(asked).finalMessage();
  t.match(gathered, { stop_reason: stopReason, content: [{ type: "text", text }] });
  t.equal(gathered.usage.output_tokens, direct.usage.completionTokens);
  t.equal(await client.messages.stream(asked).finalText(), text);
});

t.test("options reach the engine", async (t) => {
  const { url, ask } = await serving(t, engine);
  const client = clientOf(url);
  const sampling = { temperature: 0.9, top_p: 0.9, top_k: 1 };
  const direct = await engine.generate({ messages, maxTokens: 60, temperature: 0.9, topP: 0.9, topK: 1 }).result();
  t.match(await client.messages.create({ ...asked, ...sampling }), { content: [{ text: direct.text }] });
  const stop = direct.text.slice(1, 3);
  const cut = await client.messages.create({ ...asked, stop_sequences: ["\u0001", stop] });
  t.match(cut, { stop_reason: "stop_sequence", stop_sequence: stop });
  t.same(cut.content, [{ type: "text", text: direct.text.slice(0, direct.text.indexOf(stop)) }]);
  t.match(await client.messages.create({ ...asked, max_tokens: 1 }), { stop_reason: "max_tokens" });

  const sdar = { usage: true, tokens: true, drafts: true, strategy: "sequential" };
  const own = (await (await ask("/v1/messages", { ...asked, sdar })).json()) as { sdar?: object };
  t.match(own.sdar, { tokens: [{ step: Number, confidence: Number }] });
  const streamed = await (await ask("/v1/messages", { ...asked, stream: true, sdar })).text();
  t.match(streamed, /event: sdar\ndata: \{"type":"sdar","sdar":\{"draft":\{/);
  t.match(streamed, /"sdar":\{"usage":\{"promptTokens"/);
  // Drafts come before the first text, and nothing before the message has begun.
  t.ok(streamed.indexOf("message_start") < streamed.indexOf("event: sdar"));
  const prompt = await engine.countTokens(messages);
  t.match(streamed, new RegExp(`"usage":\\{"input_tokens":${prompt},`));
});

t.test("calls of tools, whole and streamed", async (t) => {
  const { url } = await serving(t, engine);
  const client = clientOf(url);
  const { input_schema: parameters, ...rest } = weather;
  const direct = await engine
    .generate({ messages, tools: [{ ...rest, parameters }], toolChoice: { name: "weather" } })
    .result();
  const input = direct.toolCalls?.[0]?.value;
  const forced = { ...asked, max_tokens: 200, tools: [weather] };
  const choice = { ...forced, tool_choice: { type: "tool" as const, name: "weather" } };
  const whole = await client.messages.create(choice);
  t.match(whole, { stop_reason: "tool_use", content: [{ type: "tool_use", id: /^toolu_/, name: "weather", input }] });
  const stream = client.messages.stream(choice);
  let json = "";
  stream.on("inputJson", (piece) => {
    json += piece;
  });
  t.match(await stream.finalMessage(), { stop_reason: "tool_use", content: [{ name: "weather", input }] });
  t.equal(json, direct.toolCalls?.[0]?.arguments);
  const any = await client.messages.create({
    ...forced,
    tool_choice: { type: "any", disable_parallel_tool_use: true },
  });
  t.match(any.content, [{ type: "tool_use", name: "weather" }]);
  t.equal(any.content.length, 1);
});

t.test("reasoning, text and calls are blocks of their own", async (t) => {
  const pieces = ["hm, ", "so.\n</think>\n\nLet me ", "see.\n", called("weather", { city: "Rome", days: 2 })];
  const { client, ask } = await scriptedClient(t, [{ pieces }], { thinks: true });
  const request = { ...asked, tools: [weather], thinking: { type: "enabled" as const, budget_tokens: 1024 } };
  const blocks = [
    { type: "thinking", thinking: "hm, so.", signature: "" },
    { type: "text", text: "Let me see." },
    { type: "tool_use", name: "weather", input: { city: "Rome", days: 2 } },
  ];
  t.match((await client.messages.create(request)).content, blocks);
  const gathered = await client.messages.stream(request).finalMessage();
  t.match(gathered, { stop_reason: "tool_use", content: blocks });
  const raw = await (await ask("/v1/messages", { ...request, stream: true })).text();
  const indices = [...raw.matchAll(/"content_block_start","index":(\d)/g)].map(([, index]) => Number(index));
  t.same(indices, [0, 1, 2]);
  t.equal(raw.match(/"type":"content_block_stop"/g)?.length, 3);
  t.match(raw, /event: ping\ndata: \{"type":"ping"\}/);
  t.match(raw, /"type":"signature_delta"/);
});

t.test("conversations become the engine's messages", async (t) => {
  const { client, prompts, engine: own } = await scriptedClient(t, [{ pieces: ["Yes."] }]);
  await client.messages.create({
    ...asked,
    system: [
      { type: "text", text: "Be " },
      { type: "text", text: "brief.", cache_control: { type: "ephemeral" } },
    ],
    tools: [weather],
    messages: [
      { role: "user", content: [{ type: "text", text: "Is it warm in Rome?" }] },
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "Look.", signature: "x" },
          { type: "redacted_thinking", data: "x" },
          { type: "text", text: "Let me see." },
          { type: "tool_use", id: "toolu_1", name: "weather", input: { city: "Rome", days: 1 } },
        ],
      },
      {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "toolu_1", content: [{ type: "text", text: "21 degrees" }] },
          { type: "tool_result", tool_use_id: "toolu_2", is_error: true },
          { type: "text", text: "Well?" },
        ],
      },
    ],
  });
  const { input_schema: parameters, ...rest } = weather;
  const tools = [{ ...rest, parameters }];
  const told = [
    { role: "system", content: "Be brief." },
    ...messages,
    {
      role: "assistant",
      content: "Let me see.",
      reasoning: "Look.",
      toolCalls: [{ id: "toolu_1", name: "weather", arguments: '{"city":"Rome","days":1}' }],
    },
    { role: "tool", toolCallId: "toolu_1", content: "21 degrees" },
    { role: "tool", toolCallId: "toolu_2", content: "" },
    { role: "user", content: "Well?" },
  ];
  const text = async (...given: Parameters<Engine["tokenize"]>) => own.detokenize(await own.tokenize(...given));
  t.equal(prompts[0], await text(told, { tools }));
  const begun = [...messages, { role: "assistant" as const, content: "It is" }];
  await client.messages.create({ ...asked, messages: begun });
  t.equal(prompts[1], await text(begun, { continueFinalMessage: true }), "what is begun is gone on with");
  await client.messages.create({ ...asked, thinking: { type: "disabled" } });
  t.equal(prompts[2], await text(messages, { templateOptions: { enable_thinking: false } }));
});

t.test("tokens are counted as a request has them", async (t) => {
  const { url } = await serving(t, engine);
  const client = clientOf(url);
  const { max_tokens, ...prompt } = { ...asked, system: "Be brief.", tools: [weather] };
  const { input_tokens } = await client.messages.countTokens(prompt);
  const { usage } = await client.messages.create({ ...prompt, max_tokens: 4 });
  t.equal(input_tokens, usage.input_tokens + (usage.cache_read_input_tokens ?? 0));
});

t.test("a form that the answer must have", async (t) => {
  const { url } = await serving(t, engine);
  const schema = { type: "object", properties: { warm: { type: "boolean" } }, required: ["warm"] };
  const { content } = await clientOf(url).messages.create({
    ...asked,
    output_config: { format: { type: "json_schema", schema: { ...schema, additionalProperties: false } } },
  });
  const [block] = content;
  t.match(JSON.parse(block?.type === "text" ? block.text : ""), { warm: Boolean });
});

t.test("who hangs up, or fails", async (t) => {
  const { client, native } = await scriptedClient(t, [
    { pieces: ["It is "], ends: "goes on" },
    { pieces: ["It is "], ends: "fails" },
  ]);
  const stream = client.messages.stream(asked);
  stream.on("text", () => stream.abort());
  await t.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
  await eventually(t, () => native.aborted.length, 1);

  const failed = await client.messages.create({ ...asked, stream: true });
  const seen: string[] = [];
  const error = await (async () => {
    for await (const { type } of failed) seen.push(type);
  })().catch((reason: unknown) => reason as InstanceType<typeof Anthropic.APIError>);
  t.ok(seen.includes("content_block_delta"));
  t.match(error?.error, {
    type: "error",
    error: { type: "api_error", message: "the request failed" },
    request_id: /^req_/,
  });
});

t.test("errors have Anthropic's shape, whoever finds them", async (t) => {
  const { url, ask } = await serving(t, engine, { apiKeys: parseApiKeys("sk-test"), bodyLimit: 50_000 });
  const client = clientOf(url, "sk-test");
  await t.rejects(clientOf(url, "sk-none").messages.create(asked), Anthropic.AuthenticationError);
  await t.rejects(client.messages.create({ ...asked, model: "claude" }), Anthropic.NotFoundError);
  const key = { "x-api-key": "sk-test" };
  const refused = async (status: number, type: string, message: RegExp, body: unknown, path = "/v1/messages") => {
    const response = await ask(path, body, key);
    t.equal(response.status, status);
    t.match(await response.json(), { type: "error", error: { type, message }, request_id: /^req_/ });
    t.match(response.headers.get("request-id"), /^req_/);
  };
  const invalid = (message: RegExp, more: object) =>
    refused(400, "invalid_request_error", message, { ...asked, ...more });
  await invalid(/^max_tokens: give a whole number/, { max_tokens: undefined });
  await invalid(/^max_tokens: 0 is not allowed/, { max_tokens: 0 });
  await invalid(/^temperature: -1 is not allowed/, { temperature: -1 });
  await invalid(/^stop_sequences\[0\]: /, { stop_sequences: ["x".repeat(5000)] });
  await invalid(/^messages: give at least one/, { messages: [] });
  const image = { type: "image", source: { type: "base64", media_type: "image/png", data: "" } };
  await invalid(/^messages\[0\]\.content\[0\]\.type: give text/, { messages: [{ role: "user", content: [image] }] });
  const result = { type: "tool_result", tool_use_id: "x", content: [image] };
  await invalid(/^messages\[0\]\.content\[0\]\.content\[0\]\.type: /, {
    messages: [{ role: "user", content: [result] }],
  });
  await invalid(/tool_result is not allowed with role assistant/, {
    messages: [{ role: "assistant", content: [{ type: "tool_result", tool_use_id: "x" }] }],
  });
  const nameless = [
    { type: "bash_20250124", name: "bash" },
    { ...weather, name: "no name" },
  ];
  await invalid(/^tools\[1\]\.name: /, { tools: nameless });
  await invalid(/^tools\[1\]\.input_schema/, {
    tools: [
      nameless[0],
      {
        ...weather,
        strict: true,
        input_schema: { type: "object", properties: { a: { type: "array", uniqueItems: true } } },
      },
    ],
  });
  await invalid(/^tool_choice: there is no function/, { tool_choice: { type: "any" } });
  await invalid(/^messages\[1\]/, {
    system: "x",
    messages: [...messages, { role: "user", content: [{ ...result, content: "", tool_use_id: "x".repeat(300) }] }],
  });
  await refused(400, "invalid_request_error", /not valid JSON/, "{");
  await refused(413, "request_too_large", /./, { ...asked, padding: "x".repeat(50_000) });
  await refused(400, "invalid_request_error", /^messages: /, {}, "/v1/messages/count_tokens");
  const get = await ask("/v1/messages", undefined, key);
  t.equal(get.status, 405);
  t.match(await get.json(), { type: "error", error: { message: /use POST/ } });
});
