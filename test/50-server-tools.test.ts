// Tools, reasoning, and requests as coding agents send them, on the shipped model with a template that has tools.
import OpenAI from "openai";
import t from "tap";
import { Engine, type GenerateRequest, type ToolCall } from "../lib/index.js";
import { withoutKeyword } from "../lib/server/loose-tools.js";
import { eventsOf, serving, toolModel } from "./serving.js";

const engine = await Engine.load(toolModel(t), { generate: { maxTokens: 200 } });
t.teardown(() => engine.dispose());
const messages = [{ role: "user" as const, content: "Is it warm in Rome?" }];
/** Whatever the model, calls of it come to their end. */
const weather = {
  type: "function" as const,
  function: {
    name: "weather",
    description: "How it is in a city",
    parameters: {
      type: "object",
      properties: { city: { enum: ["Rome", "Oslo"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
      required: ["city", "days"],
      additionalProperties: false,
    },
  },
};
const plain = (calls: readonly ToolCall[] = []) =>
  calls.map(({ name, arguments: args }) => ({ name, arguments: args }));

t.test("calls of tools, whole and streamed", async (t) => {
  const { url } = await serving(t, engine);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const tool_choice = { type: "function" as const, function: { name: "weather" } };
  const asked = { model: "nano", messages, tools: [weather], tool_choice };
  const direct = await engine.generate({ messages, tools: [weather], toolChoice: tool_choice }).result();
  const whole = await client.chat.completions.create(asked);
  t.match(whole.choices[0], { finish_reason: "tool_calls", message: { content: null } });
  const calls = whole.choices[0]?.message.tool_calls ?? [];
  t.same(
    calls.map((call) => call.type === "function" && call.function),
    plain(direct.toolCalls),
  );
  t.match(calls[0]?.id, /^call_/);

  const chunks: OpenAI.ChatCompletionChunk[] = [];
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) chunks.push(chunk);
  const deltas = chunks.flatMap(({ choices: [choice] }) => choice?.delta.tool_calls ?? []);
  t.match(deltas[0], { index: 0, id: /^call_/, type: "function", function: { name: "weather", arguments: "" } });
  t.equal(deltas.map((delta) => delta.function?.arguments ?? "").join(""), direct.toolCalls?.[0]?.arguments);
  t.ok(deltas.slice(1).every((delta) => delta.index === 0 && delta.id === undefined));
  t.equal(chunks.at(-1)?.choices[0]?.finish_reason, "tool_calls");

  // The client's own gathering of a stream comes to the same.
  const gathered = await client.chat.completions.stream(asked).finalChatCompletion();
  t.same(
    gathered.choices[0]?.message.tool_calls?.map(({ function: made }) => made.arguments),
    plain(direct.toolCalls).map(({ arguments: args }) => args),
  );
});

t.test("results of tools go back as messages", async (t) => {
  const { ask } = await serving(t, engine);
  const call = { id: "call_1", type: "function", function: { name: "weather", arguments: '{"city": "Rome"}' } };
  const after = [
    { role: "developer", content: [{ type: "text", text: "Be brief." }] },
    ...messages,
    { role: "assistant", content: null, tool_calls: [call], refusal: null, audio: null },
    { role: "tool", tool_call_id: "call_1", content: [{ type: "text", text: "21 degrees" }] },
  ];
  const response = await ask("/v1/chat/completions", { messages: after, tools: [weather], tool_choice: "none" });
  const { choices } = (await response.json()) as OpenAI.ChatCompletion;
  const direct = engine.generate({
    messages: [
      { role: "system", content: "Be brief." },
      ...messages,
      { role: "assistant", content: "", toolCalls: [{ id: "call_1", name: "weather", arguments: '{"city": "Rome"}' }] },
      { role: "tool", toolCallId: "call_1", content: "21 degrees" },
    ],
    tools: [weather],
    toolChoice: "none",
  });
  t.equal(choices[0]?.message.content, await direct.text());
});

t.test("the template's variables, and reasoning", async (t) => {
  const { ask } = await serving(t, engine);
  const answer = async (more: object) => {
    const response = await ask("/v1/chat/completions", { messages, max_tokens: 40, ...more });
    return ((await response.json()) as OpenAI.ChatCompletion).choices[0]?.message ?? {};
  };
  const direct = async (enable_thinking: boolean) => {
    const templateOptions = { enable_thinking };
    const { text, reasoning } = await engine.generate({ messages, maxTokens: 40, templateOptions }).result();
    return { content: text, ...(reasoning !== undefined && { reasoning_content: reasoning }) };
  };
  t.match(await answer({ chat_template_kwargs: { enable_thinking: true } }), await direct(true));
  t.match(await answer({ chat_template_kwargs: { enable_thinking: false } }), await direct(false));
  t.match(await answer({ reasoning_effort: "none" }), await direct(false));
  t.match(await answer({ reasoning_effort: "low" }), await direct(true));
  const refused = await ask("/v1/chat/completions", { messages, chat_template_kwargs: { tools: [] } });
  t.match(await refused.json(), { error: { param: "chat_template_kwargs.tools" } });
});

/** As they come with agents: of several types, with what nobody enforces, and names that only some servers know. */
const agentTools = [
  ...Array.from({ length: 40 }, (_, i) => ({
    type: "function",
    function: {
      name: `mcp__server__tool_${i}`,
      description: `Does thing ${i}. `.repeat(20),
      parameters: {
        $schema: "http://json-schema.org/draft-07/schema#",
        type: "object",
        properties: {
          path: { type: "string", description: "Absolute path" },
          limit: { type: "integer", minimum: 0, default: 10 },
          mode: { type: "string", enum: ["read", "write"] },
          edits: { type: "array", items: { type: "object", properties: { line: { type: "number" } } } },
        },
        required: ["path"],
        additionalProperties: false,
      },
    },
  })),
  {
    type: "function",
    function: {
      name: "pick",
      strict: null,
      parameters: {
        type: "object",
        properties: {
          files: { type: "array", uniqueItems: true, items: { type: "string", format: "path" } },
          size: { type: "number", exclusiveMinimum: true, minimum: 0 },
          "a/b": { type: "string", nullable: true },
        },
      },
    },
  },
  { type: "function", function: { name: "nothing" } },
  { type: "custom", custom: { name: "apply_patch", format: { type: "text" } } },
  { type: "web_search" },
];

t.test("requests as agents send them are answered", async (t) => {
  const { ask } = await serving(t, engine);
  const agent = {
    model: "nano",
    messages: [{ role: "system", content: [{ type: "text", text: "You are a coding agent." }] }, ...messages],
    tools: agentTools.slice(-4),
    tool_choice: "auto",
    parallel_tool_calls: true,
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: 32_000,
    store: false,
    metadata: { session: "x" },
    user: "someone",
    service_tier: "auto",
    prompt_cache_key: "abc",
    safety_identifier: "s",
    verbosity: "low",
    reasoning_effort: null,
    response_format: { type: "text" },
    logit_bias: {},
    stop: null,
    unknown_to_us: { deep: [1, 2, { x: null }] },
  };
  const response = await ask("/v1/chat/completions", agent);
  const events = eventsOf(await response.text());
  t.equal(response.status, 200, events[0] ?? "");
  t.equal(events.at(-1), "[DONE]");
  t.match(JSON.parse(events.at(-2) as string), { choices: { length: 0 }, usage: { total_tokens: Number } });

  // More than this model's context holds: which is what they are told, and nothing else.
  const full = await ask("/v1/chat/completions", { ...agent, tools: agentTools });
  t.equal(full.status, 400);
  t.match(await full.json(), { error: { code: "context_length_exceeded" } });
});

t.test("what is not enforced is left out of tools that are not strict, and refused in others", async (t) => {
  const { ask } = await serving(t, engine);
  const parameters = { type: "object", properties: { a: { type: "array", uniqueItems: true } } };
  const status = async (strict: boolean | undefined) => {
    const tools = [{ type: "function", function: { name: "f", parameters, ...(strict !== undefined && { strict }) } }];
    const response = await ask("/v1/chat/completions", { messages, tools, max_tokens: 60 });
    return { status: response.status, body: (await response.json()) as { error?: object } };
  };
  t.equal((await status(undefined)).status, 200);
  t.equal((await status(false)).status, 200);
  const refused = await status(true);
  t.equal(refused.status, 400);
  t.match(refused.body, { error: { param: "tools[0].parameters", message: /uniqueItems: this keyword/ } });

  const request: GenerateRequest = { messages, tools: [{ name: "f", parameters }] };
  const run = engine.generate(request);
  const error = await run.started.catch((reason: unknown) => reason);
  const loose = withoutKeyword(request, error);
  t.same(loose?.tools, [{ name: "f", parameters: { type: "object", properties: { a: { type: "array" } } } }]);
  t.equal(parameters.properties.a.uniqueItems, true, "what the client sent is as it was");
  t.equal(withoutKeyword(request, new Error("tools[0].parameters#/properties: x")), undefined);
});
