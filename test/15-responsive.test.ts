// Nothing that a request's text holds stalls JavaScript's thread: measured as the longest turn of its event loop.
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { SdarError } from "../lib/errors.js";
import type { GenerateRequest } from "../lib/index.js";
import { fakeEngine } from "./fake-binding.js";
import { qwen3Info, writeQwen3 } from "./qwen3.js";
import { leastStall } from "./stalls.js";
import { texts } from "./tokenizer/texts.js";

t.test("texts of strangers, with the tokenizer of Qwen3", async (t) => {
  const path = writeQwen3(t.testdir({}));
  const { engine, native } = await fakeEngine({ path, info: qwen3Info });
  /** The text was encoded, or refused by name. */
  const accepted = async (request: GenerateRequest) => {
    const before = native.requests.length;
    const run = engine.generate(request);
    let error: unknown;
    run.result().catch((e) => {
      error = e;
    });
    while (native.requests.length === before && !error) await sleep(1);
    run.abort();
    if (error && !(error instanceof SdarError && error.code !== "INTERNAL")) throw error;
  };
  const long: Record<string, string> = {
    letters: "a".repeat(1_000_000),
    spaces: " ".repeat(1_000_000),
    "line ends": "\n".repeat(300_000),
    Han: "的".repeat(300_000),
    marks: `e${"\u0315\u0300".repeat(60_000)}`,
    "names of tokens": "<|im_end|>".repeat(20_000),
    "halves of names": "<|im_".repeat(20_000),
    random: texts(2000, ["<|im_start|>", "</think>"]).join(""),
    "lone surrogates": "\ud83d".repeat(100_000),
  };
  for (const [what, content] of Object.entries(long)) {
    const requests = [
      { prompt: content },
      { prompt: content, parseSpecial: false },
      { messages: [{ role: "user", content }] },
    ];
    for (const request of requests) {
      const worst = await leastStall(() => accepted(request));
      t.ok(worst < 20, `${what}: ${worst.toFixed(1)} ms`);
    }
  }
  const many = Array.from({ length: 1000 }, (_, i) => ({ role: i % 2 ? "assistant" : "user", content: "a | b <c>" }));
  const worst = await leastStall(() => accepted({ messages: many }));
  t.ok(worst < 20, `many messages: ${worst.toFixed(1)} ms`);
  await engine.dispose();
});

t.test("lists and objects of strangers are refused by name", async (t) => {
  const { engine, native } = await fakeEngine({ info: qwen3Info });
  const messages = [{ role: "user", content: "a" }];
  const names = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`a${i}`, i]));
  const nested = (depth: number) => {
    let value: unknown = "x";
    for (let i = 0; i < depth; i++) value = i % 2 ? [value] : { a: value };
    return value;
  };
  const biases = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [i, 1]));
  const strings = (count: number, length: number) =>
    Array.from({ length: count }, (_, i) => `${i}`.padEnd(length, "é"));
  const requests: Record<string, object> = {
    "stop strings": { tokens: [1], stop: strings(200_000, 8) },
    "long stop strings": { tokens: [1], stop: strings(64, 100_000) },
    "stop tokens": { tokens: [1], stopTokens: Array.from({ length: 1_000_000 }, (_, i) => i) },
    biases: { tokens: [1], logitBias: biases(200_000) },
    "biases in a map": { tokens: [1], logitBias: new Map(Array.from({ length: 200_000 }, (_, i) => [i, 1])) },
    tokens: { tokens: Array.from({ length: 2_000_000 }, () => 1) },
    "many messages": { messages: Array.from({ length: 200_000 }, () => messages[0]) },
    "names of options": { tokens: [1], ...names(50_000) },
    "names in a message": { messages: [{ role: "user", content: "a", ...names(50_000) }] },
    tools: {
      messages,
      tools: Array.from({ length: 4000 }, () => ({ function: { name: "f", parameters: names(200) } })),
    },
    "nested tools": { messages, tools: [nested(50_000)] },
    "wide content": { messages: [{ role: "user", content: Array.from({ length: 500_000 }, () => ({ text: "a" })) }] },
    "template variables": { messages, templateVariables: names(50_000) },
    "a long key": { tokens: [1], key: "k".repeat(10_000_000) },
    "a long role": { messages: [{ role: "r".repeat(10_000_000), content: "a" }] },
    "an unknown name": { tokens: [1], ["n".repeat(5_000_000)]: 1 },
  };
  for (const [what, request] of Object.entries(requests)) {
    const refused = async () => {
      const error = await (async () => engine.generate(request as GenerateRequest).result())().catch((e) => e);
      t.ok(error instanceof SdarError && /^(INVALID_OPTION|PROMPT_TOO_LONG)$/.test(error.code), `${what}: ${error}`);
      t.ok(error.message.length < 1000);
    };
    const worst = await leastStall(refused);
    t.ok(worst < 20, `${what}: ${worst.toFixed(1)} ms`);
  }
  t.equal(native.requests.length, 0);
  await engine.dispose();
});

t.test("loading a large tokenizer, which can be given up at once", async (t) => {
  const path = writeQwen3(t.testdir({}));
  const load = async () => {
    const { engine } = await fakeEngine({ path, info: qwen3Info });
    await engine.dispose();
  };
  await load();
  const worst = await leastStall(load);
  t.ok(worst < 60, `${worst.toFixed(1)} ms`);
  const began = performance.now();
  const loading = fakeEngine({ path, info: qwen3Info, options: { signal: AbortSignal.timeout(20) } });
  await t.rejects(loading, { code: "ABORTED" });
  t.ok(performance.now() - began < 5000, "long before a slow machine has read it");
});
