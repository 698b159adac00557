// POST /v1/responses, as OpenAI's own client uses it. Texts are those of the engine called directly, or written by the test.
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import t, { type Test } from "tap";
import { z } from "zod";
import { Engine } from "../lib/index.js";
import { eventually } from "./eventually.js";
import { called, type Script, scripted } from "./scripted.js";
import { serving, toolModel } from "./serving.js";

const engine = await Engine.load(toolModel(t), { generate: { maxTokens: 200 } });
t.teardown(() => engine.dispose());
const input = "Is it warm in Rome?";
const messages = [{ role: "user", content: input }];
const asked = { model: "nano", max_output_tokens: 60, input };
const parameters = {
  type: "object",
  properties: { city: { enum: ["Rome", "Oslo"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["city", "days"],
  additionalProperties: false,
};
const weather = { type: "function" as const, name: "weather", parameters, strict: true };
const clientOf = (url: string) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });

async function scriptedClient(t: Test, scripts: Script[], options: { thinks?: boolean } = {}) {
  const made = await scripted(t, scripts, options);
  const { url } = await serving(t, made.engine);
  return { ...made, client: clientOf(url) };
}

type Event = OpenAI.Responses.ResponseStreamEvent;

async function eventsOf(stream: AsyncIterable<Event>): Promise<Event[]> {
  const events: Event[] = [];
  for await (const event of stream) events.push(event);
  return events;
}

/** Types, without repetitions. */
const types = (events: readonly Event[]) =>
  events.map(({ type }) => type.replace("response.", "")).filter((type, i, all) => type !== all[i - 1]);

t.test("a conversation, whole and streamed, is answered as the engine answers it", async (t) => {
  const { url } = await serving(t, engine);
  const client = clientOf(url);
  const { text, usage, finishReason } = await engine.generate({ messages, maxTokens: 60 }).result();
  const status = finishReason === "length" ? "incomplete" : "completed";
  const whole = await client.responses.create({ ...asked, metadata: { a: "b" } });
  t.match(whole, { id: /^resp_/, object: "response", status, model: "nano", error: null, metadata: { a: "b" } });
  t.equal(whole.output_text, text);
  t.match(whole.usage, {
    input_tokens: usage.promptTokens,
    output_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    output_tokens_details: { reasoning_tokens: 0 },
  });
  const events = await eventsOf(await client.responses.create({ ...asked, stream: true }));
  t.same(
    events.map(({ sequence_number }) => sequence_number),
    events.map((_, i) => i),
  );
  t.same(types(events), [
    "created",
    "in_progress",
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
    status,
  ]);
  const gathered = await client.responses.stream(asked).finalResponse();
  t.equal(gathered.output_text, text);
  t.match(gathered.usage, { output_tokens: usage.completionTokens });
  const cut = await client.responses.create({ ...asked, max_output_tokens: 1 });
  t.match(cut, { status: "incomplete", incomplete_details: { reason: "max_output_tokens" } });
});

t.test("options reach the engine", async (t) => {
  const { url, ask } = await serving(t, engine);
  const client = clientOf(url);
  const options = { temperature: 0.9, topP: 0.9, topLogprobs: 2, seed: 3 };
  const direct = await engine.generate({ messages, maxTokens: 20, ...options }).result();
  const body = {
    ...asked,
    max_output_tokens: 20,
    temperature: 0.9,
    top_p: 0.9,
    top_logprobs: 2,
    seed: 3,
    include: ["message.output_text.logprobs" as const],
  };
  const { output, output_text } = await client.responses.create(body);
  t.equal(output_text, direct.text);
  const told = direct.tokens.filter(({ id }) => !engine.model.endTokenIds.includes(id));
  const [message] = output as OpenAI.Responses.ResponseOutputMessage[];
  const [part] = (message?.content ?? []) as OpenAI.Responses.ResponseOutputText[];
  t.same(
    part?.logprobs?.map(({ logprob, top_logprobs }) => [logprob, top_logprobs.length]),
    told.map(({ logprob, topLogprobs }) => [logprob, topLogprobs?.length]),
  );
  const own = await ask("/v1/responses", { ...asked, sdar: { usage: true, tokens: true, strategy: "sequential" } });
  t.match(await own.json(), { sdar: { tokens: [{ step: Number, confidence: Number }] } });
});

t.test("calls of functions, whole and streamed", async (t) => {
  const { url } = await serving(t, engine);
  const client = clientOf(url);
  const tools = [{ name: "weather", parameters, strict: true }];
  const direct = await engine.generate({ messages, tools, toolChoice: { name: "weather" } }).result();
  const args = direct.toolCalls?.[0]?.arguments;
  const body = {
    ...asked,
    max_output_tokens: 200,
    tools: [{ type: "web_search" as const }, weather],
    tool_choice: { type: "function" as const, name: "weather" },
  };
  const { output } = await client.responses.create(body);
  t.match(output, [{ type: "function_call", id: /^fc_/, call_id: /^call_/, name: "weather", arguments: args }]);
  const events = await eventsOf(await client.responses.create({ ...body, stream: true }));
  t.same(types(events), [
    "created",
    "in_progress",
    "output_item.added",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_item.done",
    "completed",
  ]);
  t.match((await client.responses.stream(body).finalResponse()).output, [{ type: "function_call", arguments: args }]);
  const allowed = {
    type: "allowed_tools" as const,
    mode: "required" as const,
    tools: [{ type: "function", name: "weather" }],
  };
  const other = { ...weather, name: "other" };
  const among = await client.responses.create({ ...body, tools: [other, weather], tool_choice: allowed });
  t.ok(among.output.every((item) => item.type === "function_call" && item.name === "weather"));
});

t.test("reasoning, text and calls are items of their own", async (t) => {
  const pieces = ["hm, ", "so.\n</think>\n\nLet me ", "see.\n", called("weather", { city: "Rome", days: 2 })];
  const { client } = await scriptedClient(t, [{ pieces }], { thinks: true });
  const body = { ...asked, tools: [weather] };
  const items = [
    { type: "reasoning", id: /^rs_/, summary: [], content: [{ type: "reasoning_text", text: "hm, so." }] },
    { type: "message", content: [{ type: "output_text", text: "Let me see." }] },
    { type: "function_call", name: "weather", arguments: '{"city":"Rome","days":2}' },
  ];
  const whole = await client.responses.create(body);
  t.match(whole.output, items);
  t.equal(whole.usage?.output_tokens_details.reasoning_tokens, "hm, so.\n</think>".length, "one a byte, with its mark");
  const events = await eventsOf(await client.responses.create({ ...body, stream: true }));
  const last = events.at(-1);
  t.match(last, { type: "response.completed", response: { output: items } });
  const done = events.flatMap((event) => (event.type === "response.output_item.done" ? [event.item] : []));
  t.same(last?.type === "response.completed" && last.response.output, done);
  const summed = await client.responses.create({ ...body, reasoning: { summary: "auto" } });
  t.match(summed.output[0], { summary: [{ type: "summary_text", text: "hm, so." }] });
});

t.test("items become the engine's messages", async (t) => {
  const { client, prompts, engine: own } = await scriptedClient(t, [{ pieces: ["Yes."] }]);
  await client.responses.create({
    ...asked,
    instructions: "Be brief.",
    input: [
      { role: "developer", content: "In English." },
      { type: "message", role: "user", content: [{ type: "input_text", text: input }] },
      { type: "reasoning", id: "rs_1", summary: [] },
      { role: "assistant", content: "Let me see." },
      { type: "function_call", call_id: "call_1", name: "weather", arguments: '{"city":"Rome"}' },
      { type: "function_call", call_id: "call_2", name: "weather", arguments: "" },
      { type: "function_call_output", call_id: "call_1", output: "21 degrees" },
      { type: "function_call_output", call_id: "call_2", output: [{ type: "input_text", text: "none" }] },
    ],
  });
  const told = [
    { role: "system", content: "Be brief." },
    { role: "system", content: "In English." },
    ...messages,
    {
      role: "assistant",
      content: "Let me see.",
      toolCalls: [
        { id: "call_1", name: "weather", arguments: '{"city":"Rome"}' },
        { id: "call_2", name: "weather", arguments: "{}" },
      ],
    },
    { role: "tool", toolCallId: "call_1", content: "21 degrees" },
    { role: "tool", toolCallId: "call_2", content: "none" },
  ];
  t.equal(prompts[0], own.detokenize(await own.tokenize(told)));
});

t.test("a form that the answer must have", async (t) => {
  const { url } = await serving(t, engine);
  const client = clientOf(url);
  const format = zodTextFormat(z.object({ warm: z.boolean() }), "answer");
  const { output_parsed } = await client.responses.parse({ ...asked, text: { format } });
  t.match(output_parsed, { warm: Boolean });
  const schema = { type: "object", properties: { a: { type: "array", uniqueItems: true } } };
  const bad = client.responses.create({ ...asked, text: { format: { type: "json_schema", name: "x", schema } } });
  t.match(await bad.catch((error: unknown) => error), { status: 400, param: /^text\.format\.schema/ });
});

t.test("who hangs up, or fails", async (t) => {
  const { client, native } = await scriptedClient(t, [
    { pieces: ["It is "], ends: "goes on" },
    { pieces: ["It is "], ends: "fails" },
  ]);
  const stream = await client.responses.create({ ...asked, stream: true });
  for await (const { type } of stream) if (type === "response.output_text.delta") break;
  await eventually(t, () => native.aborted.length, 1);
  const events = await eventsOf(await client.responses.create({ ...asked, stream: true }));
  t.match(events.at(-1), {
    type: "response.failed",
    sequence_number: events.length - 1,
    response: { status: "failed", error: { code: "internal_error", message: "the request failed" } },
  });
});

t.test("what is refused names the field", async (t) => {
  const { url } = await serving(t, engine);
  const client = clientOf(url);
  const refused = async (param: string, more: object) => {
    const answer = client.responses.create({ ...asked, ...more } as never);
    t.match(await answer.catch((error: unknown) => error), { status: 400, param }, param);
  };
  await refused("previous_response_id", { previous_response_id: "resp_1" });
  await refused("conversation", { conversation: "conv_1" });
  await refused("background", { background: true });
  await refused("input", { input: [] });
  await refused("input[0].type", { input: [{ type: "computer_call" }] });
  await refused("input[0].type", { input: [{ type: "item_reference", id: "msg_1" }] });
  await refused("input[0].content[0].type", { input: [{ role: "user", content: [{ type: "input_image" }] }] });
  await refused("max_output_tokens", { max_output_tokens: 0 });
  await refused("top_logprobs", { top_logprobs: 2 });
  await refused("tool_choice", { tools: [{ type: "web_search" }], tool_choice: "required" });
  await refused("tools[1].name", { tools: [{ type: "web_search" }, { type: "function", name: "no name" }] });
  await refused("sdar", { sdar: { treshold: 1 } });
});
