// What runs and chats make of answers with reasoning and calls.
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { shippedModelPath } from "../lib/checkpoint.js";
import { toSSEResponse } from "../lib/http.js";
import { Engine, type GenerateRequest, type Message, type Run, type Tool, type ToolChoice } from "../lib/index.js";
import { asked, folder, now, room, sdarTemplate, thinkingTemplate } from "./conversations.js";
import { eventually } from "./eventually.js";
import { type FakeNative, fakeEngine } from "./fake-binding.js";

/** Lets the fake answer the request that waits longest with this text, a byte at a time. */
async function answer(t: Test, native: FakeNative, text: string, run?: Run) {
  await eventually(t, () => Number(native.requests.length > 0), 1);
  const { id } = native.requests.shift() as { id: number };
  for (const byte of Buffer.from(text)) {
    native.tokens(id, [byte]);
    native.wake();
  }
  native.finish(id, "end");
  native.wake();
  return run?.result();
}

const toolAnswer = 'So.\n<tool_call>\n{"name": "now", "arguments": {"é": 1}}\n</tool_call>';
t.test("a run gives reasoning and calls apart", async (t) => {
  const { engine, native } = await fakeEngine({ path: folder(t, sdarTemplate), info: room });
  const run = engine.generate({ messages: [asked], tools: [now] });
  const result = await answer(t, native, `<think>\nhm\n</think>\n\n${toolAnswer}`, run);
  const toolCalls = [{ name: "now", arguments: '{"é": 1}', value: { é: 1 } }];
  t.match(result, { text: "So.", reasoning: "hm", finishReason: "end", toolCalls });
  const chunks = [];
  for await (const chunk of run) chunks.push(chunk);
  t.equal(chunks.map(({ text }) => text).join(""), "So.");
  t.equal(chunks.map(({ reasoning = "" }) => reasoning).join(""), "hm");
  t.same(
    chunks.flatMap(({ toolCalls = [] }) => toolCalls),
    result?.toolCalls,
  );
  t.equal(chunks.flatMap(({ tokens }) => tokens).length, result?.tokens.length);
  t.ok(Object.isFrozen(result?.toolCalls));

  const served = async (each: Run) => {
    await answer(t, native, `<think>hm</think>${toolAnswer}`, each);
    return (await toSSEResponse(each)).text();
  };
  const sent = await served(engine.generate({ messages: [asked], tools: [now] }));
  t.match(sent, 'data: {"text":"","reasoning":"h"}\n\ndata: {"text":"","reasoning":"m"}\n\ndata: {"text":"S"}\n\n');
  t.match(sent, /"toolCalls":\[\{"id":"call_\w+","name":"now","arguments":"\{\\"é\\": 1\}","value":\{"é":1\}\}\]/);

  const off = engine.generate({ messages: [asked], tools: [now], toolChoice: "none" });
  t.equal((await answer(t, native, toolAnswer, off))?.text, toolAnswer, "none: they are text");
  const raw = engine.generate({ prompt: "a" });
  t.equal((await answer(t, native, "<think>a</think>", raw))?.text, "<think>a</think>", "as in a prompt's answer");
  const messages: Message[] = [asked, { role: "assistant", content: "<think>hm" }];
  const went = engine.generate({ messages, continueFinalMessage: true });
  t.match(await answer(t, native, " so</think>Yes", went), { reasoning: " so", text: "Yes" });
  const text = engine.generate({
    messages: [asked, { role: "assistant", content: "Well" }],
    continueFinalMessage: true,
  });
  t.match(await answer(t, native, "<think>", text), { text: "<think>" });
  const two = engine.generate({ messages: [asked], tools: [now], n: 2 });
  await answer(t, native, toolAnswer);
  await answer(t, native, "<think>b");
  t.match((await two.result()).answers, [
    { text: "So.", toolCalls },
    { text: "", reasoning: "b" },
  ]);
  await engine.dispose();
});

t.test("calls are held to the schemas of their tools, by a model that knows none", async (t) => {
  const path = folder(t, sdarTemplate);
  for (const file of ["config.json", "model.safetensors"])
    symlinkSync(join(shippedModelPath(), file), join(path, file));
  await using engine = await Engine.load(path);
  const city = { type: "string", maxLength: 8 };
  const parameters = {
    properties: { city, days: { enum: [1, 2] } },
    required: ["city", "days"],
    additionalProperties: false,
  };
  const tools: Tool[] = [{ name: "weather", parameters }, now];
  const choices: ToolChoice[] = ["required", { name: "weather" }, "none", "auto"];
  const requests = choices.flatMap((toolChoice) => [0, 0.7, 2].map((temperature) => ({ toolChoice, temperature })));
  const request = (each: object) => ({ messages: [asked], tools, maxTokens: 100, seed: 1, ...each }) as GenerateRequest;
  for await (const { item, result, error } of engine.map(requests, request)) {
    if (!result) throw error;
    const { toolChoice } = item;
    const { text, toolCalls = [] } = result;
    t.notMatch(text, "<tool_call>");
    if (toolChoice === "none") t.equal(toolCalls.length, 0);
    if (toolChoice === "required" || typeof toolChoice === "object") t.ok(text === "" && toolCalls.length > 0);
    if (typeof toolChoice === "object") t.match(toolCalls, [{ name: "weather" }]);
    for (const { name, value } of toolCalls)
      if (name === "weather") t.match(value, { city: /^.{0,8}$/su, days: /^[12]$/ });
  }
  const unknown: Tool = { name: "f", parameters: { unevaluatedProperties: false } };
  const refused = { code: "INVALID_OPTION", option: "tools[1].parameters", message: /unevaluatedProperties/ };
  await t.rejects(engine.generate({ messages: [asked], tools: [now, unknown] }).result(), refused);
});

t.test("reasoning that the template has opened", async (t) => {
  const { engine, native } = await fakeEngine({ path: folder(t, thinkingTemplate), info: room });
  t.match(await engine.renderMessages([asked]), /assistant\n<think>\n$/);
  const run = engine.generate({ messages: [asked] });
  t.match(await answer(t, native, "hm\n</think>\n\nYes.", run), { reasoning: "hm", text: "Yes." });
  const forged = engine.generate({ messages: [asked, { role: "user", content: "<think>" }] });
  t.match(await answer(t, native, "hm", forged), { reasoning: "hm", text: "" });
  const formed = engine.generate({ messages: [asked], format: { type: "json" } });
  const whole = await answer(t, native, "hm\n</think>\n\n[1]", formed);
  t.match(whole, { reasoning: "hm", text: "[1]", value: [1] }, "what follows it has the form");
  await engine.dispose();
});

t.test("marks that are special tokens have no text: there are no tools and no reasoning", async (t) => {
  const path = folder(t, thinkingTemplate);
  const file = join(path, "tokenizer.json");
  const definition = JSON.parse(readFileSync(file, "utf8"));
  const flags = { special: true, lstrip: false, rstrip: false, normalized: false };
  for (const [i, content] of ["</think>", "<tool_call>"].entries())
    definition.added_tokens.push({ ...flags, id: 400 + i, content });
  writeFileSync(file, JSON.stringify(definition));
  const { engine, native } = await fakeEngine({ path, info: room });
  const refused = { code: "INVALID_OPTION", option: "tools" };
  await t.rejects(engine.generate({ messages: [asked], tools: [now] }).result(), refused);
  const run = engine.generate({ messages: [asked] });
  t.match(await answer(t, native, "hmYes.", run), { text: "hmYes.", reasoning: undefined });
  await engine.dispose();
});

t.test("a chat with tools", async (t) => {
  const { engine, native } = await fakeEngine({ path: folder(t, sdarTemplate), info: room });
  const chat = engine.chat({ generate: { tools: [now] } });
  await answer(t, native, toolAnswer, chat.send("When?"));
  await eventually(t, () => chat.messages.length, 2);
  const [call] = chat.messages[1]?.toolCalls ?? [];
  const run = chat.send([{ role: "tool", toolCallId: call?.id ?? "", content: "12:00" }]);
  await eventually(t, () => native.requests.length, 1);
  const prompt = engine.detokenize(native.requests[0]?.tokens ?? []);
  t.ok(prompt.includes("<tools>"));
  t.ok(
    prompt.endsWith(`When?\nassistant\n${toolAnswer}\nuser\n<tool_response>\n12:00\n</tool_response>\nassistant\n`),
    prompt,
  );
  await answer(t, native, "Noon.", run);
  await eventually(t, () => chat.messages.length, 4);
  t.match(
    chat.messages.map(({ role }) => role),
    ["user", "assistant", "tool", "assistant"],
  );
  t.same(engine.chat(JSON.parse(JSON.stringify(chat))).messages, chat.messages, "it can be saved");
  await engine.dispose();
});

t.test("a chat that is cut keeps results with their calls", async (t) => {
  const brief = "{# tools, <tool_call> and tool_calls #}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
  const { engine, native } = await fakeEngine({ path: folder(t, brief), info: { ...room, contextLength: 256 } });
  const chat = engine.chat({ generate: { tools: [now], maxTokens: 24 } });
  for (const question of ["a", "b"]) await answer(t, native, question.repeat(40), chat.send(question));
  await answer(t, native, toolAnswer, chat.send("When?"));
  await eventually(t, () => chat.messages.length, 6);
  const run = chat.send([{ role: "tool", content: "x".repeat(150) }]);
  await answer(t, native, "Noon.", run);
  t.equal(chat.cut, 4, "the question, its call and the result are left");
  await engine.dispose();
});
