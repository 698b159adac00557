// sdar-engine/ai-sdk under the real AI SDK: aborts, errors, retries, and what cannot be read.
import { APICallError, UnsupportedFunctionalityError } from "@ai-sdk/provider";
import { generateObject, generateText, type ModelMessage, streamText, tool, wrapLanguageModel } from "ai";
import t from "tap";
import { z } from "zod";
import { sdar } from "../lib/adapters/ai-sdk.js";
import { SdarError } from "../lib/errors.js";
import { Engine } from "../lib/index.js";
import { folder, room, sdarTemplate } from "./conversations.js";
import { eventually } from "./eventually.js";
import { fakeEngine } from "./fake-binding.js";

const engine = await Engine.load("sdar-nano");
t.teardown(() => engine.dispose());
const model = sdar(engine);
const prompt = "Count the atoms in Ca3(PO4)2";

const long = {
  maxOutputTokens: 1500,
  providerOptions: { sdar: { ignoreEos: true, denoise: { strategy: "sequential" }, temperature: 3 } },
};

t.test("aborting", async (t) => {
  const stop = new AbortController();
  const stream = streamText({ model, prompt, ...long, abortSignal: stop.signal });
  let aborts = 0;
  for await (const part of stream.fullStream) {
    if (part.type === "text-delta") stop.abort();
    if (part.type === "abort") aborts++;
  }
  t.equal(aborts, 1);

  const whole = new AbortController();
  const rejected = t.rejects(generateText({ model, prompt, ...long, abortSignal: whole.signal }), {
    name: "AbortError",
  });
  engine.once("started", () => whole.abort());
  await rejected;
  await t.rejects(generateText({ model, prompt, abortSignal: AbortSignal.abort() }), { name: "AbortError" });

  const call = { prompt: [{ role: "user" as const, content: [{ type: "text" as const, text: prompt }] }] };
  const { stream: left } = await model.doStream({ ...call, ...long });
  const finished = new Promise((resolve) => engine.once("finished", resolve));
  for await (const part of left as unknown as AsyncIterable<{ type: string }>) if (part.type === "text-delta") break;
  t.match(await finished, { finishReason: "abort" }, "who leaves a stream aborts its run");
});

t.test("what the engine refuses is an APICallError that names it", async (t) => {
  const refused = async (providerOptions: object, option: string) => {
    const error = await generateText({ model, prompt, providerOptions: { sdar: providerOptions as never } }).catch(
      (e) => e,
    );
    t.ok(APICallError.isInstance(error), option);
    t.match(error, { statusCode: 400, isRetryable: false, data: { code: "INVALID_OPTION", option } });
    t.ok(SdarError.is(error.cause, "INVALID_OPTION"));
  };
  await refused({ threshold: 2 }, "denoise.threshold");
  await refused({ tempo: 2 }, "tempo");
  await refused({ n: 2 }, "providerOptions.sdar.n");
  await refused({ messages: [] }, "providerOptions.sdar.messages");
  await refused({ quality: "fast", strategy: "sequential" }, "quality");
  const tooLong = await generateText({ model, prompt: "x ".repeat(4000) }).catch((e) => e);
  t.match(tooLong, { statusCode: 413, data: { code: "PROMPT_TOO_LONG" } });
  const set = z.object({ a: z.array(z.string()).meta({ uniqueItems: true }) });
  const unique = await generateObject({ model, schema: set, prompt }).catch((e) => e);
  t.match(unique, { data: { code: "INVALID_OPTION", option: "format" } });
  const errors: unknown[] = [];
  const stream = streamText({ model, prompt, temperature: -1, onError: ({ error }) => void errors.push(error) });
  await stream.consumeStream();
  t.match(errors, [{ statusCode: 400, data: { option: "temperature" } }]);
});

t.test("a full queue is tried again, after the time that it tells", async (t) => {
  const { engine, native } = await fakeEngine({ options: { maxConcurrent: 1, queue: { maxRequests: 0 } } });
  for (let full = false; !full; )
    full = await engine.generate({ tokens: [1], maxTokens: 60 }).started.then(
      () => false,
      () => true,
    );
  const filled = native.requests.length;
  const refusals: unknown[] = [];
  const watched = wrapLanguageModel({
    model: sdar(engine),
    middleware: {
      specificationVersion: "v3",
      wrapGenerate: async ({ doGenerate }) => {
        try {
          return await doGenerate();
        } catch (error) {
          refusals.push(error);
          for (const { id } of native.requests) native.finish(id, "end");
          native.wake();
          throw error;
        }
      },
    },
  });
  const given = generateText({ model: watched, messages: [{ role: "user", content: "a" }] });
  await eventually(t, () => native.requests.length, filled + 1);
  const { id } = native.requests.at(-1) as { id: number };
  native.tokens(id, [111, 107]);
  native.finish(id, "end");
  native.wake();
  t.equal((await given).text, "ok");
  t.match(refusals, [
    {
      statusCode: 503,
      isRetryable: true,
      responseHeaders: { "retry-after-ms": /^\d+$/ },
      data: { code: "QUEUE_FULL" },
    },
  ]);
});

t.test("what fails within a stream is a part of it", async (t) => {
  const { engine, native } = await fakeEngine();
  const errors: unknown[] = [];
  const stream = streamText({
    model: sdar(engine),
    messages: [{ role: "user", content: "a" }],
    onError: ({ error }) => void errors.push(error),
  });
  const read = stream.consumeStream();
  await eventually(t, () => native.requests.length, 1);
  native.fail(1, "DEVICE_FAILED", "the card is gone");
  native.wake();
  await read;
  t.match(errors, [{ statusCode: 500, isRetryable: false, data: { code: "DEVICE_FAILED" } }]);
  t.equal(await stream.finishReason, "error");
});

t.test("reasoning, text and calls have parts of their own", async (t) => {
  const { engine, native } = await fakeEngine({ path: folder(t, sdarTemplate), info: room });
  const answer = '<think>\nhm\n</think>\n\nSo.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>';
  const tools = { now: tool({ inputSchema: z.object({}) }) };
  const say = async () => {
    await eventually(t, () => Number(native.requests.length > 0), 1);
    const { id } = native.requests.shift() as { id: number };
    for (const byte of Buffer.from(answer)) {
      native.tokens(id, [byte]);
      native.wake();
    }
    native.finish(id, "end");
    native.wake();
  };
  const messages: ModelMessage[] = [{ role: "user", content: "Now?" }];
  const whole = generateText({ model: sdar(engine), messages, tools });
  await say();
  t.match(await whole, {
    text: "So.",
    reasoningText: "hm",
    finishReason: "tool-calls",
    toolCalls: [{ toolName: "now" }],
  });

  const stream = streamText({ model: sdar(engine), messages, tools });
  const parts: string[] = [];
  const read = (async () => {
    for await (const { type } of stream.fullStream) if (parts.at(-1) !== type) parts.push(type);
  })();
  await say();
  await read;
  t.same(parts.slice(2, -2), [
    ...["reasoning-start", "reasoning-delta", "reasoning-end", "text-start", "text-delta", "text-end"],
    ...["tool-input-start", "tool-input-delta", "tool-input-end", "tool-call"],
  ]);
  t.equal(await stream.reasoningText, "hm");
  t.equal(await stream.text, "So.");
});

t.test("parts that are no text, other kinds of models, and what is no model", async (t) => {
  const image = { type: "image" as const, image: new Uint8Array([1]), mediaType: "image/png" };
  const seen = await generateText({ model, messages: [{ role: "user", content: [image] }] }).catch((e) => e);
  t.ok(UnsupportedFunctionalityError.isInstance(seen));
  t.match(seen.message, /image\/png/);
  t.throws(() => sdar.embeddingModel("x"), { name: "AI_NoSuchModelError", modelId: "x" });
  t.throws(() => sdar(3 as never), { code: "INVALID_OPTION", option: "model" });
  const provided = { type: "provider", id: "other.search", name: "search", args: {} } as const;
  const { warnings } = await model.doGenerate({
    prompt: [{ role: "user", content: [{ type: "text", text: prompt }] }],
    maxOutputTokens: 8,
    tools: [provided],
  });
  t.match(warnings, [{ type: "unsupported", feature: "provider-defined tool other.search" }]);
});
