// The server as clients use it: OpenAI's, the AI SDK's, LangChain's, curl. Texts are those of the engine called directly.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import t from "tap";
import { z } from "zod";
import { Engine, type GenerateOptions } from "../lib/index.js";
import { parseApiKeys } from "../lib/server/index.js";
import { eventually } from "./eventually.js";
import { eventsOf, serving } from "./serving.js";

const messages = [{ role: "user" as const, content: "Count the atoms in Ca3(PO4)2" }];
const question = { model: "nano", messages };
const engine = await Engine.load("sdar-nano");
const direct = (options: GenerateOptions = {}) => engine.generate({ messages, ...options }).result();
t.teardown(() => engine.dispose());
const apiKeys = parseApiKeys("sk-test");
/** runs until the context is full */
const long = { ignore_eos: true, sdar: { strategy: "sequential" } };

t.test("openai", async (t) => {
  const { url } = await serving(t, engine, { apiKeys });
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-test", maxRetries: 0 });

  await t.test("a conversation, whole and streamed", async (t) => {
    const { text, usage } = await direct();
    const whole = await client.chat.completions.create(question);
    t.equal(whole.choices[0]?.message.content, text);
    const counted = { prompt_tokens: usage.promptTokens, completion_tokens: usage.completionTokens };
    t.match(whole.usage, counted);
    const stream = await client.chat.completions.create({
      ...question,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks: OpenAI.ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    t.match(chunks[0]?.choices, [{ delta: { role: "assistant", content: "" }, finish_reason: null }]);
    t.equal(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join(""), text);
    const finished = chunks.filter(({ choices }) => choices[0]?.finish_reason);
    t.match(finished, [{ choices: [{ delta: {}, finish_reason: "stop" }] }], "one, with nothing else in it");
    t.same(finished[0]?.choices[0]?.delta, {});
    t.match(chunks.at(-1), { choices: { length: 0 }, usage: counted });
    t.equal(new Set(chunks.map(({ id }) => id)).size, 1);
  });

  await t.test("options reach the engine", async (t) => {
    const options = { temperature: 1, topP: 0.9, seed: 7, maxTokens: 12, n: 3, presencePenalty: 0.5 };
    const { answers = [] } = await direct(options);
    const asked = { temperature: 1, top_p: 0.9, seed: 7, max_completion_tokens: 12, n: 3, presence_penalty: 0.5 };
    const { choices } = await client.chat.completions.create({ ...question, ...asked });
    t.same(
      choices.map(({ message }) => message.content),
      answers.map(({ text }) => text),
    );
    const texts = ["", "", ""];
    const reasons: (string | null)[] = [];
    for await (const { choices } of await client.chat.completions.create({ ...question, ...asked, stream: true }))
      for (const { index, delta, finish_reason } of choices) {
        texts[index] += delta.content ?? "";
        if (finish_reason) reasons[index] = finish_reason;
      }
    t.same(
      texts,
      answers.map(({ text }) => text),
    );
    t.equal(reasons.length, 3);
    const stopped = await client.chat.completions.create({ ...question, stop: [" "] });
    t.match(stopped.choices[0], { finish_reason: "stop", message: { content: (await direct({ stop: " " })).text } });
    const cut = await client.chat.completions.create({ ...question, max_tokens: 3 });
    t.match(cut.choices[0], { finish_reason: "length" });
    const { tokens } = await direct();
    const first = tokens[0]?.id as number;
    const biased = await client.chat.completions.create({ ...question, logit_bias: { [first]: -100 } });
    t.equal(biased.choices[0]?.message.content, (await direct({ logitBias: { [first]: -100 } })).text);
  });

  await t.test("log-probabilities", async (t) => {
    const { text, tokens } = await direct({ topLogprobs: 2 });
    const asked = { ...question, logprobs: true, top_logprobs: 2 };
    const told = (await client.chat.completions.create(asked)).choices[0]?.logprobs?.content ?? [];
    t.equal(told.map(({ token }) => token).join(""), text);
    t.same(
      told.map(({ logprob }) => logprob),
      tokens.slice(0, told.length).map(({ logprob }) => logprob),
    );
    t.ok(told.every(({ top_logprobs }) => top_logprobs.length === 2));
    const streamed: OpenAI.ChatCompletionTokenLogprob[] = [];
    for await (const { choices } of await client.chat.completions.create({ ...asked, stream: true }))
      streamed.push(...(choices[0]?.logprobs?.content ?? []));
    t.same(streamed, told);
  });

  await t.test("answers of a form", async (t) => {
    const schema = z.object({ element: z.enum(["Ca", "O"]), sure: z.boolean() });
    const parsed = await client.chat.completions.parse({
      ...question,
      response_format: zodResponseFormat(schema, "atoms"),
    });
    t.ok(schema.safeParse(parsed.choices[0]?.message.parsed).success);
    const form = async (more: object) => {
      const { choices } = await client.chat.completions.create({ ...question, max_tokens: 60, ...more });
      return choices[0]?.message.content ?? "";
    };
    t.ok(JSON.parse(await form({ response_format: { type: "json_object" } })) !== undefined);
    t.match(await form({ structured_outputs: { regex: "\\d{3}-[a-z]+" } }), /^\d{3}-[a-z]+$/);
    t.match(await form({ structured_outputs: { choice: ["yes", "no"] } }), /^(yes|no)$/);
    t.match(await form({ structured_outputs: { grammar: 'root ::= "a"+ "b"' } }), /^a+b$/);
    t.ok(Number.isInteger(JSON.parse(await form({ guided_json: { type: "integer" } }))));
  });

  await t.test("completions", async (t) => {
    const prompts = ["1 + 1 =", "Sort: "];
    const texts = await Promise.all(prompts.map((prompt) => engine.generate({ prompt, maxTokens: 8 }).text()));
    const whole = await client.completions.create({ model: "nano", prompt: prompts, max_tokens: 8 });
    t.same(
      whole.choices.map(({ index, text }) => [index, text]),
      texts.map((text, index) => [index, text]),
    );
    const ids = [...(await engine.tokenize("1 + 1 ="))];
    const byIds = await client.completions.create({ model: "nano", prompt: ids, max_tokens: 8, logprobs: 1 });
    t.equal(byIds.choices[0]?.text, texts[0]);
    t.equal(byIds.choices[0]?.logprobs?.tokens?.join(""), texts[0]);
    const streamed = ["", ""];
    const stream = await client.completions.create({ model: "nano", prompt: prompts, max_tokens: 8, stream: true });
    for await (const { choices } of stream) for (const { index, text } of choices) streamed[index] += text;
    t.same(streamed, texts);
  });

  await t.test("an abort frees what the request had", async (t) => {
    const stream = await client.chat.completions.create({ ...question, ...long, stream: true } as never);
    for await (const _ of stream as unknown as AsyncIterable<unknown>) break; // the client hangs up
    const controller = new AbortController();
    const asked = client.chat.completions.create({ ...question, ...long } as never, { signal: controller.signal });
    await eventually(t, () => engine.stats(), { running: 1 });
    controller.abort();
    await t.rejects(asked, { message: /aborted/ });
    await eventually(t, () => engine.stats(), { running: 0, waiting: 0 });
    const { free, cached, total } = engine.stats().pages;
    t.equal(free + cached, total);
  });

  await t.test("errors are those that the client knows", async (t) => {
    const create = (more: object) => client.chat.completions.create({ ...question, ...more });
    await t.rejects(create({ top_p: 3 }), { name: "Error", status: 400, param: "top_p" });
    await t.rejects(create({ model: "gpt" }), { status: 404, code: "model_not_found", type: "not_found_error" });
    const strange = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-other", maxRetries: 0 });
    await t.rejects(strange.models.list(), { status: 401, code: "invalid_api_key" });
    t.same(
      (await client.models.list()).data.map(({ id }) => id),
      ["nano"],
    );
  });
});

t.test("the AI SDK", async (t) => {
  const { url } = await serving(t, engine);
  const provider = createOpenAICompatible({ name: "sdar", baseURL: `${url}/v1`, includeUsage: true });
  const { text, usage } = await direct();
  const whole = await generateText({ model: provider("nano"), messages });
  t.equal(whole.text, text);
  t.match(whole, { finishReason: "stop", usage: { inputTokens: usage.promptTokens } });
  const stream = streamText({ model: provider("nano"), messages });
  let streamed = "";
  for await (const part of stream.textStream) streamed += part;
  t.equal(streamed, text);
  t.match(await stream.usage, { outputTokens: usage.completionTokens });
});

t.test("LangChain", async (t) => {
  const { url } = await serving(t, engine);
  const model = new ChatOpenAI({ model: "nano", apiKey: "none", configuration: { baseURL: `${url}/v1` } });
  const { text } = await direct();
  t.equal((await model.invoke(messages)).content, text);
  let streamed = "";
  for await (const { content } of await model.stream(messages)) streamed += content;
  t.equal(streamed, text);
});

t.test("curl", async (t) => {
  const { url } = await serving(t, engine);
  const body = JSON.stringify({ ...question, stream: true, sdar: { tokens: true, drafts: true, usage: true } });
  const json = ["-H", "content-type: application/json", "-d", body];
  const { stdout } = await promisify(execFile)("curl", ["-sN", `${url}/v1/chat/completions`, ...json]);
  const events = eventsOf(stdout);
  t.equal(events.pop(), "[DONE]");
  const chunks = events.map((event) => JSON.parse(event));
  const { text, tokens, usage } = await direct();
  t.equal(chunks.map(({ choices: [choice] }) => choice?.delta.content ?? "").join(""), text);
  const own = chunks.flatMap(({ choices: [choice] }) => choice?.sdar ?? []);
  t.same(
    own.flatMap((each) => each.tokens ?? []),
    tokens,
  );
  t.equal(own.filter(({ draft }) => draft).length, usage.forwards, "one for each step");
  t.match(chunks.at(-1), { choices: { length: 0 }, sdar: { usage: { forwards: usage.forwards } } });
});

t.test("texts and tokens, as vLLM has them", async (t) => {
  const { ask } = await serving(t, engine);
  const tokens = [...(await engine.tokenize("1 + 1 ="))];
  const json = async (path: string, body: object) => (await (await ask(path, body)).json()) as Record<string, unknown>;
  t.match(await json("/tokenize", { prompt: "1 + 1 =" }), { count: tokens.length, max_model_len: 1024, tokens });
  t.same((await json("/tokenize", { messages })).tokens, [...(await engine.tokenize(messages))]);
  t.same(await json("/detokenize", { tokens }), { prompt: "1 + 1 =" });
  t.match(await json("/detokenize", { tokens: [-1] }), { error: { param: "tokens[0]" } });
  t.match(await json("/tokenize", { prompt: "x", messages }), { error: { param: "prompt" } });
});
